"""Commands below the size of a patch: map, nuclei, train-cells, cells.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- typer reads the annotations
from typing import Annotated

import typer

from spatialsig._files import write_csv
from spatialsig._keys import CELLS_PRED
from spatialsig.cli.model_commands import ModelIn, ModelOut, Overwrite  # noqa: TC001 -- typer reads the annotations
from spatialsig.cli.options import AllSlides, Further, Quiet, Slides, TestFold, held_out, keywords, prepare, slides_at


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


def train_cells(
    stores: Slides,
    model: ModelIn,
    out: ModelOut,
    cells: Annotated[
        str | None, typer.Option(help="Shapes or labels of the nuclei; the cells of the table by default.")
    ] = None,
    test_fold: TestFold = 0,
    further: Further = None,
    *,
    all_slides: AllSlides = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Train a head that scores single nuclei from what the model sees of them, on scored cells."""
    from spatialsig import tl
    from spatialsig.models import load_signature_model
    from spatialsig.models.directory import check_model_target

    prepare(quiet=quiet)
    check_model_target(out, overwrite=overwrite)
    options = keywords(further, tl.train_cell_head, own=("test_fold",), cells=cells)
    fold = held_out(test_fold, all_slides=all_slides)
    head = tl.train_cell_head(slides_at(stores), load_signature_model(model), test_fold=fold, **options)
    head.save(out, overwrite=overwrite)
    typer.echo(f"head: {out}")


def cells(
    stores: Slides,
    model: ModelIn,
    cells: Annotated[
        str | None, typer.Option(help="Shapes or labels of the cells, or detect; the cells of the table by default.")
    ] = None,
    head: Annotated[Path | None, typer.Option(help="Directory of a head of `train-cells`.")] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="CSV file to write: predicted cells against their measured scores.")
    ] = None,
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Predict the scores of single cells; slides whose table is there are skipped."""
    from spatialsig import tl
    from spatialsig.models import CellHead, load_signature_model

    prepare(quiet=quiet)
    trained = None if head is None else CellHead.load(head)
    data, options = slides_at(stores), keywords(further, tl.predict_cells, cells=cells, head=trained)
    network = load_signature_model(model)
    done = tl.predict_cells(data, network, **{"skip_done": True, **options})
    typer.echo(done.to_string(index=False))
    if evaluation is not None:
        found = tl.evaluate_cells(
            data, test_fold=network.run.get("test_fold"), cells_key=options.get("key_added", CELLS_PRED)
        )
        write_csv(evaluation, found)
        typer.echo(found.to_string(index=False, float_format="{:.3f}".format))
