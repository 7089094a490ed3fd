"""Whole jobs: the demonstration, a run from a configuration, the report of a finished run."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from spatialsig.cli.options import Quiet, Seed, prepare


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


def run(
    config: Annotated[Path, typer.Argument(help="YAML file; see docs/run.md.")],
    *,
    quiet: Quiet = False,
) -> None:
    """Run the whole pipeline on your own bundles; finished steps are skipped."""
    from spatialsig.pipeline import read_config
    from spatialsig.pipeline import run as run_pipeline

    prepare(quiet=quiet)
    run_pipeline(read_config(config))


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


def version() -> None:
    """Print the version."""
    typer.echo(metadata.version("spatialsig"))
