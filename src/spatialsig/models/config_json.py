"""Frozen config dataclasses from the JSON of a model directory."""

from __future__ import annotations

from dataclasses import MISSING, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from spatialsig.errors import InputError
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import ViTConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

C = TypeVar("C")


def config_from_json(cls: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Build ``cls`` from ``values``; a field with a default may be absent, as it is in models saved before it existed."""
    if not isinstance(values, dict):
        msg = f"{where}: wanted a mapping, got {type(values).__name__}."
        raise InputError(msg)
    needed = {field.name: field.default is MISSING for field in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(values.keys() - needed.keys())
    missing = sorted(name for name, is_needed in needed.items() if is_needed and name not in values)
    if unknown or missing:
        msg = f"{where}: unknown settings {unknown}, missing {missing}."
        raise InputError(msg)
    try:
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        msg = f"{where}: {error}."
        raise InputError(msg) from error


def signature_config(values: Any, *, where: str) -> SignatureConfig:
    """Build the config of a signature network, with that of its image network inside."""
    vit = config_from_json(ViTConfig, values.get("vit", {}), where=where) if isinstance(values, dict) else ViTConfig()
    config = config_from_json(SignatureConfig, {**values, "vit": None}, where=where)
    return replace(config, vit=vit)


def number_field(values: Mapping[str, Any], name: str, *, where: Path) -> float:
    """Number that stands under a name."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{where}: `{name}={value!r}` must be a number."
        raise InputError(msg)
    return float(value)
