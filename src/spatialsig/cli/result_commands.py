"""Commands on results: evaluate a model, export scores for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spatialsig.cli.model_commands import ModelIn  # noqa: TC001 -- typer reads the annotations
from spatialsig.cli.options import Further, Quiet, Seed, Slides, Store, keywords, prepare, slides_at

export = typer.Typer(help="Export scores for other programs.", no_args_is_help=True)


def evaluate(
    stores: Slides,
    model: ModelIn,
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("evaluation.csv"),
    seed: Seed = 0,
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Evaluate a model on its held-out fold, with baselines, controls and the noise ceiling; also writes findings.csv."""
    from spatialsig import tl
    from spatialsig.models import SignatureViT

    prepare(quiet=quiet)
    data, loaded = slides_at(stores), SignatureViT.load(model)
    found = tl.evaluate(data, loaded, seed=seed, **keywords(further, tl.evaluate))
    out.parent.mkdir(parents=True, exist_ok=True)
    found.to_csv(out, index=False)
    doubts = tl.findings(data, loaded, found)
    doubts.to_csv(out.with_name("findings.csv"), index=False)
    summary = tl.summarise(found)
    means = summary[summary["signature"] == "mean"].set_index("method").sort_values("pearson", ascending=False)
    typer.echo(
        means[["pearson", "low", "high", "share_of_ceiling", "n_patients"]].to_string(float_format="{:.3f}".format)
    )
    for doubt in doubts.itertuples():
        typer.echo(f"{doubt.severity}: {doubt.text}")
    typer.echo(f"evaluation: {out}")


@export.command("geojson")
def geojson(
    store: Store,
    out: Annotated[Path, typer.Option(help="File to write.")],
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Export patches and their scores for QuPath."""
    from spatialsig import io

    prepare(quiet=quiet)
    io.export_geojson(store, out, **keywords(further, io.export_geojson))
    typer.echo(f"geojson: {out}")


@export.command("seed")
def seed_layout(
    stores: Slides,
    out: Annotated[Path, typer.Option(help="Directory to write.")],
    autoencoder: Annotated[Path | None, typer.Option(help="Directory of the autoencoder, to export it too.")] = None,
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Export patches as PNG, embeddings as npy and labels as CSV, for the scripts of the prototype."""
    from spatialsig import io
    from spatialsig.models import Autoencoder

    prepare(quiet=quiet)
    model = None if autoencoder is None else Autoencoder.load(autoencoder)
    io.export_seed_layout(slides_at(stores), out, autoencoder=model, **keywords(further, io.export_seed_layout))
    typer.echo(f"layout: {out}")
