"""Read slides from disk and write them into stores."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spatialsig.io._anndata import from_anndata
    from spatialsig.io._he import read_he
    from spatialsig.io._store import read, write
    from spatialsig.io._xenium import read_xenium
    from spatialsig.signatures import read_signatures

__all__ = ["from_anndata", "read", "read_he", "read_signatures", "read_xenium", "write"]

_HOME = {
    "from_anndata": "spatialsig.io._anndata",
    "read": "spatialsig.io._store",
    "read_he": "spatialsig.io._he",
    "read_signatures": "spatialsig.signatures",
    "read_xenium": "spatialsig.io._xenium",
    "write": "spatialsig.io._store",
}


def __getattr__(name: str) -> Any:
    # readers pull in spatialdata, zarr and tifffile: load each with its first use
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
