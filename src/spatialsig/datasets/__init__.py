"""Data with a known truth: whole synthetic Xenium bundles on disk, and a toy slide in memory."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spatialsig.datasets._toy import toy
    from spatialsig.datasets._xenium import synthetic_xenium

__all__ = ["synthetic_xenium", "toy"]

_HOMES = {"synthetic_xenium": "_xenium", "toy": "_toy"}


def __getattr__(name: str) -> Any:
    # the generator pulls numba, tifffile and zarr: only for who asks
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
