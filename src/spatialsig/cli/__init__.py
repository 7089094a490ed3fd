"""Command line: ``spatialsig COMMAND``. Nothing heavy is imported before a command needs it.

Floor 12: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide,
expression, inference, labels, evaluation, io, pl, pp, tl, atlas, datasets, maps, cohort, report, pipeline, referee,
whole_slides.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_command

from spatialsig._settings import settings
from spatialsig.errors import SpatialsigError, SpatialsigWarning

from . import (
    atlas_command,
    judging_commands,
    map_commands,
    model_commands,
    predict_command,
    project_commands,
    slide_commands,
    trust_commands,
)
from .cohorts import at_once, slide_by_slide, some_slides
from .options import INTERRUPTED, STEPS, STORES, WHOLE, show_version
from .wording import Command, console, say_error

__all__ = ["app", "main"]

app = typer.Typer(
    help="Learn molecular signatures from H&E.\n\nExit codes: 0 success, 1 an error, a slide that failed or a faulty store, 2 an invalid option, "
    "130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for name, command, panel in (
    ("init", project_commands.init, WHOLE),
    ("demo", at_once(project_commands.demo), WHOLE),
    ("plan", project_commands.plan, WHOLE),
    ("run", at_once(project_commands.run), WHOLE),
    ("report", project_commands.report, WHOLE),
    ("import", slide_by_slide(slide_commands.import_), STEPS),
    ("split", slide_commands.split, STEPS),
    ("train-ae", at_once(model_commands.train_ae), STEPS),
    ("embed", slide_by_slide(model_commands.embed), STEPS),
    ("label", slide_by_slide(slide_commands.label), STEPS),
    ("train", model_commands.train, STEPS),
    ("train-probe", model_commands.train_probe, STEPS),
    ("predict", slide_by_slide(predict_command.predict), STEPS),
    ("map", slide_by_slide(map_commands.draw_map), STEPS),
    ("nuclei", slide_by_slide(map_commands.nuclei), STEPS),
    ("train-cells", at_once(map_commands.train_cells), STEPS),
    ("cells", slide_by_slide(map_commands.cells), STEPS),
    ("triage", trust_commands.triage, STEPS),
    ("evaluate", at_once(project_commands.evaluate), STEPS),
    ("referee", at_once(judging_commands.referee), STEPS),
    ("atlas", some_slides(atlas_command.atlas), STORES),
    ("vitessce", atlas_command.vitessce, STORES),
    ("power", at_once(judging_commands.power), STEPS),
    ("scales", at_once(judging_commands.scales), STEPS),
    ("verify", some_slides(slide_commands.verify), STORES),
    ("status", some_slides(project_commands.status), STORES),
    ("repair", slide_commands.repair, STORES),
    ("optimize", slide_commands.optimize, STORES),
    ("version", project_commands.version, STORES),
):
    app.command(name, cls=Command, rich_help_panel=panel)(command)
app.add_typer(project_commands.export, name="export", rich_help_panel=STORES)


@app.callback()
def common(
    device: Annotated[
        str | None,
        typer.Option(
            envvar="SPATIALSIG_DEVICE", help="Where networks compute: auto (default), cpu, cuda, cuda:1 or mps."
        ),
    ] = None,
    memory_gb: Annotated[
        float | None,
        typer.Option(envvar="SPATIALSIG_MEMORY_GB", help="Memory that caches may take, GiB; about 1 GiB comes on top."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Function that builds a network of yours, for `--set backbone=MODULE:FUNCTION` and models trained with it.",
        ),
    ] = None,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    if device is not None:  # checking it loads what most commands do not need
        settings.device = device
    if memory_gb is not None:
        settings.memory_gb = memory_gb
    if backbone is not None:
        from spatialsig.pipeline import use_backbone

        use_backbone(backbone, folder=Path.cwd())


def _options() -> list[str]:
    """Names of the options of the command that was typed."""
    commands = getattr(get_command(app), "commands", {})
    typed = next((commands[word] for word in sys.argv[1:] if word in commands), None)
    return [str(parameter.name) for parameter in getattr(typed, "params", ())]


def main() -> None:
    """Entry point of the script ``spatialsig``: an error made on purpose, or a file that cannot be used, is one line, no traceback."""
    plain = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if issubclass(category, SpatialsigWarning):  # the line of a program says nothing to who typed a command
            console.print(f"warning: {message}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        else:
            plain(message, category, *where, **options)

    warnings.showwarning = show
    try:
        app()
    except (SpatialsigError, OSError) as error:
        say_error(str(error), _options())
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("interrupted; where possible, the same command resumes where it stopped", style="yellow")
        sys.exit(INTERRUPTED)
    finally:
        warnings.showwarning = plain
