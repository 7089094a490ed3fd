"""Frozen config dataclasses from the JSON of a model directory."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from spatialsig._errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

C = TypeVar("C")


def config_from_json(cls: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Build ``cls`` from ``values``, which must name exactly its fields, each of the type of its default."""
    if not isinstance(values, dict):
        msg = f"{where}: wanted a mapping, got {type(values).__name__}."
        raise InputError(msg)
    known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    if values.keys() != known:
        msg = f"{where}: unknown settings {sorted(values.keys() - known)}, missing {sorted(known - values.keys())}."
        raise InputError(msg)
    try:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        msg = f"{where}: {error}."
        raise InputError(msg) from error
