"""Command line: ``spatialsig demo`` and ``spatialsig run CONFIG``."""

from __future__ import annotations

import logging
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from spatialsig._errors import SpatialsigError
from spatialsig._settings import settings

app = typer.Typer(
    help="Learn molecular signatures from H&E.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True)

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory of everything that is made.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the cohort and the models.")] = 0,
    size_um: Annotated[float, typer.Option(help="Edge of a synthetic slide, µm.")] = 1700.0,
    *,
    quiet: Quiet = False,
) -> None:
    """Make a synthetic cohort of four patients, learn from two, and report on the two held out."""
    from spatialsig.pipeline import run_demo

    _prepare(quiet=quiet)
    run_demo(out, seed=seed, size_um=size_um)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML file; see docs/run.md.")],
    *,
    quiet: Quiet = False,
) -> None:
    """Run the whole pipeline on your own bundles; steps done before are skipped."""
    from spatialsig.pipeline import read_config
    from spatialsig.pipeline import run as run_pipeline

    _prepare(quiet=quiet)
    run_pipeline(read_config(config))


@app.command()
def verify(path: Annotated[Path, typer.Argument(help="Store of a slide.")], *, quiet: Quiet = False) -> None:
    """Check every file of a store; exits with 1 where something is missing, altered or left over."""
    from spatialsig.io import verify as verify_store

    _prepare(quiet=quiet)
    found = verify_store(path)
    typer.echo(found.to_string(index=False))
    if not found["status"].isin(["ok", "not checksummed"]).all():
        raise typer.Exit(1)


@app.command()
def repair(path: Annotated[Path, typer.Argument(help="Store of a slide.")], *, quiet: Quiet = False) -> None:
    """Make a store readable again; unfinished elements are moved beside it, nothing is deleted."""
    from spatialsig.io import repair as repair_store

    _prepare(quiet=quiet)
    done = repair_store(path)
    typer.echo(done.to_string(index=False) if len(done) else "nothing to repair")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(metadata.version("spatialsig"))


def _prepare(*, quiet: bool) -> None:
    settings.progress = not quiet
    logging.getLogger("spatialdata").setLevel(logging.WARNING)


def main() -> None:
    """Run the command line; an error made on purpose is one line, not a traceback."""
    try:
        app()
    except SpatialsigError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
