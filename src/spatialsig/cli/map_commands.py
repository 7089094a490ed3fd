"""Commands below the size of a patch: map.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

from typing import Annotated

import typer

from spatialsig.cli.model_commands import ModelIn  # noqa: TC001 -- typer reads the annotations
from spatialsig.cli.options import Further, Quiet, Slides, keywords, prepare, slides_at


def draw_map(
    stores: Slides,
    model: ModelIn,
    method: Annotated[
        str | None, typer.Option(help="token (places inside patches; default where it can) or patch.")
    ] = None,
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
