"""Every public function refuses arguments of a wrong type or range by name, before it does anything."""

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import pytest

import spatialsig as sp
from spatialsig._arguments import PUBLIC_ROOMS, AnyPath, Count, Fraction, NewKey, Seed, checked, checked_class, fitting
from spatialsig._known import MODELS, model_words
from spatialsig.errors import InputError, OptionError

FUNCTIONS = {
    f"{room}.{name}": getattr(getattr(sp, room), name)
    for room in PUBLIC_ROOMS
    for name in getattr(sp, room).__all__
    if inspect.isfunction(getattr(getattr(sp, room), name))
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_is_checked(name: str) -> None:
    function = FUNCTIONS[name]
    first = next(iter(inspect.signature(function).parameters))
    with pytest.raises(
        InputError, match=rf"^`{first}=<object>` of `(sp\.{name}|read_signatures|sp\.io\.read_xenium)` must be "
    ):
        function(**{first: object()})


CLASSES = [sp.Cohort, *(found for name in sp.models.__all__ if inspect.isclass(found := getattr(sp.models, name)))]
METHODS = {
    f"{cls.__name__}.{name}": (cls, name)
    for cls in CLASSES
    for name, found in vars(cls).items()
    if (name in ("__init__", "__getitem__") or not name.startswith("_"))
    and (inspect.isfunction(found) or isinstance(found, classmethod))
    and len(inspect.signature(getattr(cls, name)).parameters) > (not isinstance(found, classmethod))
}


@pytest.mark.parametrize("method", METHODS)
def test_every_public_method_is_checked(method: str) -> None:
    cls, name = METHODS[method]
    itself = [] if isinstance(vars(cls)[name], classmethod) else [cls.__new__(cls)]
    first = list(inspect.signature(getattr(cls, name)).parameters)[len(itself)]
    with pytest.raises(InputError, match=rf"^`{first}=<object>` of `{method.removesuffix('.__init__')}` must be "):
        getattr(cls, name)(*itself, **{first: object()})


KINDS = {kind: getattr(sp.models, kind) for kind in MODELS}


def within(hint: Any) -> set[Any]:
    """An annotation and all that it is made of."""
    return {hint}.union(*map(within, get_args(hint))) if not isinstance(hint, list) else set()


TAKE_MODELS = {
    f"{name}({argument})": (function, argument, accepted)
    for name, function in FUNCTIONS.items()
    for argument, hint in get_type_hints(function).items()
    if argument != "return" and (accepted := [kind for kind, cls in KINDS.items() if cls in within(hint)])
}


@pytest.mark.parametrize("case", TAKE_MODELS)
def test_a_model_of_another_kind_is_answered_with_the_kind_that_is_wanted(case: str, tmp_path: Path) -> None:
    """Every function that takes a model says which, what makes it and what reads it; of a folder also what lies there."""
    function, argument, accepted = TAKE_MODELS[case]
    for kind in KINDS.keys() - set(accepted):
        with pytest.raises(InputError, match=rf"^`{argument}=<{kind}>` of `sp\.") as caught:
            function(**{argument: KINDS[kind].__new__(KINDS[kind])})
        assert all(model_words(each) in str(caught.value) for each in accepted)
    if str not in within(get_type_hints(function)[argument]):
        (tmp_path / "config.json").write_text('{"kind": "Autoencoder"}')
        with pytest.raises(
            InputError, match=rf"`{argument}='{tmp_path}'`.* It is .*saved model \(Autoencoder\).* reads it"
        ):
            function(**{argument: tmp_path})


SHOWN: list[tuple[Any, str]] = [
    ((), "()"), ((1, "a"), "(1, 'a')"), ([], "[]"), ({}, "{}"), ({"a": 1}, "{'a': 1}"), (set(), "set()"), (b"ab", "b'ab'"),
    (True, "True"), (None, "None"), (Path("a/b"), "'a/b'"), (1 + 2j, "(1+2j)"), (object(), "<object>"), (np.float32(2), "np.float32(2.0)"),
    (np.zeros(3), "<ndarray>"), ([object()], "[<object>]"), ("x" * 200, f"'{'x' * 80}'"), (list(range(99)), "[0, 1, 2, 3, 4, 5, ...]"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "shown"), SHOWN)
def test_a_wrong_value_is_shown(given: Any, shown: str) -> None:
    """As it was written, if that is short; what has no short form by its type."""
    with pytest.raises(InputError, match=rf"^`n={re.escape(shown)}` of `example` must be ") as caught:
        example(n=given)
    assert len(str(caught.value)) < 300
    with pytest.raises(InputError, match=r"^`signatures_key=\(\)` of `sp\.tl\.train_vit` must be a valid string"):
        sp.tl.train_vit(signatures_key=())


@pytest.mark.parametrize("name", sp.settings.__dataclass_fields__)
def test_every_setting_is_checked(name: str) -> None:
    before = getattr(sp.settings, name)
    nothing = () if before is None else (None,)  # which is a value where it is the default
    for wrong in (object(), *nothing, "3", -1, float("nan"), [1]):
        with pytest.raises(InputError, match=rf"^`{name}=.*` of `sp.settings` must be "):
            setattr(sp.settings, name, wrong)
    setattr(sp.settings, name, before)
    assert getattr(sp.settings, name) == before


def test_a_setting_that_is_not_there_is_no_setting() -> None:
    with pytest.raises(OptionError, match="`sp.settings` has no option `thread`; did you mean `threads`"):
        sp.settings.thread = 2


@pytest.mark.parametrize(
    "name", [name for name in FUNCTIONS if "seed" in inspect.signature(FUNCTIONS[name]).parameters]
)
def test_every_seed_has_the_range_of_seeds(name: str) -> None:
    for wrong in (-1, 2**32):
        with pytest.raises(InputError, match=rf"^`seed={wrong}` of `sp.{name}` must be "):
            FUNCTIONS[name](seed=wrong)


@checked
def example(
    names: Sequence[str] | None = None,
    *,
    n: Count = 1,
    share: Fraction = 0.5,
    seed: Seed = 0,
    path: AnyPath = "here",
    sets: Mapping[str, Sequence[str]] | None = None,
    key_added: NewKey = "new",
    widths: tuple[int, ...] = (1,),
    call: Callable[..., Any] = len,
    **more: Any,
) -> tuple[Any, ...]:
    return names, n, share, seed, path, sets, key_added, widths, call, more


TAKEN: list[tuple[str, Any, Any]] = [
    ("names", ["a"], ["a"]), ("names", np.array(["a"]), ("a",)), ("names", pd.Index(["a", "b"]), ("a", "b")),
    ("names", pd.Series(["a"]), ("a",)), ("n", np.int64(3), 3), ("share", np.float32(0.5), 0.5), ("share", 1, 1),
    ("seed", np.uint8(7), 7), ("path", Path("a"), Path("a")), ("widths", [8, 4], (8, 4)), ("widths", range(2), (0, 1)),
    ("share", np.array(0.5), 0.5), ("n", np.array(3), 3), ("sets", {"a": np.array(["x"])}, {"a": ("x",)}), ("sets", {"a": {"y", "x"}}, {"a": ("x", "y")}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "wanted"), TAKEN)
def test_numbers_and_lists_of_other_libraries_are_taken(name: str, given: Any, wanted: Any) -> None:
    (order,) = [list(inspect.signature(example).parameters).index(name)]
    assert example(**{name: given})[order] == wanted


REFUSED: list[tuple[str, Any, str]] = [
    ("names", "abc", "a list, not one string"), ("names", [1], "a valid string"), ("n", 0, "greater than or equal to 1"),
    ("n", True, "a valid integer"), ("n", 2.0, "a valid integer"), ("n", "2", "a valid integer"), ("n", 10**30, "less than"),
    ("share", float("nan"), "a finite number"), ("share", 1.1, "less than or equal to 1"), ("seed", -1, "greater than"),
    ("path", "", "a string that is not empty"), ("path", 3, "a valid string or an instance of Path"), ("path", "a\0b", "zero byte"),
    ("sets", {"a": "CD3D"}, "a list, not one string"), ("sets", {1: ["a"]}, "a valid string"), ("key_added", "a/b", "1-100"),
    ("widths", ("a",), "a valid integer"), ("call", 3, "callable"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "wanted"), REFUSED)
def test_what_does_not_fit_is_refused_by_name(name: str, given: Any, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted) as caught:
        example(**{name: given})
    assert str(caught.value).startswith((f"`{name}=", f"`{name}[", f"the name 1 in `{name}` of"))


OWNERS = FUNCTIONS | {cls.__name__: cls for cls in (sp.ViTConfig, sp.TrainerConfig, sp.AugmentConfig)} | {
    name: getattr(cls, method) for name, (cls, method) in METHODS.items()
} | {"settings": type(sp.settings)}  # fmt: skip
NUMBERS = {
    f"{name}({argument})": (owner, argument, within(hint))
    for name, owner in OWNERS.items()
    for argument, hint in get_type_hints(owner).items()
    if argument != "return" and {int, float} & within(hint)
}
ONE_NUMBER = [
    np.array([1]), np.array([0.5]), np.array([[1.0]]), pd.Series([1]), pd.Series([0.5]), pd.Index([1]), pd.Series([True]), np.array(True),
]  # fmt: skip


@pytest.mark.parametrize("case", NUMBERS)
def test_no_number_is_made_of_what_holds_one_or_of_a_truth_value(case: str) -> None:
    """Of every argument that takes a number: lists of one entry and truth values are none, scalars of NumPy are."""
    owner, argument, kinds = NUMBERS[case]
    lists = {tuple, Sequence, list, np.ndarray} & {get_origin(kind) or kind for kind in kinds}
    wrongs = [] if bool in kinds else [np.True_, np.False_, [np.True_], {"a": np.True_}]
    for wrong in wrongs + ([] if lists else ONE_NUMBER):
        with pytest.raises(InputError, match=rf"^`{argument}(\[.*\])?=.*` of `x` must be "):
            fitting(owner, {argument: wrong}, of="x")
    default = inspect.signature(owner).parameters[argument].default
    if type(default) in (int, float):
        for scalar in (np.float32, np.float64) if type(default) is float else (np.int32, np.int64):
            assert fitting(owner, {argument: scalar(default)}, of="x") == {argument: pytest.approx(default)}


@pytest.mark.parametrize("case", NUMBERS)
def test_no_number_below_zero_is_taken_where_it_means_nothing(case: str) -> None:
    owner, argument, _ = NUMBERS[case]
    if case in (
        "datasets.synthetic_xenium(rotation_deg)",
        "datasets.synthetic_xenium(stains)",
        "io.optimize(chunk_px)",
    ):
        return  # an angle, and what is one of a list
    for below in (-5, -0.5):
        with pytest.raises(InputError, match=rf"^`{argument}={below}` of `x` must be "):
            fitting(owner, {argument: below}, of="x")


def test_arguments_that_take_numbers_are_found() -> None:
    assert len(NUMBERS) > 150
    assert {
        "pp.make_patches(um_per_px)",
        "tl.predict(n_views)",
        "TrainerConfig(devices)",
        "settings(threads)",
    } <= NUMBERS.keys()


def test_the_place_inside_an_argument_is_named() -> None:
    with pytest.raises(InputError, match=r"`sets\['b'\]\[1\]=2` of `example` must be a valid string"):
        example(sets={"a": ["x"], "b": ["y", 2]})
    with pytest.raises(InputError, match="the name 1 in `sets` of `example` must be a valid string"):
        example(sets={1: ["a"]})


def test_names_of_arguments() -> None:
    with pytest.raises(OptionError, match="`sp.tl.predict` has no option `n_view`; did you mean `n_views`"):
        sp.tl.predict("here", n_view=2)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'model'"):
        sp.tl.predict("here")
    assert example(other=1)[-1] == {"other": 1}


@pytest.mark.parametrize("name", [*FUNCTIONS, *METHODS])
def test_values_without_a_name_that_no_function_takes_are_counted(name: str) -> None:
    call = (
        FUNCTIONS[name] if name in FUNCTIONS else getattr(METHODS[name][0].__new__(METHODS[name][0]), METHODS[name][1])
    )
    kinds = [p.kind for p in inspect.signature(call).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return
    n = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    own = name.removesuffix(".__init__").split(".")[-1].replace("read_atera", "read_xenium")
    with pytest.raises(
        OptionError, match=rf"^`[\w.]*{own}` takes {n} values by their place \(.*\), but {n + 1} were given"
    ):
        call(*[object()] * (n + 1))


def test_a_value_that_is_given_twice_is_named() -> None:
    with pytest.raises(OptionError, match="`path` of `sp.io.read` is given twice, by its place and by its name"):
        sp.io.read("here", path="there")
    with pytest.raises(OptionError, match=r"`sp\.tl\.attention` takes 2 values .*data, model.* but 3 .* method=\.\.\."):
        sp.tl.attention("here", None, "x")


def test_settings_are_checked_when_they_are_made() -> None:
    with pytest.raises(InputError, match="`dim='a'` of `ViTConfig` must be a valid integer"):
        sp.ViTConfig(dim="a")

    @checked_class
    class Example:
        def __init__(self, n: Count) -> None:
            self.n = n

    assert Example(np.int64(2)).n == 2
    assert fitting(example, {"n": np.int64(4), "unknown": 1}, of="x") == {"n": 4}


@pytest.mark.timeout(900)
def test_drawn_calls_end_well(tmp_path: Path) -> None:
    """500 calls with one wrong argument: an error of ours that names it, or a result; objects stay as they were."""
    script = Path(__file__).parents[1] / "benchmarks" / "fuzz_arguments.py"
    ended = subprocess.run(
        [sys.executable, str(script), "--n", "500", "--seed", "7", "--json", str(tmp_path / "a.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads((tmp_path / "a.json").read_text())
    assert not report["bad"], ended.stderr[-3000:]
