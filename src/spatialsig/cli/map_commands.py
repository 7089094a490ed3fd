"""Commands below the size of a patch: map, nuclei, cells.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- typer reads the annotations
from typing import Annotated

import typer

from spatialsig._files import write_csv
from spatialsig._keys import CELLS_PRED
from spatialsig.cli.model_commands import ModelIn  # noqa: TC001 -- typer reads the annotations
from spatialsig.cli.options import Further, Quiet, Slides, keywords, prepare, slides_at


def draw_map(
    stores: Slides,
    model: ModelIn,
    method: Annotated[str | None, typer.Option(help="patch (default) or token: the places inside patches.")] = None,
    stride_um: Annotated[float | None, typer.Option(help="Distance between patches, µm.")] = None,
    bin_um: Annotated[float | None, typer.Option(help="Edge of a px of the map, µm.")] = None,
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Draw maps of the predicted scores, finer than the patches; slides whose map is there are skipped."""
    from spatialsig import tl
    from spatialsig.models import load_signature_model

    prepare(quiet=quiet)
    options = keywords(further, tl.signature_map, method=method, stride_um=stride_um, bin_um=bin_um)
    done = tl.signature_map(slides_at(stores), load_signature_model(model), **{"skip_done": True, **options})
    typer.echo(done.to_string(index=False))


def nuclei(
    stores: Slides,
    sensitivity: Annotated[float, typer.Option(help="Above 1 finds paler nuclei, below 1 fewer.")] = 1.0,
    *,
    quiet: Quiet = False,
) -> None:
    """Find the nuclei of the H&E by their haematoxylin, where no segmentation is at hand."""
    from spatialsig import pp

    prepare(quiet=quiet)
    typer.echo(pp.find_nuclei(slides_at(stores), sensitivity=sensitivity).to_string(index=False))


def cells(
    stores: Slides,
    model: ModelIn,
    cells: Annotated[
        str | None, typer.Option(help="Shapes or labels of the cells, or detect; the cells of the table by default.")
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="CSV file to write: predicted cells against their measured scores.")
    ] = None,
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Predict the scores of single cells; slides whose table is there are skipped."""
    from spatialsig import tl
    from spatialsig.models import load_signature_model

    prepare(quiet=quiet)
    data, options = slides_at(stores), keywords(further, tl.predict_cells, cells=cells)
    done = tl.predict_cells(data, load_signature_model(model), **{"skip_done": True, **options})
    typer.echo(done.to_string(index=False))
    if evaluation is not None:
        found = tl.evaluate_cells(data, cells_key=options.get("key_added", CELLS_PRED))
        write_csv(evaluation, found)
        typer.echo(found.to_string(index=False, float_format="{:.3f}".format))
