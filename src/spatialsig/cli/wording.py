"""Messages in the words of the command line: what functions and arguments are called there.

Floor 12, above pipeline, referee, whole_slides. Used by cli/cohorts, cli/predict_command, cli/project_commands, cli.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.console import Console
from typer import BadParameter
from typer.core import TyperCommand

from spatialsig._checks import comma_hint

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

COMMAND_OF = {
    "io.read_xenium": "import", "io.read_atera": "import", "io.read_he": "import", "io.read_seed_layout": "import", "pp.filter_cells": "import", "pp.split": "split",
    "pp.highly_variable_genes": "train-ae", "tl.train_autoencoder": "train-ae", "tl.embed_cells": "embed",
    "pp.make_patches": "label", "pp.assign_cells": "label", "pp.normalize_stain": "label --normalize-stain",
    "tl.score_cells": "label", "tl.aggregate_patches": "label", "tl.train_vit": "train", "tl.train_probe": "train-probe", "tl.predict": "predict", "tl.predict_files": "predict",
    "tl.signature_map": "map", "tl.triage": "triage", "pl.vitessce": "vitessce",
    "tl.evaluate": "evaluate", "tl.referee": "referee", "tl.power": "power", "tl.scales": "scales",
    "io.repair": "repair", "io.optimize": "optimize", "io.verify": "verify", "io.status": "status", "tl.predict_cells": "cells",
    "tl.evaluate_cells": "cells --evaluation", "pp.find_nuclei": "nuclei", "tl.train_cell_head": "train-cells",
}  # fmt: skip
_WITHOUT_VALUE = {
    "use_rep=None": "no_embedding",
    "test_fold=None": "all_slides",
}  # argument -> option that stands for it
_options_now: ContextVar[tuple[str, ...]] = ContextVar("options", default=())  # of the command that runs
console = Console(stderr=True)
_FUNCTION = re.compile(r"`sp\.(\w+\.\w+)")
_ARGUMENT = re.compile(r"`(\w+)=([^`]*)`(?! of `)")  # that shall be passed, not one that was
_PLAIN = re.compile(r"[\w.,/~+-]*|\[[\w.,\s-]*\]")  # values that can be typed as they stand; calls and objects cannot


class Command(TyperCommand):
    """A command that says what to write for a number with a decimal comma, and whose messages name its options."""

    def invoke(self, ctx: Any) -> Any:
        """Run it; messages meanwhile name its options."""
        before = _options_now.set(tuple(str(parameter.name) for parameter in self.params))
        try:
            return super().invoke(ctx)
        finally:
            _options_now.reset(before)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments as typer takes them, or its error with the hint."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except BadParameter as error:
            if hint := comma_hint(_value_of(getattr(error.param, "opts", []), given)):
                error.message = f"{error.message}{hint}"
            raise


def _value_of(flags: Collection[str], words: list[str]) -> str:
    """What stands behind one of the flags of an option on a command line; empty without it."""
    joined = (word.partition("=")[2] for word in words if word.partition("=")[0] in flags and "=" in word)
    apart = (value for flag, value in pairwise(words) if flag in flags)
    return next(joined, next(apart, ""))


def on_the_command_line(message: str, options: Collection[str]) -> str:
    """Sentence that names the commands and ``options`` by which to do what a message says in Python; empty without any.

    >>> on_the_command_line("Call `sp.tl.embed_cells` first, or pass `use_rep=None`.", ["no_embedding", "further"])
    'On the command line: `sp.tl.embed_cells` is `spatialsig embed`, `use_rep=None` is `--no-embedding`.'
    """
    named = dict([*_commands(message), *_options(message, options)])
    return (
        f"On the command line: {', '.join(f'`{python}` is `{word}`' for python, word in named.items())}."
        if named
        else ""
    )


def say_error(text: str, options: Collection[str] | None = None) -> None:
    """Say what went wrong on standard error; ``options`` are those of the command that runs, or was typed."""
    if options is None:
        options = _options_now.get()
    said = on_the_command_line(text, options)
    line = " ".join(filter(None, [f"error: {text}", said]))
    console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)


def _commands(message: str) -> Iterator[tuple[str, str]]:
    for function in _FUNCTION.findall(message):
        if function in COMMAND_OF:
            yield f"sp.{function}", f"spatialsig {COMMAND_OF[function]}"


def _options(message: str, options: Collection[str]) -> Iterator[tuple[str, str]]:
    for name, value in _ARGUMENT.findall(message):
        written, bare = f"{name}={value}", value.strip("'\"")
        if not _PLAIN.fullmatch(bare):
            continue
        if name == "device":  # an option of the program, before the command
            yield written, f"spatialsig --device {bare} COMMAND"
            continue
        flag = _WITHOUT_VALUE.get(written, name)
        if flag in options:
            alone = flag != name or value in ("True", "False", "")
            yield written, f"--{flag.replace('_', '-')}" + ("" if alone else f" {bare}")
        elif "further" in options and not name.endswith("_key"):  # the commands use the usual names
            yield written, f"--set {written}"
