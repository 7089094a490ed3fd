"""Read a store while another process may be committing to it.

Every commit replaces the root's metadata twice, before it swaps the first element and after the last. If they are the
same file before and after reading, nothing was swapped in between.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from spatialdata import SpatialData, read_zarr

from spatialsig.errors import StoreError
from spatialsig.store.metadata import elements_on_disk, root_document
from spatialsig.store.root_metadata import FILE, KINDS
from spatialsig.store.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path

ATTEMPTS = 20
PAUSE_S = 0.05
_BESIDE_TABLES = tuple(kind for kind in KINDS if kind != "tables")
_FAILURES = (OSError, ValueError, KeyError, AssertionError, RuntimeError, TypeError, AttributeError)


def read_store(path: Path, *, share_tables: bool = False) -> SpatialData:
    """Read a store as it was at one moment: a table is never the half of an old and the half of a new one.

    Parameters
    ----------
    path
        The store.
    share_tables
        Take tables that are still in memory (``store.tables``); their arrays must not be written into.

    Raises
    ------
    FileMissingError
        If there is nothing at ``path``.
    StoreError
        If it is no SpatialData store, a damaged one, or one that is replaced again and again while it is read.
    """
    for _ in range(ATTEMPTS):
        root_document(path)
        before = _identity(path)
        try:
            sdata = _with_shared_tables(path) if share_tables else read_zarr(path)
        except _FAILURES as error:
            if _identity(path) == before:
                raise StoreError(_damaged(path, error)) from error
        else:
            if _identity(path) == before:
                return sdata
        time.sleep(PAUSE_S)
    msg = f"store {str(path)!r} was changed {ATTEMPTS} times while it was read; read it when its writer has finished."
    raise StoreError(msg)


def _with_shared_tables(path: Path) -> SpatialData:
    sdata = read_zarr(path, selection=_BESIDE_TABLES)
    for kind, name, finished in elements_on_disk(path):
        if kind == "tables":
            if not finished:
                raise ValueError(name)  # as `read_zarr` does; the caller names every unfinished element
            sdata.tables[name] = read_table(path / kind / name)
    return sdata


def _identity(path: Path) -> tuple[int, int, int, int]:
    found = (path / FILE).stat()  # a commit that takes itself back puts the same file there again: only ctime tells
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _damaged(path: Path, error: BaseException) -> str:
    unfinished = [f"{kind}/{name}" for kind, name, finished in elements_on_disk(path) if not finished]
    what = f"elements {unfinished} were never finished" if unfinished else f"{type(error).__name__}: {error}"
    return (
        f"store {str(path)!r} cannot be read: {what}. `sp.io.verify` names what is damaged and `sp.io.repair` moves "
        f"unfinished elements out. Restore it from a copy, or import the slide again, where that does not help."
    )
