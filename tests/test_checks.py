"""Checks of arguments: what passes, what does not, and what the error tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig._checks import (
    check_choice,
    check_files,
    check_fraction,
    check_integers,
    check_key,
    check_options,
    check_positive,
    option_names,
)
from spatialsig.errors import (
    FileMissingError,
    InputError,
    KeyMissingError,
    OptionError,
    SpatialsigError,
    SpatialsigWarning,
)

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("check", "passes", "fails"),
    [
        (check_positive, [1e-300, 3, 1e300], [0, -1, INF, NAN]),
        (check_fraction, [0, 0.5, 1, True], [-1e-9, 1.0001, INF, NAN]),
        (lambda x: check_integers(1, 5, x=x), [1, 5], [0, 6, 3.0, True, "3", None]),
        (lambda x: check_choice(x, ("a", None), name="x"), ["a", None], ["b", "", 0]),
    ],
    ids=["positive", "fraction", "integers", "choice"],
)
def test_values_at_and_beyond_the_limits(check: Callable[..., None], passes: list[object], fails: list[object]) -> None:
    for value in passes:
        check(x=value)
    for value in fails:
        with pytest.raises(InputError) as caught:
            check(x=value)
        assert "`x" in str(caught.value)
        assert repr(value) in str(caught.value)


def test_the_argument_that_is_wrong_is_the_one_named() -> None:
    with pytest.raises(InputError, match="^`second` must be a finite number above 0; got 0"):
        check_positive(first=1, second=0)


def test_a_missing_key_tells_what_is_there_in_order_and_the_fix() -> None:
    check_key({"b": 1, "a": 2}, "a", name="key", where="here")
    with pytest.raises(KeyMissingError, match=r"^`key='c'` is not in here; available: \['a', 'b'\]\.$"):
        check_key({"b": 1, "a": 2}, "c", name="key", where="here")
    with pytest.raises(KeyMissingError, match=r"available: \[\]\. Make it\.$"):
        check_key([], "c", name="key", where="here", fix="Make it.")


def test_all_missing_files_are_named_and_none_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    paths = [tmp_path / name for name in ("gone", "here", "lost")]
    with pytest.raises(FileMissingError) as caught:
        check_files(paths, what="model", fix="Save it again.")
    assert str(caught.value) == f"model: missing {[str(paths[0]), str(paths[2])]}. Save it again."
    check_files(paths[1:2], what="model", fix="")


def example(data: object, *args: int, learning_rate: float = 0.1, seed: int = 0, **more: int) -> None:
    """Stands for a function with options."""


def test_options_are_the_keyword_only_arguments_that_the_caller_does_not_decide() -> None:
    assert option_names(example) == ("learning_rate", "seed")
    assert option_names(example, without=("seed",)) == ("learning_rate",)


def test_an_unknown_option_is_told_with_the_nearest_or_all_of_them() -> None:
    names = option_names(example)
    check_options(names, names, function="fit")
    with pytest.raises(OptionError, match="^`fit` has no option `learnin_rate`; did you mean `learning_rate`"):
        check_options(["seed", "learnin_rate"], names, function="fit")
    with pytest.raises(OptionError, match=r"has no option `xyz`; it takes \['learning_rate', 'seed'\]"):
        check_options(["xyz"], names, function="fit")


def test_a_warning_points_at_the_line_of_the_user(toy: sd.SpatialData) -> None:
    """However deep in the package it was found."""
    with pytest.warns(SpatialsigWarning, match="too high") as split:
        sp.pp.split(toy, by="random", allow_leakage=True, n_folds=2)
    with pytest.warns(SpatialsigWarning, match="not scored") as score:
        sp.tl.score_cells(toy, {"T": ["CD3D", "CD3E", "CD2"], "other": ["none", "of", "these"]}, test_fold=None)
    assert {w.filename for w in (*split, *score) if w.category is SpatialsigWarning} == {__file__}


@pytest.mark.parametrize("reader", ["manifest", "matrix", "keypoints", "signatures"])
def test_what_only_python_takes_for_a_number_is_refused(reader: str, tmp_path: Path) -> None:
    from spatialsig.geometry.affine import read_alignment
    from spatialsig.geometry.landmarks import parse_keypoints
    from spatialsig.io._cohort import pixel_size
    from spatialsig.signatures._columns import number

    (tmp_path / "m.csv").write_text("1_0,0,0\n0,1,0\n0,0,1\n")
    if reader == "signatures":  # the field itself, which is then refused by name of its gene
        assert number("1_0") == "1_0"
        return
    read = {
        "manifest": lambda: pixel_size("1_0", "list.csv, line 2"),
        "matrix": lambda: read_alignment(tmp_path / "m.csv", pixel_size=0.2125),
        "keypoints": lambda: parse_keypoints("fixedX,fixedY,alignmentX,alignmentY\n1_0,2,3,4\n", name="points"),
    }
    with pytest.raises(SpatialsigError, match="1_0"):
        read[reader]()
