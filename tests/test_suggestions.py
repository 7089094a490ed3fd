"""A wrong choice or key is answered with the nearest right one, wherever it is given."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import spatialsig as sp
from spatialsig._arguments import PUBLIC_ROOMS, fitting
from spatialsig._checks import check_choice, check_key, did_you_mean
from spatialsig.errors import FileMissingError, InputError, KeyMissingError

SOURCE = Path(sp.__file__).parent


def literals(hint: Any) -> tuple[Any, ...]:
    """Values of the ``Literal`` in an annotation."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((found for part in get_args(hint) if (found := literals(part))), ())


def choices() -> Iterator[tuple[Callable[..., Any], str, str]]:
    """Public functions, their arguments that are one of some words, and each of these words."""
    for room in PUBLIC_ROOMS:
        for name in getattr(sp, room).__all__:
            function = getattr(getattr(sp, room), name)
            if not inspect.isfunction(function):
                continue
            for argument, hint in get_type_hints(inspect.unwrap(function)).items():
                for word in literals(hint):
                    if isinstance(word, str) and len(word) > 3:
                        yield function, argument, word


def as_given(function: Callable[..., Any], argument: str, word: str) -> object:
    """A word, or a list of it where the argument takes several."""
    hint = get_type_hints(inspect.unwrap(function))[argument]
    return [word] if get_origin(hint) is Sequence else word


FOUND = list(choices())


def test_there_are_choices_to_try() -> None:
    assert {argument for _, argument, _ in FOUND} >= {"by", "interval", "on_error", "target"}


@pytest.mark.parametrize(("function", "argument", "word"), FOUND, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize(
    "misspell", [str.upper, lambda word: word[:-1], lambda word: f"{word}s", lambda word: f" {word}"]
)
def test_a_misspelt_choice_names_the_nearest(
    function: Callable[..., Any], argument: str, word: str, misspell: Callable[[str], str]
) -> None:
    with pytest.raises(InputError, match=rf"did you mean '{word}'\?$"):
        fitting(function, {argument: as_given(function, argument, misspell(word))}, of="f")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("Mean", "mean"),
        ("trimmed mean", "trimmed_mean"),
        ("medain", "median"),
        ("tumor_cells", "Tumour_cells"),
        ("gpu", "cuda"),
    ],
)
def test_the_nearest_of_several(wrong: str, right: str) -> None:
    there = ["mean", "median", "trimmed_mean", "Tumour_cells", "T_cells", "cuda", "cpu"]
    with pytest.raises(InputError, match=rf"Did you mean '{right}'\?$"):
        check_choice(wrong, there, name="stat")
    with pytest.raises(KeyMissingError, match=rf"Did you mean '{right}'\? Make it\.$"):
        check_key(there, wrong, name="stat", where="here", fix="Make it.")


def test_nothing_is_suggested_that_is_not_near_or_was_not_misspelt() -> None:
    assert did_you_mean("zzz", ["mean", "median"]) == ""
    assert did_you_mean(3, ["mean", None]) == ""
    assert did_you_mean("signatures_pred", ["signatures", "table"]) == ""  # a step that was not done yet


@pytest.mark.parametrize(
    ("call", "right"),
    [
        (lambda: sp.tl.train_vit(sp.datasets.toy(), fusion="gatd"), "gated"),
        (lambda: sp.tl.aggregate_patches(sp.datasets.toy(), stat="Pseudo-bulk"), "pseudobulk"),
        (lambda: sp.io.read_signatures("tumor_microenvironment"), "tumour_microenvironment"),
        (lambda: setattr(sp.settings, "device", "gpu"), "cuda"),
        (lambda: sp.pp.split(sp.datasets.toy(), by="patients"), "patient"),
        (lambda: sp.pl.compare(sp.datasets.toy_study(predicted=True), "immune_t"), "Immune_T"),
        (lambda: sp.nn.backbones.build_backbone("tim:resnet18"), "timm"),
    ],
    ids=["fusion", "stat", "set", "device", "by", "signature", "backbone"],
)
def test_where_users_meet_it(call: Callable[[], object], right: str) -> None:
    with pytest.raises((InputError, KeyMissingError, FileMissingError), match=rf"[dD]id you mean '{right}'"):
        call()


def test_every_list_of_what_there_is_comes_with_the_nearest() -> None:
    """By ``check_key``, ``check_choice``, or ``did_you_mean`` in the same message."""
    lists = re.compile(
        r"available: ?\{|available: ?\"|choose one of \{list|built-in sets are \{|wanted 'vit', or one of"
    )
    bare = []
    for file in sorted(SOURCE.rglob("*.py")):
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            around = " ".join(lines[number : number + 2])
            if lists.search(line) and "did_you_mean" not in around and "_devices()" not in line:
                bare.append(f"{file.name}:{number + 1}")
    assert bare == []
