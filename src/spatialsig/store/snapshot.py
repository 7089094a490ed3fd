"""Read a store while another process may be committing to it, and keep its tables in memory while their files stay.

Every commit replaces the metadata of the root twice, before it swaps the first element and after the last. If they are
the same file before and after reading, nothing was swapped in between.

Opening a table costs some hundred small reads whatever its size, so that on small slides it is a third of all work.

Floor 1, above the ground floor. Used by io/_store, slide/slides, whole_slides/one_slide.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem
from scipy import sparse
from spatialdata import SpatialData, read_zarr
from spatialdata.models import TableModel

from spatialsig._settings import settings
from spatialsig.errors import StoreError
from spatialsig.store.lazy_tables import LazyTables
from spatialsig.store.matrices import is_large, left_in_store
from spatialsig.store.metadata import elements_on_disk, quiet_names, root_document, why_unfinished
from spatialsig.store.stored.damage import arrays_in, damaged_file
from spatialsig.store.stored.documents import FILE, KINDS, check_not_lost, copied_metadata
from spatialsig.store.stored.table import StoredTable, has_many_rows
from spatialsig.store.tables import parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

T = TypeVar("T")
ATTEMPTS = 20
PAUSE_S = 0.05
_BESIDE_TABLES = tuple(kind for kind in KINDS if kind != "tables")
_FAILURES = (OSError, ValueError, KeyError, AssertionError, RuntimeError, TypeError, AttributeError)
Identity: TypeAlias = frozenset[tuple[str, int, int, int, int]]
_LINKS = ("region", "region_key", "instance_key")  # written only where a table annotates something
_HASH_BYTES = 8  # what is kept of the names of rows, see `slide/fingerprints.py`
_kept: OrderedDict[Path, tuple[Identity, ad.AnnData]] = OrderedDict()
_lock = threading.Lock()


def read_store(path: Path, *, share_tables: bool = False) -> SpatialData:
    """Read a store as it was at one moment: a table is never the half of an old and the half of a new one.

    With ``share_tables`` tables are read at their first use, and those that are still in memory are taken from there; their
    arrays must not be written into.
    Raises :class:`FileMissingError` if there is nothing at ``path``, and :class:`StoreError` if it is no SpatialData
    store, a damaged one, or one that is replaced again and again while it is read.
    """
    place = path.absolute()  # what is read later is to come from here, also where the folder of work has changed
    read = _with_shared_tables if share_tables else read_zarr
    return _at_one_moment(path, partial(read, place), whole=True)


def _at_one_moment(path: Path, read: Callable[[], T], *, whole: bool = False) -> T:
    """What ``read`` finds in a store into which nothing is swapped meanwhile; ``whole``: no metadata of the store may be lost."""
    for _ in range(ATTEMPTS):
        listed = copied_metadata(root_document(path))
        before = _identity_of_root(path)
        try:
            with quiet_names():
                found = read()
        except _FAILURES as error:
            if _identity_of_root(path) == before:
                check_not_lost(path, listed)
                raise StoreError(_damaged(path, error)) from error
        else:
            if _identity_of_root(path) == before:
                if whole:
                    check_not_lost(path, listed)  # Zarr passes over such a part
                return found
        time.sleep(PAUSE_S)
    msg = f"store {str(path)!r} was changed {ATTEMPTS} times while it was read; read it when its writer has finished."
    raise StoreError(msg)


def _with_shared_tables(path: Path) -> SpatialData:
    sdata = read_zarr(path, selection=_BESIDE_TABLES)
    readers: dict[str, Callable[[], ad.AnnData]] = {}
    for kind, name, finished in elements_on_disk(path):
        if kind == "tables":
            if not finished:
                raise ValueError(name)  # as `read_zarr` does; the caller names every unfinished element
            readers[name] = partial(_at_one_moment, path, partial(read_table, path / kind / name))
    LazyTables.of(sdata, readers)
    return sdata


def _identity_of_root(path: Path) -> tuple[int, int, int, int]:
    found = (path / FILE).stat()  # a commit that takes itself back puts the same file there again: only ctime tells
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _damaged(path: Path, error: BaseException) -> str:
    unfinished = [(kind, name) for kind, name, finished in elements_on_disk(path) if not finished]
    names = [f"{kind}/{name}" for kind, name in unfinished]
    what = (
        f"elements {names} were never finished"
        if unfinished
        else _of_tables(path) or f"{type(error).__name__}: {error}"
    )
    if unfinished and unfinished[0][0] == "tables":
        what += f"; {names[0]}: {why_unfinished(path / names[0], 'tables')}"
    return (
        f"store {str(path)!r} cannot be read: {what}. `sp.io.verify` names what is damaged and `sp.io.repair` moves "
        f"unfinished elements out. Restore it from a copy, or import the slide again, where that does not help."
    )


def _of_tables(path: Path) -> str:
    """The first file of a table that cannot be decoded: tables are read whole, where images and points are opened."""
    damaged = next(filter(None, map(damaged_file, arrays_in([path / "tables"]))), None)
    return "" if damaged is None else f"{str(damaged.relative_to(path))!r} is damaged and cannot be decoded"


def read_table(path: Path) -> ad.AnnData:
    """Table at ``path``: from memory where its files are still those that were read, otherwise from the files.

    Rows, columns and parameters belong to the caller. Arrays may be shared with other callers: replace them, do not
    write into them. ``settings.table_cache_mb`` bounds what is kept.
    """
    path = path.resolve()
    before = _identity(path)
    with _lock:
        identity, table = _kept.get(path, (None, None))
        if table is not None and identity == before:
            _kept.move_to_end(path)
            return _own(table)
    table = _read(path)
    if table.raw is None and _identity(path) == before:
        _keep(path, before, table)
        return _own(table)
    return table


def _read(path: Path) -> ad.AnnData:
    group = zarr.open_group(path, mode="r", use_consolidated=False)
    has_raw = isinstance(group.get("raw"), zarr.Group)  # else it is written as nothing
    if not has_raw and has_many_rows(group):
        stored = StoredTable.open(path)
        _restore_links(stored.uns)
        return stored
    layers = [f"layers/{name}" for name in group["layers"]] if "layers" in group else []  # type: ignore[union-attr]
    large = [name for name in ("X", *layers) if is_large(group, name)]
    table = _without(group, large) if large and not has_raw else ad.read_zarr(path)
    for frame in (values for values in table.obsm.values() if isinstance(values, pd.DataFrame)):
        frame.index = table.obs_names  # the same object: AnnData compares all names whenever `obsm` is looked at
    _restore_links(table.uns)
    return table


def _restore_links(uns: dict[str, Any]) -> None:
    links = uns.get(TableModel.ATTRS_KEY)
    if links is not None:
        links |= {name: links.get(name) for name in _LINKS}
        if isinstance(links["region"], np.ndarray):
            links["region"] = links["region"].tolist()


def _without(group: zarr.Group, large: Collection[str]) -> ad.AnnData:
    """The table with its ``large`` matrices left in the store."""
    parts = {name: read_elem(group[name]) for name in group if name not in ("X", "layers", "raw")}
    parts["layers"] = {
        name: left_in_store(group, f"layers/{name}") if f"layers/{name}" in large else read_elem(layer)
        for name, layer in (group["layers"].members() if "layers" in group else ())  # type: ignore[union-attr]
    }
    if "X" in group:
        parts["X"] = left_in_store(group, "X") if "X" in large else read_elem(group["X"])
    return ad.AnnData(**parts)


def _identity(path: Path) -> Identity:
    """Name, inode, time and size of every file: other programs change chunks without a word to the root."""
    return frozenset(_files(os.fspath(path)))


def _files(folder: str) -> list[tuple[str, int, int, int, int]]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found += _files(entry.path)
            else:
                stat = entry.stat()
                found.append((entry.path, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size))
    return found


def _keep(path: Path, identity: Identity, table: ad.AnnData) -> None:
    with _lock:
        _kept[path] = (identity, table)
        _kept.move_to_end(path)
        while sum(_size(kept) for _, kept in _kept.values()) > settings.table_cache_mb * 2**20:
            _kept.popitem(last=False)


def _size(table: ad.AnnData) -> int:
    if isinstance(table, StoredTable):
        return int(table.var.memory_usage(deep=False).sum()) + _HASH_BYTES * table.n_obs
    arrays = [table.X, *(value for axis in _axes(table).values() for value in axis.values())]
    frames = sum(int(frame.memory_usage(deep=False).sum()) for frame in (table.obs, table.var))
    return frames + sum(_bytes(array) for array in arrays)


def _bytes(array: Any) -> int:
    if sparse.issparse(array):
        return sum(part.nbytes for part in (array.data, array.indices, array.indptr))
    return int(getattr(array, "nbytes", 0))


def _axes(table: ad.AnnData) -> dict[str, Mapping[str, object]]:
    return {name: parts_of(table, name) for name in ("obsm", "varm", "layers", "obsp", "varp")}


def _own(table: ad.AnnData) -> ad.AnnData:
    """The same arrays in a table of its own."""
    if isinstance(table, StoredTable):
        return table.own()
    return ad.AnnData(
        X=table.X, obs=table.obs.copy(), var=table.var.copy(), uns=copy.deepcopy(dict(table.uns)), **_axes(table)
    )
