"""Sparse matrices of tables that stay in their store, read in blocks of rows.

Floor 1. Used by pp/_filter, slide/counts, slide/fingerprints, store/snapshot.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import zarr
from anndata.abc import CSRDataset
from anndata.io import sparse_dataset
from scipy import sparse

from spatialsig.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LARGE = 4_000_000  # stored values from which a matrix stays in its store: 32 MiB
BLOCK = 4_000_000  # stored values that are read, or looked at, at a time
Matrix: TypeAlias = Any  # CSR matrix in memory, or `CSRDataset`


def is_large(group: zarr.Group, name: str) -> bool:
    """Whether an entry of a table is a CSR matrix that is better left in its store."""
    entry = group.get(name)
    return (
        isinstance(entry, zarr.Group)
        and entry.attrs.get("encoding-type") == "csr_matrix"
        and int(entry["data"].shape[0]) >= LARGE  # type: ignore[union-attr]
    )


def left_in_store(group: zarr.Group, name: str) -> CSRDataset:
    """The matrix as an object that reads rows on demand."""
    matrix: CSRDataset = sparse_dataset(group[name])
    return matrix


def is_stored(values: Any) -> bool:
    """Whether a matrix lies in a store."""
    return isinstance(values, CSRDataset)


def index_pointers(values: Matrix) -> NDArray[Any]:
    """Where the rows of a matrix begin and end, ``(n_rows + 1,)``."""
    return np.asarray(values.group["indptr"][:] if is_stored(values) else values.indptr)


def row_blocks(values: Matrix) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Rows of a matrix and what they hold, about :data:`BLOCK` values at a time: the same for one in memory and one in a store.

    Raises
    ------
    StoreError
        If the store is changed meanwhile.
    """
    pointers = index_pointers(values)
    bounds = [0, *_ends(pointers)]
    if not is_stored(values):
        for first, last in itertools.pairwise(bounds):
            yield slice(first, last), values if last - first == values.shape[0] else values[first:last]
        return
    before = _identity(values)
    data, indices = values.group["data"], values.group["indices"]
    for first, last in itertools.pairwise(bounds):
        start, stop = int(pointers[first]), int(pointers[last])
        parts = data[start:stop], indices[start:stop], pointers[first : last + 1] - pointers[first]
        block = sparse.csr_matrix(tuple(map(np.asarray, parts)), shape=(last - first, values.shape[1]))
        if _identity(values) != before:
            msg = f"{str(_place_of(values))!r} was replaced while it was read; call the function again."
            raise StoreError(msg)
        yield slice(first, last), block


def _ends(pointers: NDArray[Any]) -> list[int]:
    """Last rows (excluded) of blocks of about :data:`BLOCK` values, at least one row each."""
    ends: list[int] = []
    n = len(pointers) - 1
    while (first := ends[-1] if ends else 0) < n:
        ends.append(max(int(np.searchsorted(pointers, pointers[first] + BLOCK, side="right")) - 1, first + 1))
    return ends


def value_blocks(values: Matrix, part: str) -> Iterator[NDArray[Any]]:
    """``data``, ``indices`` or ``indptr`` of a matrix in a store as they would be in memory, some at a time."""
    array = values.group[part]
    small = max(values.shape[1], int(values.group["data"].shape[0])) <= np.iinfo(np.int32).max
    kind = array.dtype if part == "data" else np.dtype(np.int32 if small else np.int64)
    for start in range(0, array.shape[0], BLOCK):
        yield np.asarray(array[start : start + BLOCK]).astype(kind, copy=False)


def rows_and_columns(values: Matrix, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> sparse.csr_matrix:
    """Marked rows ``(n_rows,)`` and columns ``(n_columns,)`` of a matrix, in memory."""
    kept = [block[rows[where]][:, columns] for where, block in row_blocks(values)]
    return sparse.csr_matrix(sparse.vstack(kept, format="csr"))


def _place_of(values: CSRDataset) -> Path:
    return Path(str(values.group.store_path).removeprefix("file://"))


def _identity(values: CSRDataset) -> list[tuple[int, int]]:
    """Of the first chunks, which stay the same files while other parts of the table are written."""
    place = _place_of(values)
    found = [file.stat() for part in ("data", "indptr") if (file := place / part / "c" / "0").is_file()]
    return [(each.st_mtime_ns, each.st_size) for each in found]
