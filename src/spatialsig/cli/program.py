"""The program and its commands, in the order its help shows them."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from spatialsig._errors import SpatialsigError
from spatialsig.cli import models, projects, results, slides
from spatialsig.cli.options import INTERRUPTED, STEPS, STORES, WHOLE

app = typer.Typer(
    help="Learn molecular signatures from H&E.\n\nExit codes: 0 success, 1 an error or a faulty store, 2 an invalid option, "
    "130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console(stderr=True)

for name, command, panel in (
    ("demo", projects.demo, WHOLE),
    ("run", projects.run, WHOLE),
    ("report", projects.report, WHOLE),
    ("import", slides.import_, STEPS),
    ("split", slides.split, STEPS),
    ("train-ae", models.train_ae, STEPS),
    ("embed", models.embed, STEPS),
    ("label", slides.label, STEPS),
    ("train", models.train, STEPS),
    ("predict", models.predict, STEPS),
    ("evaluate", results.evaluate, STEPS),
    ("verify", slides.verify, STORES),
    ("repair", slides.repair, STORES),
    ("optimize", slides.optimize, STORES),
    ("version", projects.version, STORES),
):
    app.command(name, rich_help_panel=panel)(command)
app.add_typer(results.export, name="export", rich_help_panel=STORES)


def main() -> None:
    """Run the command line; an error made on purpose, or a file that cannot be used, is one line and no traceback."""
    try:
        app()
    except (SpatialsigError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted; where possible, the same command resumes where it stopped", style="yellow")
        sys.exit(INTERRUPTED)
