"""Plots: signature maps over the H&E, agreement, training curves, methods against the ceiling."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._compare import compare
    from ._history import history
    from ._ladder import ladder
    from ._scatter import scatter

__all__ = ["compare", "history", "ladder", "scatter"]

_HOME = {"compare": "_compare", "history": "_history", "ladder": "_ladder", "scatter": "_scatter"}


def __getattr__(name: str) -> Any:
    # matplotlib is loaded by the first plot, not by the first import
    if name in _HOME:
        return getattr(importlib.import_module(f"spatialsig.pl.{_HOME[name]}"), name)
    msg = f"module 'spatialsig.pl' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
