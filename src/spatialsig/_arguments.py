"""Types and ranges of arguments: written once, as annotations, and checked before a function does anything.

>>> @checked
... def density(n_cells: Natural, *, area_mm2: Positive) -> float:
...     return n_cells / area_mm2
>>> density(12, area_mm2=0)
Traceback (most recent call last):
spatialsig.errors.InputError: `area_mm2=0` of `density` must be greater than 0.

Ground floor. Used by 96 modules of 20 rooms.
"""

from __future__ import annotations

import functools
import inspect
import os
import reprlib
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
from pydantic import AfterValidator, ConfigDict, Field, InstanceOf, Strict, TypeAdapter, ValidationError

from spatialsig._checks import NAME_RULE, check_options, misplaced, names_element
from spatialsig._misfits import brackets, in_words, misfit, place_in, saved_there, short
from spatialsig._paths import as_address, local_path
from spatialsig.errors import InputError, OptionError


def _element_name(key: str) -> str:
    if not names_element(key):
        raise ValueError(NAME_RULE)
    return key


class Anywhere:
    """Marks an argument that takes the address of another machine as well as a path of this one."""


# strict, for records too: a truth value is no number
Positive: TypeAlias = Annotated[float, Strict(), Field(gt=0, le=10**18)]
NotNegative: TypeAlias = Annotated[float, Strict(), Field(ge=0, le=10**18)]
Fraction: TypeAlias = Annotated[float, Strict(), Field(ge=0, le=1)]
Share: TypeAlias = Annotated[float, Strict(), Field(gt=0, lt=1)]  # neither none nor all
Micrometres: TypeAlias = Annotated[float, Strict(), Field(gt=0, le=50_000)]  # up to the length of a slide
UmPerPx: TypeAlias = Annotated[float, Strict(), Field(gt=0, le=1000)]
Natural: TypeAlias = Annotated[int, Strict(), Field(ge=0, le=10**9)]
Count: TypeAlias = Annotated[
    int, Strict(), Field(ge=1, le=10**6)
]  # of items or steps: so that a typo does not run for ever
Several: TypeAlias = Annotated[int, Strict(), Field(ge=2, le=10**6)]
Seed: TypeAlias = Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)]
Key: TypeAlias = Annotated[str, Field(min_length=1)]
AnyPath: TypeAlias = Key | Path
AnyPlace: TypeAlias = Annotated[Key | Path, Anywhere]  # a path or an address, to read from
NewKey: TypeAlias = Annotated[str, AfterValidator(_element_name)]

PUBLIC_ROOMS = ("datasets", "io", "models", "pl", "pp", "tl")
CALLED_IN = {
    "atlas": "pl",
    "maps": "tl",
    "referee": "tl",
    "whole_slides": "tl",
}  # rooms above, whose functions are called in one below
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)
_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")


def checked(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """``function``, which refuses arguments that do not fit their annotations, by name, before it does anything.

    Numbers and arrays of NumPy and pandas are converted to Python types where the annotation asks for these.

    Raises
    ------
    InputError
        Naming argument, value, function, and what is wanted.
    OptionError
        For an unknown argument; suggests the nearest name.
    """
    return _guarded(function, _public_name(function))


def checked_class(cls: type[_T]) -> type[_T]:
    """``cls``, whose constructor refuses what :func:`checked` refuses; for a dataclass the types of its fields."""
    cls.__init__ = _guarded(cls.__init__, cls.__name__)  # type: ignore[method-assign]
    return cls


def _guarded(function: Callable[_P, _R], name: str) -> Callable[_P, _R]:
    signature = inspect.signature(function)
    options = [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    names = [name for name in signature.parameters if name not in ("self", "cls")]

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not options:
            check_options(kwargs, names, function=name)
        try:
            bound = signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            raise OptionError(misplaced(signature, len(args), kwargs, of=name)) from error
        bound.arguments |= fitting(function, bound.arguments, of=name)
        return function(*bound.args, **bound.kwargs)

    return call


def check_fit(
    options: Mapping[str, Any], fit: Callable[..., Any], allowed: Collection[str], *, function: str
) -> dict[str, Any]:
    """Options that ``function`` hands on to ``fit``, which have to be ``allowed`` and to fit its annotations."""
    check_options(options, allowed, function=function)
    return dict(options) | fitting(fit, options, of=f"sp.tl.{function}")


def fitting(owner: Any, given: Mapping[str, Any], *, of: str) -> dict[str, Any]:
    """Those of the values ``given`` to a function ``owner`` that have a type, as it wants them."""
    owner = inspect.unwrap(owner)
    adapters, configurations, paths = _adapters(owner), _configurations(owner), _paths(owner)
    fit: dict[str, Any] = {}
    for name, value in given.items():
        if name in configurations and isinstance(value, Mapping):
            fit[name] = _configured(configurations[name], value, name)
        elif name in adapters:
            fit[name] = _fitting(adapters[name], value, name=name, of=of)
            if name in paths and not (name in taking_addresses(owner) and _is_address(fit[name])):
                fit[name] = _on_this_machine(paths[name], fit[name], name=name, of=of)
    return fit


@functools.cache
def _paths(owner: Any) -> dict[str, Any]:
    """Arguments that take paths, alone or as the values of a mapping, and their annotations."""
    return {name: hint for name, hint in get_type_hints(owner).items() if _takes_path(hint) or _takes_paths(hint)}


@functools.cache
def taking_addresses(owner: Any) -> frozenset[str]:
    """Arguments that take the address of another machine as well."""
    hints = get_type_hints(owner, include_extras=True)
    return frozenset(name for name, hint in hints.items() if Anywhere in getattr(hint, "__metadata__", ()))


def _is_address(value: Any) -> bool:
    return isinstance(value, str | Path) and as_address(value) is not None


def _takes_path(hint: Any) -> bool:
    return hint is Path or Path in get_args(hint)


def _takes_paths(hint: Any) -> bool:
    return any(get_origin(kind) is Mapping and _takes_path(get_args(kind)[-1]) for kind in (hint, *get_args(hint)))


def _on_this_machine(hint: Any, value: Any, *, name: str, of: str) -> Any:
    """``value``, each path in it a path of this machine."""
    if isinstance(value, Mapping) and _takes_paths(hint):
        return {key: _on_this_machine(Path, path, name=f"{name}[{key!r}]", of=of) for key, path in value.items()}
    if not (isinstance(value, str | Path) and _takes_path(hint)):
        return value
    try:
        return local_path(value)
    except ValueError as error:
        msg = f"`{name}={str(value)[:80]!r}` of `{of}` must be {error}."
        raise InputError(msg) from None


def _configured(kind: Callable[..., Any], fields: Mapping[str, Any], name: str) -> Any:
    """A configuration given by its fields, as in YAML."""
    try:
        return kind(**fields)
    except InputError as error:
        msg = f"`{name}`: {error}"
        raise type(error)(msg) from None


@functools.cache
def _configurations(owner: Any) -> dict[str, Any]:
    """Arguments that accept a dataclass, and that class."""
    hints = get_type_hints(owner)
    classes = {name: [kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)] for name, hint in hints.items()}
    return {name: kinds[0] for name, kinds in classes.items() if kinds}


@functools.cache
def _adapters(owner: Any) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(owner, include_extras=True)
    parameters = inspect.signature(owner).parameters.values()
    others = {"return", *(p.name for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL))}
    return {name: _adapter(hint) for name, hint in hints.items() if name not in others}


def _adapter(hint: Any) -> TypeAdapter[Any]:
    if is_dataclass(hint):  # pydantic would validate its fields
        return TypeAdapter(InstanceOf[hint])
    return TypeAdapter(hint, config=_STRICT)


def _fitting(adapter: TypeAdapter[Any], value: Any, *, name: str, of: str) -> Any:
    if isinstance(value, str | os.PathLike) and "\0" in str(value):
        msg = f"`{name}={short(value)}` of `{of}` holds a zero byte, which no name or path can."
        raise InputError(msg)
    try:
        return _as_wanted(adapter, value)
    except ValidationError as error:
        msg = misfit(name, value, error, of=of)
        raise InputError(msg + "." * (not msg.endswith("?")) + saved_there(value, error)) from None


def _as_wanted(adapter: TypeAdapter[Any], value: Any) -> Any:
    """``value``, or Python's own form of it where that alone fits."""
    refused: ValidationError | None = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of pandas, where a column of one row is asked for a number
            taken = adapter.validate_python(value)
        if not _was_cast(value, taken):
            return value
    except ValidationError as error:
        refused = error
    plain = _plain(value)
    try:
        adapter.validate_python(plain)
    except ValidationError as error:
        raise refused or error from None
    return plain


def _was_cast(value: Any, taken: Any) -> bool:
    """Whether pydantic made a number of what has ``__float__``, as a list or a truth value of NumPy and pandas does too."""
    if isinstance(value, Mapping) and isinstance(taken, Mapping):
        return any(_was_cast(value[name], each) for name, each in taken.items() if name in value)
    if isinstance(value, list | tuple) and isinstance(taken, list | tuple):
        return any(map(_was_cast, value, taken))
    return isinstance(taken, float) and not isinstance(value, float | int)


def check_record(kind: Any, value: Any, *, where: str) -> None:
    """Refuse a nested record that does not match ``kind``.

    Raises
    ------
    InputError
        Naming the first place in it that does not fit, what stands there, and what is wanted.
    """
    try:
        _as_wanted(_record_adapter(kind), value)
    except ValidationError as error:
        first = error.errors()[0]
        steps, held = place_in(value, first["loc"])
        place = f"{where}{brackets(steps)}"
        wanted = f"a record with {first['loc'][-1]!r}" if first["type"] == "missing" else in_words(first["msg"])
        msg = (
            f"{place} is {reprlib.repr(held)}, but must be {wanted}. It was changed since it was written: restore it, "
            "or delete it and make again what it was about."
        )
        raise InputError(msg) from None


@functools.cache
def _record_adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _plain(value: Any) -> Any:
    """Python's own form of numbers and lists."""
    if isinstance(value, os.PathLike):
        return Path(value)
    if isinstance(value, np.generic | np.ndarray | pd.Index | pd.Series):
        plain = value.tolist()  # a 0-d array becomes a scalar
        return _plain(plain) if isinstance(plain, list) else plain
    if isinstance(value, Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, set | frozenset):
        return tuple(sorted(value, key=str))
    return tuple(_plain(entry) for entry in value) if isinstance(value, list | tuple | range) else value


def _public_name(function: Callable[..., Any]) -> str:
    """``sp.tl.predict`` for what users call, the name alone for others."""
    package, _, rest = function.__module__.partition(".")
    room = rest.partition(".")[0]
    room = CALLED_IN.get(room, room)
    name = function.__qualname__.removesuffix(".__init__")
    public = package == "spatialsig" and room in PUBLIC_ROOMS and "." not in function.__qualname__
    return f"sp.{room}.{name}" if public else name
