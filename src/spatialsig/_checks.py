"""Argument checks whose errors name the value, what is allowed and what is there.

Ground floor. Used by 154 modules of 31 rooms.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig import _keys
from spatialsig.errors import FileMissingError, InputError, KeyMissingError, OptionError, SpatialsigWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

MAX_NAME = 100
_WITH_COMMA = re.compile(r"[-+]?\d*,\d+([eE][-+]?\d+)?")
NAME_RULE = f"1-{MAX_NAME} letters A-Z or a-z, digits, '_', '-' or '.', not starting with '.' or '__'"
_NAME = re.compile(r"(?!\.|__)[A-Za-z0-9_.-]+")
# names of elements that are looked for unless another is given
_DEFAULT_NAMES = {
    _keys.TABLE, _keys.PATCHES, _keys.SIGNATURES, _keys.SIGNATURES_PRED, _keys.X_AE, _keys.IMAGE, _keys.TISSUE, _keys.SPATIAL,
}  # fmt: skip
_MEANT = {"gpu": "cuda"}  # what people write -> what is called otherwise here
_PACKAGE = f"{Path(__file__).parent}{os.sep}"


def warn(message: str) -> None:
    """Warn of something that the user should look at, at the line of the user's that led to it."""
    frame, depth = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, SpatialsigWarning, stacklevel=depth)


def names_element(name: str) -> bool:
    """Whether ``name`` can name an element and its directory in a store, by :data:`NAME_RULE`."""
    return len(name) <= MAX_NAME and _NAME.fullmatch(name) is not None


def plain_name(name: str) -> str:
    """A name without case, blanks and signs, by which two spellings of one are told."""
    return "".join(filter(str.isalnum, name.casefold()))


def nearest(value: object, choices: Iterable[object]) -> str | None:
    """The choice that a wrong value was meant to be: the same but for case, blanks and signs, or else nearly the same.

    None where nothing is near, and for names that functions have by default: these are spelt right, but not there.
    """
    if not isinstance(value, str) or value in _DEFAULT_NAMES:
        return None
    plain = {plain_name(choice): choice for choice in choices if isinstance(choice, str) and choice != value}
    key = _MEANT.get(plain_name(value), plain_name(value))
    near = [key] if key in plain else difflib.get_close_matches(key, plain, n=1)
    return plain[near[0]] if near else None


def did_you_mean(value: object, choices: Iterable[object]) -> str:
    """Question for the nearest choice, with a blank before it; empty where none is near.

    >>> did_you_mean("tumor", ["B_cells", "Tumour"])
    " Did you mean 'Tumour'?"
    """
    near = nearest(value, choices)
    return "" if near is None else f" Did you mean {near!r}?"


def check_key(available: Collection[str], key: str, *, name: str, where: str, fix: str = "") -> None:
    """Raise :class:`KeyMissingError` unless ``key`` is one of ``available`` (called ``where`` in the message)."""
    if not isinstance(key, Hashable) or key not in available:  # of a record that was damaged
        same = [
            one
            for one in map(str, available)
            if unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", str(key))
        ]
        form = f" It stands there as {same[0]!a}, other characters that look the same: rename it there." if same else ""
        msg = f"`{name}={key!r}` is not in {where}; available: {sorted(available)}.{form or did_you_mean(key, available)}{' ' + fix if fix else ''}"
        raise KeyMissingError(msg)


def comma_hint(value: object) -> str:
    """What to write for a number with a decimal comma, which is text here; empty for anything else.

    >>> comma_hint("0,5")
    ': write 0.5, with a decimal point'
    """
    point = value.strip().replace(",", ".") if isinstance(value, str) else ""
    return f": write {point}, with a decimal point" if _WITH_COMMA.fullmatch(str(value).strip()) and point else ""


def check_choice(value: object, choices: Collection[object], *, name: str) -> None:
    """Raise :class:`InputError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        msg = f"`{name}={value!r}` is not known; choose one of {list(choices)}.{did_you_mean(value, choices)}"
        raise InputError(msg)


def check_positive(**values: float) -> None:
    """Raise :class:`InputError` unless every keyword is finite and above 0."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            msg = f"`{name}` must be a finite number above 0; got {value!r}."
            raise InputError(msg)


def check_integers(lowest: int, highest: int, **values: object) -> None:
    """Raise :class:`InputError` unless every keyword is an ``int`` (no bool, no float) from ``lowest`` to ``highest``."""
    for name, value in values.items():
        if not (type(value) is int and lowest <= value <= highest):
            msg = f"`{name}={value!r}` must be an integer in {lowest}..{highest}."
            raise InputError(msg)


def number_in(text: str) -> float:
    """Number that a text holds; :class:`ValueError` also for ``1_0``, which Python alone takes for 10."""
    if "_" in text:
        msg = f"could not convert string to float: {text!r}"
        raise ValueError(msg)
    return float(text)


def check_fraction(**values: float) -> None:
    """Raise :class:`InputError` unless every keyword lies in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            msg = f"`{name}` must lie between 0 and 1; got {value!r}."
            raise InputError(msg)


def check_files(paths: Iterable[Path], *, what: str, fix: str, folders: bool = True) -> None:
    """Raise :class:`FileMissingError` naming all ``paths`` that are not there, and the targets of links that lead nowhere.

    Raises :class:`InputError` for what cannot be read as a file, or where ``folders`` will not do, for a folder.
    """
    paths = list(paths)
    missing = [path for path in paths if not path.exists()]
    if missing:
        links = [
            f"{path.name!r} is a link to {os.readlink(path)!r}, which is not there"
            for path in missing
            if path.is_symlink()
        ]
        also = f" {'; '.join(links)}: mount its disk or mend the link." if links else ""
        msg = f"{what}: missing {[str(path) for path in missing]}.{also} {fix}"
        raise FileMissingError(msg)
    for path in paths:
        if not (path.is_file() or path.is_dir()):  # reading would wait without end
            msg = f"{what}: {str(path)!r} is a pipe, a socket or a device; wanted a file. {fix}"
            raise InputError(msg)
        if path.is_dir() and not folders:
            msg = f"{what}: {str(path)!r} is a folder; wanted a file. {fix}"
            raise InputError(msg)


def check_options(options: Iterable[str], allowed: Collection[str], *, function: str) -> None:
    """Raise :class:`OptionError` with the nearest right name unless ``function`` knows all ``options``."""
    for name in options:
        if name not in allowed:
            near = nearest(name, allowed)
            hint = f"did you mean `{near}`?" if near else f"it takes {sorted(allowed)}."
            msg = f"`{function}` has no option `{name}`; {hint}"
            raise OptionError(msg)


def misplaced(signature: inspect.Signature, n_given: int, named: Collection[str], *, of: str) -> str:
    """What is wrong with a call that Python refuses: too many values by position, or one that is given twice."""
    ordered = [p.name for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    twice = [name for name in ordered[:n_given] if name in named]
    if n_given <= len(ordered) and twice:
        return f"`{twice[0]}` of `{of}` is given twice, by its place and by its name; leave one of them out."
    itself = ordered[0] in ("self", "cls") if ordered else False
    by_place, n_given = ordered[itself:], n_given - itself
    others = [f"{p.name}=..." for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    fix = f"Name the others: {', '.join(others)}." if others else "Leave the others out."
    return (
        f"`{of}` takes {len(by_place)} values by their place ({', '.join(by_place)}), but {n_given} were given. {fix}"
    )


def option_names(function: Callable[..., Any], *, without: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the keyword-only arguments of a function, without those that the caller decides."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in without)


def first_few(names: Sequence[str], *, n: int = 3) -> str:
    """First ``n`` names with commas, and how many more there are.

    >>> first_few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more
