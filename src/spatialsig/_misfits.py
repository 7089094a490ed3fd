"""Values that do not fit, in words: what stands there as it was written, and what is wanted in its place.

Ground floor. Used by _arguments, pipeline/run_config.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._checks import comma_hint, nearest
from spatialsig._known import MODELS, model_words, what_is

if TYPE_CHECKING:
    from pydantic import ValidationError

_WORDS = {
    "String should have at least 1 character": "a string that is not empty",
    "'str' instances are not allowed as a Sequence value": "a list, not one string",
    "'bytes' instances are not allowed as a Sequence value": "a list, not bytes",
    "Value should have at least 1 item after validation, not 0": "a list with at least one entry",
    "Predicate 'is_device_name' failed": "'auto', 'cpu', 'cuda', 'cuda:1' (a GPU by its number) or 'mps'",
    "Field required": "a tuple with more values",
}
_QUOTED = re.compile(r"'([^']+)'")
_INSTANCE = "an instance of "


def misfit(name: str, value: Any, error: ValidationError, *, of: str) -> str:
    """Which part of an argument does not fit, and what is wanted in its place."""
    found = [(place_in(value, each["loc"]), in_words(each["msg"]), each["loc"][-1:]) for each in error.errors()]
    (steps, held), _, last = max(found, key=lambda each: len(each[0][0]))  # the deepest error of a union
    wanted = " or ".join(dict.fromkeys(words for (place, _), words, _ in found if place == steps))
    if last == ("[key]",):
        return f"the name {steps[-1]!r} in `{name}{brackets(steps[:-1])}` of `{of}` must be {wanted}"
    return f"`{name}{brackets(steps)}={short(held)}` of `{of}` must be {wanted}{_of_number(held, error)}{meant(held, wanted)}"


def meant(held: Any, wanted: str) -> str:
    """Question for the nearest of the values that are listed in ``wanted``; empty where none is near."""
    near = nearest(held, _QUOTED.findall(wanted))
    return "" if near is None else f"; did you mean {near!r}?"


def _of_number(held: Any, error: ValidationError) -> str:
    """What to write where a number is wanted, and one with a decimal comma is given."""
    return comma_hint(held) if any(each["type"].startswith(("float_", "int_")) for each in error.errors()) else ""


def saved_there(value: Any, error: ValidationError) -> str:
    """What a path is that was given in place of a model."""
    of_model = any(each.get("ctx", {}).get("class") in MODELS for each in error.errors())
    return what_is(Path(value)) if of_model and isinstance(value, str | Path) else ""


def brackets(steps: Sequence[int | str]) -> str:
    """The keys and numbers that lead to a value inside another."""
    return "".join(f"[{step!r}]" for step in steps)


def place_in(value: Any, loc: Sequence[int | str]) -> tuple[list[int | str], Any]:
    """Keys and numbers that lead to what does not fit, and what stands there; tags of unions on the way are skipped."""
    steps: list[int | str] = []
    for step in loc:
        inside = isinstance(value, Mapping) and step in value
        if inside or (isinstance(value, list | tuple) and isinstance(step, int) and step < len(value)):
            steps.append(step)
            value = value[step]
    return steps, value


def in_words(message: str) -> str:
    """What pydantic wants, in words that follow "must be"."""
    if words := _WORDS.get(message.removesuffix(".")):
        return words
    words = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return model_words(words.removeprefix(_INSTANCE)) if words.startswith(_INSTANCE) else words


class _Short(reprlib.Repr):
    """Values as messages show them: numbers, text and what holds them as they are written, anything else by its type."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = 80

    def repr_instance(self, x: object, level: int) -> str:
        """A value of a type that reprlib does not know."""
        plain = isinstance(x, bool | float | complex | bytes | np.number | np.bool_ | None.__class__)
        return repr(x)[:80] if plain else f"<{type(x).__name__}>"


_SHORT = _Short()


def short(value: Any) -> str:
    """A value as a message shows it."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return repr(value[:80]) if isinstance(value, str) else _SHORT.repr(value)
