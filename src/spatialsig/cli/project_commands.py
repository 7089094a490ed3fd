"""Whole jobs and their results: demonstration, run, report, evaluation, scores exported for other programs.

Floor 12, above pipeline, referee, whole_slides. Used by cli.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spatialsig._files import check_begins, write_csv
from spatialsig.cli.model_commands import ModelIn  # noqa: TC001 -- typer reads the annotations
from spatialsig.cli.options import Further, Quiet, Seed, Slides, Store, keywords, prepare, show_version, slides_at
from spatialsig.cli.wording import Command
from spatialsig.errors import InputError, SpatialsigWarning

if TYPE_CHECKING:
    import pandas as pd

export = typer.Typer(help="Export scores for other programs.", no_args_is_help=True)


def demo(
    out: Annotated[Path, typer.Option(help="Directory for all results.")] = Path("demo"),
    seed: Seed = 0,
    size_um: Annotated[float, typer.Option(help="Edge of a synthetic slide, µm.")] = 1700.0,
    *,
    quiet: Quiet = False,
) -> None:
    """Make a synthetic cohort of four patients, train on two, and report on the two held out."""
    from spatialsig.pipeline import run_demo

    prepare(quiet=quiet)
    run_demo(out, seed=seed, size_um=size_um)


def init(
    config: Annotated[Path, typer.Argument(help="File to write.")] = Path("config.yaml"),
    bundles: Annotated[Path, typer.Option(help="CSV file of the bundles, relative to the file.")] = Path("bundles.csv"),
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented configuration for `run`."""
    from spatialsig.pipeline import write_template

    write_template(config, bundles=bundles, overwrite=overwrite)
    typer.echo(f"configuration: {config}")


def run(
    config: Annotated[Path, typer.Argument(help="YAML file, such as `init` writes; see docs/run.md.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the steps and what is done; do nothing.")] = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole pipeline on your own bundles; finished steps are skipped."""
    from spatialsig.pipeline import check_manifest, failed_slides, plan, read_config
    from spatialsig.pipeline import run as run_pipeline

    prepare(quiet=quiet)
    loaded = read_config(config)
    if dry_run:
        for number, (step, done) in enumerate(plan(loaded).items(), 1):
            typer.echo(f"{number}. {step}: {'done' if done else 'to do'}")
        check_manifest(loaded)
        return
    run_pipeline(loaded)
    if failed := failed_slides(loaded.out):
        typer.secho(f"without {', '.join(failed)}: the same command tries again", err=True, fg="red")
        raise typer.Exit(1)


def plan(
    place: Annotated[Path, typer.Argument(help="Configuration of a run, or the CSV file of its bundles.")],
    *,
    pilot: Annotated[
        bool, typer.Option("--pilot/--no-pilot", help="Measure this machine by a run on small slides first.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print the estimate as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Say how long a run will take, and what memory and disk it needs, before it."""
    from spatialsig.pipeline import estimate, read_config, usual_config

    prepare(quiet=quiet)
    config = usual_config(place) if place.suffix.lower() == ".csv" else read_config(place)
    found = estimate(config, pilot=pilot)
    typer.echo(found.as_json() if json else found.in_words())
    if found.failed:
        raise typer.Exit(1)


def report(
    run_dir: Annotated[
        Path, typer.Argument(help="Directory of a run: stores/, models/, evaluation.csv, and run.json if present.")
    ],
    out: Annotated[Path | None, typer.Option(help="File to write; report.html of the run by default.")] = None,
    title: Annotated[str | None, typer.Option(help="Title of the report.")] = None,
    *,
    figures: Annotated[bool, typer.Option("--figures", help="Also save every figure in figures/ next to it.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write or rewrite the report of a finished run."""
    from spatialsig.pipeline import report_of

    prepare(quiet=quiet)
    typer.echo(f"report: {report_of(run_dir, out=out, title=title, figures=figures)}")


def status(
    place: Annotated[
        Path,
        typer.Argument(
            help="Directory of a run, a store or its address, a directory of stores, or the csv of a cohort."
        ),
    ],
    *,
    parts: Annotated[bool, typer.Option("--parts", help="List every result, and what it was made from.")] = False,
    quiet: Quiet = False,
) -> None:
    """Show which steps are done on each slide; exits with 1 if a result has to be made again or a slide failed."""
    from spatialsig.io import status as status_of
    from spatialsig.slide.lineage import STALE
    from spatialsig.slide.slides import recorded_slides

    prepare(quiet=quiet)
    failed = _say_run(place)
    if _is_run(place) and not any((place / "stores").glob("*.zarr")):
        return  # nothing was imported yet
    data = slides_at(place / "stores" if _is_run(place) else place, reads_only=True)
    made, samples = status_of(data), [slide.name for slide in recorded_slides(data)]
    shown = made[["sample", "what", "part", "made_by", "state", "made_from"]] if parts else steps_of(samples, made)
    typer.echo(shown.to_string(index=False) if len(made) else "nothing here has a record of what it was made from")
    for detail in made.loc[made["state"] != "fresh", "detail"].drop_duplicates():
        typer.echo(detail)
    if failed or (made["state"] == STALE).any():
        raise typer.Exit(1)


def _is_run(place: Path) -> bool:
    is_store = (place / "zarr.json").exists()
    return ((place / "stores").is_dir() or (place / "steps.json").is_file()) and not is_store


def _say_run(place: Path) -> dict[str, str]:
    """Print what a run in this directory has done; the slides that it left out -> why."""
    if not _is_run(place):
        return {}
    from spatialsig.pipeline import failed_slides, progress_of

    for line in progress_of(place):
        typer.echo(line)
    failed = failed_slides(place)
    for sample, why in failed.items():
        typer.echo(f"failed: {sample}: {why}")
    return failed


def steps_of(samples: list[str], made: pd.DataFrame) -> pd.DataFrame:
    """Table of ``io.status`` as slides x functions: the worst state of what each function made."""
    worst = ("stale", "changed", "fresh")
    states = made.assign(rank=made["state"].map(worst.index)).pivot_table(
        index="sample", columns="made_by", values="rank", aggfunc="min", sort=False
    )
    named = states.reindex(samples).map(lambda rank: "-" if rank != rank else worst[int(rank)])
    named.columns = [str(name).removeprefix("sp.") for name in named.columns]
    return named.reset_index(names="sample")


def version() -> None:
    """Print the version."""
    show_version(True)  # noqa: FBT003


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
    from spatialsig.models import load_signature_model

    prepare(quiet=quiet)
    findings = _place_beside(out)
    data, loaded = slides_at(stores), load_signature_model(model)
    options = keywords(further, tl.evaluate, own=("seed",))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpatialsigWarning)
        found = tl.evaluate(data, loaded, seed=seed, **options)
    write_csv(out, found)
    doubts = tl.findings(data, loaded, found)
    for warning in caught:  # findings are listed below
        if str(warning.message) not in set(doubts["text"]):
            warnings.warn(warning.message, warning.category, stacklevel=2)
    write_csv(findings, doubts)
    summary = tl.summarise(found)
    means = summary[summary["signature"] == "mean"].set_index("method").sort_values("pearson", ascending=False)
    typer.echo(
        means[["pearson", "low", "high", "share_of_ceiling", "n_patients"]].to_string(float_format="{:.3f}".format)
    )
    for doubt in doubts.itertuples():
        typer.echo(f"finding ({doubt.severity}): {doubt.text}")
    typer.echo(f"evaluation: {out}")


def _place_beside(out: Path) -> Path:
    """Where the findings go, once it is known that both tables can be written and take the place of nothing of others."""
    from spatialsig.evaluation.schema import FINDING_COLUMNS

    if out.is_dir():
        msg = f"`--out {out}` is a folder; wanted the CSV file to write, for example {out / 'evaluation.csv'}."
        raise InputError(msg)
    place, header = out.with_name("findings.csv"), ",".join(FINDING_COLUMNS).encode()
    check_begins(
        place, header, what="a table of findings", fix="or write the evaluation to another folder with `--out`"
    )
    return place


@export.command("geojson", cls=Command)
def geojson(
    store: Store,
    out: Annotated[Path, typer.Option(help="File to write.")],
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Export patches, or cells (`--set table_key=cells_pred`), and their scores for QuPath."""
    from spatialsig import io

    prepare(quiet=quiet)
    io.export_geojson(store, out, **keywords(further, io.export_geojson))
    typer.echo(f"geojson: {out}")


@export.command("explorer", cls=Command)
def explorer(
    store: Store,
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    signature: Annotated[
        str | None, typer.Option(help="Score whose quantiles are the groups; by the highest score if not given.")
    ] = None,
    further: Further = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Export cells in groups by their predicted scores, for Xenium Explorer."""
    from spatialsig import io

    prepare(quiet=quiet)
    n = io.export_explorer_groups(store, out, **keywords(further, io.export_explorer_groups, signature=signature))
    typer.echo(f"groups of {n} cells: {out}")


@export.command("seed", cls=Command)
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
    io.export_seed_layout(
        slides_at(stores, reads_only=True), out, autoencoder=model, **keywords(further, io.export_seed_layout)
    )
    typer.echo(f"layout: {out}")
