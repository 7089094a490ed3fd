"""Commands that write pages of slides to zoom into: atlas, vitessce.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spatialsig.cli.options import Further, Quiet, Store, check_stores, keywords, prepare, several, slides_at


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


def vitessce(
    store: Store,
    url: Annotated[str, typer.Option(metavar="BASE", help="Address at which browsers reach the folder of the store.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSON file to write.")] = Path("vitessce.json"),
    color: Annotated[str | None, typer.Option(help="Signature shown at first.")] = None,
    table_key: Annotated[
        str | None, typer.Option(help="Table of scores; signatures_pred where it is there, else signatures.")
    ] = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Write the configuration with which vitessce.io shows a store that you serve: its H&E, and scores over it."""
    import json

    from spatialsig._files import check_target, write_text
    from spatialsig._keys import IMAGE
    from spatialsig.pl.drawing.vitessce_views import address_of, shown_of, view_config

    check_target(out, (".json",), name="out")
    prepare(quiet=quiet)
    check_stores(store)
    shown = shown_of(store, color, table_key=table_key, image_key=IMAGE)
    address = address_of(shown, url)
    write_text(out, json.dumps(view_config(shown, address), indent=2) + "\n")
    typer.echo(f"configuration: {out} ({shown.color} of {address})")
