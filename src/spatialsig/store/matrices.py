"""Sparse matrices of tables that stay in their store, read in blocks of rows.

Floor 1, above the ground floor. Used by 9 modules of pp, slide, store.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import zarr
from anndata.abc import CSRDataset
from anndata.io import sparse_dataset
from scipy import sparse

from spatialsig.errors import StoreError
from spatialsig.store.stored.damage import decoding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import anndata as ad
    from numpy.typing import NDArray

LARGE = 4_000_000  # stored values from which a matrix stays in its store: 32 MiB
BLOCK = 4_000_000  # stored values that are read, or looked at, at a time
Matrix: TypeAlias = Any  # CSR matrix in memory, `CSRDataset`, or a `Selection` of one


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
    """Whether a matrix lies in a store, or is a selection of one there."""
    return isinstance(values, CSRDataset | Selection)


def index_pointers(values: Matrix) -> NDArray[Any]:
    """Where the rows of a matrix begin and end, ``(n_rows + 1,)``."""
    if isinstance(values, Selection):
        return values.indptr
    if not is_stored(values):
        return np.asarray(values.indptr)
    with decoding(lambda: [_place_of(values)]):
        return np.asarray(values.group["indptr"][:])


def rows_of(values: Matrix, rows: NDArray[np.int64]) -> Any:
    """Some rows of a matrix."""
    if not isinstance(values, CSRDataset):
        return values[rows]
    with decoding(lambda: [_place_of(values)]):
        return values[rows]


def row_blocks(values: Matrix) -> Iterator[tuple[slice, sparse.csr_matrix]]:
    """Rows of a matrix and what they hold, about :data:`BLOCK` values at a time: the same for one in memory and one in a store.

    Raises
    ------
    StoreError
        If the store is changed meanwhile.
    """
    if isinstance(values, Selection):
        yield from values.blocks()
        return
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
        with decoding(lambda: [_place_of(values)]):
            parts = data[start:stop], indices[start:stop], pointers[first : last + 1] - pointers[first]
        block = sparse.csr_matrix(tuple(map(np.asarray, parts)), shape=(last - first, values.shape[1]))
        if _identity(values) != before:
            raise replaced(_place_of(values))
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
    if isinstance(values, Selection):
        yield from [values.indptr] if part == "indptr" else (getattr(block, part) for _, block in values.blocks())
        return
    array = values.group[part]
    kind = array.dtype if part == "data" else _index_type(values.shape, int(values.group["data"].shape[0]))
    for start in range(0, array.shape[0], BLOCK):
        with decoding(lambda: [_place_of(values)]):
            block = np.asarray(array[start : start + BLOCK])
        yield block.astype(kind, copy=False)


def _index_type(shape: tuple[int, int], n_values: int) -> np.dtype[Any]:
    return np.dtype(np.int32 if max(shape[1], n_values) <= np.iinfo(np.int32).max else np.int64)


class Selection:
    """Marked rows and columns of a matrix that stays in its store; what is kept is read again each time.

    Parameters
    ----------
    source
        The matrix.
    rows, columns
        What is kept of it, ``(n_rows,)`` and ``(n_columns,)``.
    """

    def __init__(self, source: CSRDataset, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> None:
        self.source, self.rows, self.columns = source, rows, columns
        self.shape = int(rows.sum()), int(columns.sum())
        self.dtype = source.dtype
        self._opened = _identity(source)

    def __getitem__(self, rows: NDArray[np.int64]) -> sparse.csr_matrix:
        return sparse.csr_matrix(rows_of(self.source, np.flatnonzero(self.rows)[rows]))[:, self.columns]

    @cached_property
    def indptr(self) -> NDArray[Any]:
        """Where the rows begin and end, ``(n_rows + 1,)``."""
        if self.columns.all():
            lengths = np.diff(index_pointers(self.source))[self.rows]
        else:
            lengths = np.concatenate([np.diff(block.indptr) for _, block in self._parts()])
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return ends.astype(_index_type(self.shape, int(ends[-1])), copy=False)

    def blocks(self) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        """Kept rows and what they hold; indices of the type that they have in the whole matrix."""
        for where, block in self._parts():
            block.indices = block.indices.astype(self.indptr.dtype, copy=False)
            yield where, block

    def _parts(self) -> Iterator[tuple[slice, sparse.csr_matrix]]:
        if _identity(self.source) != self._opened:
            raise replaced(_place_of(self.source))
        n = 0
        for where, block in row_blocks(self.source):
            kept = block[self.rows[where]]
            yield slice(n, n + kept.shape[0]), kept if self.columns.all() else kept[:, self.columns]
            n += kept.shape[0]


@dataclass(frozen=True)
class StreamedTable:
    """A table whose large matrices are not in memory; in every other respect the table ``light``.

    Parameters
    ----------
    light
        The table with matrices of zeros, which take no memory, in the places of those.
    matrices
        ``"X"`` or ``"layers/<name>"`` -> the matrix.
    """

    light: ad.AnnData
    matrices: Mapping[str, Selection]

    @classmethod
    def of(cls, light: ad.AnnData, matrices: Mapping[str, Selection]) -> StreamedTable:
        """A table that lacks these matrices, with them."""
        for part, values in matrices.items():
            section, _, name = part.partition("/")
            if section == "X":
                light.X = _zeros(values)
            else:
                light.layers[name] = _zeros(values)
        return cls(light, matrices)

    @property
    def X(self) -> Any:
        """Counts."""
        return self.matrices.get("X", self.light.X)

    @property
    def layers(self) -> dict[str, Any]:
        """Layers by name."""
        stored = {part.partition("/")[2]: values for part, values in self.matrices.items() if part != "X"}
        return dict(self.light.layers) | stored

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.light, name)

    def fill(self, place: Path) -> None:
        """Put the matrices into the table that was written to ``place`` with zeros in their places."""
        for part, values in self.matrices.items():
            group = zarr.open_group(place / part, mode="r+", use_consolidated=False)
            data, indices = (_Appended(group[name]) for name in ("data", "indices"))
            for _, block in values.blocks():
                data.add(block.data)
                indices.add(block.indices)
            data.flush()
            indices.flush()


def _zeros(values: Selection) -> sparse.csr_matrix:
    """Zeros with the rows of a matrix, of one number each for values and columns."""
    found = sparse.csr_matrix(values.shape, dtype=values.dtype)
    n = int(values.indptr[-1])
    found.data = np.broadcast_to(np.zeros((), values.dtype), n)
    found.indices = np.broadcast_to(np.zeros((), values.indptr.dtype), n)
    found.indptr = values.indptr
    return found


class _Appended:
    """An array in a store that is written from its beginning, whole chunks at a time."""

    def __init__(self, array: Any) -> None:
        self.array, self.step = array, int((array.shards or array.chunks)[0])
        self.written = 0
        self.waiting: list[NDArray[Any]] = []

    def add(self, values: NDArray[Any]) -> None:
        """Write the chunks that are full now."""
        self.waiting.append(values)
        self._write(sum(map(len, self.waiting)) // self.step * self.step)

    def flush(self) -> None:
        """Write what is left."""
        self._write(sum(map(len, self.waiting)))

    def _write(self, n: int) -> None:
        if n:
            values = np.concatenate(self.waiting)
            self.array[self.written : self.written + n] = values[:n]
            self.written += n
            self.waiting = [values[n:].copy()]


def replaced(place: Path) -> StoreError:
    """The error for a part of a table that is no longer the one of which reading began."""
    return StoreError(f"{str(place)!r} was replaced while it was read; call the function again.")


def _place_of(values: CSRDataset) -> Path:
    return Path(str(values.group.store_path).removeprefix("file://"))


def _identity(values: CSRDataset) -> list[tuple[int, int]]:
    """Of the first chunks, which stay the same files while other parts of the table are written."""
    place = _place_of(values)
    found = [file.stat() for part in ("data", "indptr") if (file := place / part / "c" / "0").is_file()]
    return [(each.st_mtime_ns, each.st_size) for each in found]
