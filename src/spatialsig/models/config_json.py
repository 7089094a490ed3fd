"""Frozen config dataclasses from the JSON of a model directory."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeVar

from spatialsig._errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

C = TypeVar("C")


def config_from_json(cls: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Build ``cls`` from ``values``; a field with a default may be absent, as it is in models saved before it existed."""
    if not isinstance(values, dict):
        msg = f"{where}: wanted a mapping, got {type(values).__name__}."
        raise InputError(msg)
    known = {field.name: field.default is MISSING for field in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(values.keys() - known.keys())
    missing = sorted(name for name, needed in known.items() if needed and name not in values)
    if unknown or missing:
        msg = f"{where}: unknown settings {unknown}, missing {missing}."
        raise InputError(msg)
    try:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        msg = f"{where}: {error}."
        raise InputError(msg) from error
