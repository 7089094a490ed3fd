"""Learn molecular signatures from H&E, in scverse style.

>>> import spatialsig as sp
>>> sorted(name for name in sp.__all__ if not name.startswith("_"))
['Cohort', 'datasets', 'io', 'models', 'pl', 'pp', 'settings', 'tl']
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from spatialsig._settings import settings

if TYPE_CHECKING:
    from spatialsig import datasets, io, models, pl, pp, tl
    from spatialsig.cohort import Cohort

__version__ = version("spatialsig")
__all__ = ["Cohort", "__version__", "datasets", "io", "models", "pl", "pp", "settings", "tl"]

_ROOMS = frozenset({"datasets", "io", "models", "pl", "pp", "tl"})


def __getattr__(name: str) -> Any:
    # rooms load on first use, so that a bare import stays light
    if name in _ROOMS:
        return importlib.import_module(f"spatialsig.{name}")
    if name == "Cohort":
        return importlib.import_module("spatialsig.cohort").Cohort
    msg = f"module 'spatialsig' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
