"""``cell_feature_matrix.zarr.zip`` of Atera: cells, features and counts in one zipped AnnData Zarr.

Floor 7, above evaluation. Used by io/_xenium, io/xenium/size.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem
from spatialdata import sanitize_name

from spatialsig import _keys
from spatialsig.io.xenium.cells import NUMBERS, X_COLUMN, Y_COLUMN, Cells, check_unique, count_unplaced, is_numeric
from spatialsig.io.xenium.columns import as_text
from spatialsig.io.xenium.counts import Axes, genes_of, read_counts, refuse
from spatialsig.io.xenium.zipped import check_names, open_zip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.io.xenium.counts import CountMatrix

_BARCODE = "barcode"
_CENTROID = {"centroid_column": X_COLUMN, "centroid_row": Y_COLUMN}  # um, whatever the names say
_FEATURE = ("feature_id", "feature_name", "feature_type")
_NUMBERS = ("data", "indices", "indptr")
_XENIUM_GROUP = "cell_features"  # what Xenium puts into a file of this name


def read_atera_axes(path: Path) -> tuple[Axes, Cells]:
    """Read cells and features; :class:`InputError` if the file is damaged or a field that is needed is not there."""
    with _opened(path) as root:
        check_names(path)
        kinds = as_text(_column(path, root, "var", "feature_type"), name=f"{path}: feature_type")
        ids, names = (_column(path, root, "var", name) for name in _FEATURE[:2])
        lengths = {"feature_type": len(kinds), "feature_id": len(ids), "feature_name": len(names)}
        if len(set(lengths.values())) != 1:
            refuse(path, f"has features of unequal lengths {lengths}")
        frame = _cells(path, root)
        _check_shape(path, root["X"], frame, n_features=len(kinds))
        axes = Axes(frame[_keys.CELL_ID].to_numpy(str), kinds, genes_of(path, kinds, ids=ids, names=names))
    check_unique(path, axes.cell_ids)
    return axes, Cells(frame, count_unplaced(path, frame), "text", in_order=True)


def read_atera_counts(path: Path, axes: Axes, keep: NDArray[np.bool_]) -> CountMatrix:
    """Read the counts of the genes in the cells to ``keep``."""
    with _opened(path) as root:
        lists = {name: _list(path, root["X"], name) for name in _NUMBERS}
        return read_counts(path, axes, keep, **lists)


def read_atera_size(path: Path) -> tuple[int, int, int, NDArray[np.float64]]:
    """Read how many cells, features and counts that are not 0 there are, and the centroids ``(n_cells, 2)`` in um."""
    with _opened(path) as root:
        n_features = len(_column(path, root, "var", "feature_type"))
        xy = _cells(path, root)[[X_COLUMN, Y_COLUMN]].to_numpy(np.float64)
        return len(xy), n_features, int(_list(path, root["X"], "data").shape[0]), xy


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Root of the file, which is known to hold a sparse matrix with its cells and features."""
    with open_zip(path) as root:
        if _XENIUM_GROUP in root:
            refuse(path, f"holds /{_XENIUM_GROUP}, as Xenium writes it, beside the manifest of Atera")
        missing = [name for name in ("X", "obs", "var") if name not in root]
        if missing:
            refuse(path, f"has no {missing}; it has {sorted(root)}")
        matrix = root["X"]
        missing = [name for name in _NUMBERS if not isinstance(matrix, zarr.Group) or name not in matrix]
        if missing:
            refuse(path, f"has no dataset(s) {missing} in /X, which is to be a sparse matrix (CSR)")
        yield root


def _column(path: Path, root: Any, group: str, name: str) -> NDArray[Any]:
    """Values of a column of ``obs`` or ``var``; also of the index, where it has that name."""
    columns = root[group]
    if name not in columns:
        refuse(path, f"has no column(s) {[name]} in /{group}; it has {sorted(columns)}")
    column = columns[name]
    if isinstance(column, zarr.Array):
        _check_whole(path, column, f"{group}/{name}")
    return np.asarray(column[...] if isinstance(column, zarr.Array) else read_elem(column))


def _cells(path: Path, root: Any) -> pd.DataFrame:
    """One row per cell: its id, centroid and every other column, under names that a table can have."""
    columns = root["obs"]
    missing = [name for name in (_BARCODE, *_CENTROID) if name not in columns]
    if missing:
        refuse(path, f"has no column(s) {missing} in /obs; it has {sorted(columns)}")
    ids = as_text(_column(path, root, "obs", _BARCODE), name=f"{path}: {_BARCODE}")
    places = {name: _column(path, root, "obs", name) for name in _CENTROID}
    text = [name for name, values in places.items() if values.dtype.kind not in "iuf"]
    if text:
        refuse(path, f"has column(s) {text} in /obs that hold no numbers; wanted um")
    others = sorted(set(columns) - {_BARCODE, _keys.CELL_ID, *_CENTROID})
    read = {sanitize_name(name, is_dataframe_column=True): read_elem(columns[name]) for name in others}
    lengths = {name: len(values) for name, values in (places | read).items() if len(values) != len(ids)}
    if lengths:
        refuse(path, f"has columns of other lengths than the {len(ids)} barcodes in /obs: {lengths}")
    text = [name for name in NUMBERS if name in read and not is_numeric(pd.Series(read[name]))]
    if text:
        refuse(path, f"has column(s) {text} in /obs that hold no numbers")
    return pd.DataFrame({_keys.CELL_ID: ids.astype(object), **places, **read}).rename(columns=_CENTROID)


def _check_shape(path: Path, matrix: Any, cells: pd.DataFrame, *, n_features: int) -> None:
    stated = np.asarray(matrix.attrs.get("shape", (len(cells), n_features))).tolist()
    if stated != [len(cells), n_features]:
        refuse(path, f"says shape {stated} but names {len(cells)} barcodes and {n_features} features")


def _list(path: Path, matrix: Any, name: str) -> Any:
    """One array, unless a piece of it is not there, which Zarr would take for zeros."""
    array = matrix[name]
    if not isinstance(array, zarr.Array) or array.ndim != 1:
        refuse(path, f"has an /X/{name} that is no list")
    if name == "data":
        _check_whole(path, array, f"X/{name}")
    return array


def _check_whole(path: Path, array: zarr.Array[Any], name: str) -> None:
    """Refuse an array that has lost pieces: ids, names, places and counts, where no piece can be all zero or empty."""
    if array.nchunks_initialized != array.nchunks:
        refuse(path, f"has {array.nchunks_initialized} of the {array.nchunks} pieces of /{name}")
