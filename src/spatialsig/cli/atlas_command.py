"""The command that writes one page of slides to zoom into: atlas.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spatialsig.cli.options import Further, Quiet, keywords, prepare, several, slides_at


def atlas(
    stores: Annotated[
        Path,
        typer.Argument(
            metavar="STORES",
            help="Directory of a run or of stores, csv of a cohort, or the store or address of a slide.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML file to write.")] = Path("atlas.html"),
    signatures: Annotated[
        list[str] | None, typer.Option(help="Only these signatures; with commas, or repeated.")
    ] = None,
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Write one page that zooms into the H&E of each slide, with measured and predicted scores over it."""
    from spatialsig import pl

    prepare(quiet=quiet)
    place = stores / "stores" if (stores / "stores").is_dir() else stores
    options = keywords(further, pl.atlas, signatures=several(signatures))
    path = pl.atlas(slides_at(place, reads_only=True), out, **options)
    typer.echo(f"atlas: {path} ({path.stat().st_size / 1e6:.1f} MB)")
