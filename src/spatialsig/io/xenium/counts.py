"""Counts read from front to back into one matrix of the genes, checked before any library that would crash on bad ones.

Floor 7, above evaluation. Used by io/xenium/atera, io/xenium/extras, io/xenium/matrix, io/xenium/polygons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from scipy import sparse

from spatialsig.errors import InputError
from spatialsig.io.xenium.columns import as_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

GENE_EXPRESSION = "Gene Expression"
COUNT_COLUMNS = {  # feature type -> column of cells.parquet
    GENE_EXPRESSION: "transcript_counts",
    "Negative Control Probe": "control_probe_counts",
    "Genomic Control": "genomic_control_counts",
    "Negative Control Codeword": "control_codeword_counts",
    "Blank Codeword": "unassigned_codeword_counts",
    "Unassigned Codeword": "unassigned_codeword_counts",
    "Deprecated Codeword": "deprecated_codeword_counts",
}
_BLOCK = 2**20  # values looked at together
_MAX_INT32 = 2**31 - 1
_MAX_COUNT = 2**24  # float32 does not hold every larger whole number


class StoredList(Protocol):
    """What HDF5 and Zarr have in common: numbers on a disk, in chunks."""

    shape: tuple[int, ...]
    dtype: Any
    chunks: tuple[int, ...] | None

    def __getitem__(self, selection: slice) -> Any: ...


@dataclass(frozen=True)
class Axes:
    """Cells and features of a matrix."""

    cell_ids: NDArray[np.str_]  # (n_cells,)
    kinds: NDArray[np.str_]  # (n_features,): type of each
    var: pd.DataFrame  # index: unique symbols of the genes; columns ``gene_ids``, ``feature_types`` and more


@dataclass(frozen=True)
class CountMatrix:
    """Counts of the genes of a bundle."""

    counts: sparse.csr_matrix  # (cells that are kept, n_genes), CSR float32, whole numbers
    features_dropped: dict[str, int]  # feature type -> number of features that are no genes
    counts_dropped: dict[str, int]  # feature type -> their counts
    per_cell: dict[str, NDArray[np.float64]]  # column of ``cells.parquet`` that sums up the same counts -> (n_cells,)


def genes_of(path: Path, kinds: NDArray[np.str_], *, ids: Any, names: Any, **more: Any) -> pd.DataFrame:
    """Table of the features of type ``Gene Expression`` among ``kinds``, :class:`InputError` if there are none."""
    keep = kinds == GENE_EXPRESSION
    if not keep.any():
        refuse(path, f"has no features of type {GENE_EXPRESSION!r}; it has {sorted(set(kinds.tolist()))}")
    text = {
        name: as_text(values, name=f"{path}: {name}")[keep]
        for name, values in {"id": ids, "name": names, **more}.items()
    }
    gene_ids = text.pop("id")
    names = np.where(text["name"] == "", gene_ids, text.pop("name"))  # a gene without a name has an id
    var = pd.DataFrame(
        {"gene_ids": gene_ids, "feature_types": GENE_EXPRESSION}, index=make_index_unique(pd.Index(names))
    )
    return var.assign(**text)


def read_counts(
    path: Path, axes: Axes, keep: NDArray[np.bool_], *, data: StoredList, indices: StoredList, indptr: StoredList
) -> CountMatrix:
    """Read a matrix with one row per cell; only genes, and only the cells to ``keep``, come into memory.

    The values go straight to their place in the result: apart from it there is never more than a block, or a chunk of
    the file, in memory. Raises :class:`InputError` if the structure is inconsistent, an index is out of range, or a
    count is negative or not a whole number.
    """
    starts = _row_starts(path, indptr, indices.shape[0], data.shape[0], axes)
    if indices.dtype.kind not in "iu":
        refuse(path, f"has indptr {indptr.dtype} and indices {indices.dtype}; wanted integers")
    if data.dtype.kind not in "iuf":
        refuse(path, f"has counts of type {data.dtype}; wanted numbers")
    taken = _Taken(axes.kinds, keep, n_values=data.shape[0])
    values, features = _Front(data), _Front(indices)
    for rows in _blocks(starts):
        first, last = int(starts[rows.start]), int(starts[rows.stop])
        _take_block(path, taken, rows, starts, values.take(first, last), features.take(first, last))
    return taken.finish()


def _row_starts(path: Path, indptr: StoredList, n_indices: int, n_values: int, axes: Axes) -> NDArray[np.int64]:
    """Where the row of each cell begins among the values, checked."""
    n_cells, n_features = len(axes.cell_ids), len(axes.kinds)
    if indptr.shape[0] == n_features + 1 and n_features != n_cells:
        refuse(path, "is stored by features; wanted one row of values per cell, as the instrument writes it")
    if indptr.dtype.kind not in "iu":
        refuse(path, f"has indptr {indptr.dtype}; wanted integers")
    if indptr.shape[0] != n_cells + 1 or n_indices != n_values:
        refuse(path, f"has {indptr.shape[0]} indptr, {n_indices} indices, {n_values} values for {n_cells} barcodes")
    starts = np.asarray(indptr[:])
    if starts[0] != 0 or starts[-1] != n_values or (starts[1:] < starts[:-1]).any():
        refuse(path, f"has an indptr that does not rise from 0 to {n_values}")
    return starts.astype(np.int64)


def _blocks(starts: NDArray[np.int64]) -> Iterator[slice]:
    """Rows that are looked at together: as many as hold a block of values, at least one."""
    row, n_rows = 0, len(starts) - 1
    while row < n_rows:
        stop = int(np.searchsorted(starts, starts[row] + _BLOCK, side="right")) - 1
        stop = min(max(stop, row + 1), row + _BLOCK, n_rows)
        yield slice(row, stop)
        row = stop


class _Front:
    """Stored list that is read from front to back, so that no chunk is decoded twice."""

    def __init__(self, stored: StoredList) -> None:
        self.stored, self.first = stored, 0
        self.step = stored.chunks[0] if stored.chunks else 1
        self.held: NDArray[Any] = np.empty(0, stored.dtype)

    def take(self, start: int, stop: int) -> NDArray[Any]:
        """Values ``start`` to ``stop``; what lies before is given up."""
        end = self.first + len(self.held)
        if stop > end:
            until = min(-(-stop // self.step) * self.step, self.stored.shape[0])
            new = np.asarray(self.stored[end:until])
            rest = self.held[start - self.first :]
            self.held, self.first = (np.concatenate([rest, new]) if len(rest) else new), start
        return self.held[start - self.first : stop - self.first]


class _Taken:
    """The result while it grows, in arrays that are made once."""

    def __init__(self, kinds: NDArray[np.str_], keep: NDArray[np.bool_], *, n_values: int) -> None:
        self.keep, self.is_gene = keep, kinds == GENE_EXPRESSION
        names, self.kind = np.unique(kinds, return_inverse=True)
        self.names = [str(name) for name in names]
        self.column = np.cumsum(self.is_gene) - 1  # of each gene in the result
        self.index_type = index_type(n_values)
        # pages that are never written to take no memory
        self.data, self.indices = np.empty(n_values, np.float32), np.empty(n_values, self.index_type)
        self.lengths = np.zeros(len(keep), np.int64)
        self.filled = 0
        self.per_kind = np.zeros((len(keep), len(names)))  # counts of each cell by type of feature

    def add(self, rows: slice, block: sparse.csr_matrix) -> None:
        """Take the genes of the cells to keep from a block of checked rows."""
        n = rows.stop - rows.start
        row = np.repeat(np.arange(n), np.diff(block.indptr))
        cell_kind = row * len(self.names) + self.kind[block.indices]
        sums = np.bincount(cell_kind, weights=block.data, minlength=n * len(self.names))
        self.per_kind[rows] = sums.reshape(n, -1)
        chosen = self.is_gene[block.indices] & self.keep[rows][row]
        stop = self.filled + int(chosen.sum())
        self.data[self.filled : stop] = block.data[chosen]
        self.indices[self.filled : stop] = self.column[block.indices[chosen]]
        self.lengths[rows] = np.bincount(row[chosen], minlength=n)
        self.filled = stop

    def finish(self) -> CountMatrix:
        """The matrix without a copy of its values, and the sums."""
        for array in (self.data, self.indices):
            array.resize(self.filled, refcheck=False)
        starts = np.concatenate([[0], np.cumsum(self.lengths[self.keep])]).astype(self.index_type)
        counts = sparse.csr_matrix(
            (self.data, self.indices, starts), shape=(len(starts) - 1, int(self.is_gene.sum())), copy=False
        )
        counts.has_canonical_format = True
        others = [n for n, name in enumerate(self.names) if name != GENE_EXPRESSION]
        return CountMatrix(
            counts=counts,
            features_dropped={self.names[n]: int((self.kind == n).sum()) for n in others},
            counts_dropped={self.names[n]: int(self.per_kind[:, n].sum()) for n in others},
            per_cell=self._per_cell(),
        )

    def _per_cell(self) -> dict[str, NDArray[np.float64]]:
        """Sums under the names of the columns of ``cells.parquet``; the total where every type has a column."""
        sums = {COUNT_COLUMNS[name]: self.per_kind[:, n] for n, name in enumerate(self.names) if name in COUNT_COLUMNS}
        return sums | ({"total_counts": self.per_kind.sum(axis=1)} if set(self.names) <= set(COUNT_COLUMNS) else {})


def index_type(n_values: int) -> type[np.signedinteger[Any]]:
    """Type of the indices and row starts of a matrix; SciPy wants one for both."""
    return np.int32 if n_values <= _MAX_INT32 else np.int64


def _take_block(
    path: Path, taken: _Taken, rows: slice, starts: NDArray[np.int64], data: NDArray[Any], indices: NDArray[Any]
) -> None:
    where, n_features = f"in cells {rows.start + 1} to {rows.stop}", len(taken.kind)
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < n_features:
        refuse(
            path,
            f"has indices {int(indices.min())} to {int(indices.max())} {where}, out of range for {n_features} features",
        )
    wrong = data < 0 if data.dtype.kind != "f" else ~np.isfinite(data) | (data < 0) | (data != np.floor(data))
    if wrong.any():
        refuse(
            path,
            f"has {int(wrong.sum())} counts that are negative or no whole numbers {where}, as {data[wrong][0]!r}",
        )
    if len(data) and data.max() > _MAX_COUNT:
        refuse(path, f"has a count of {data.max():g} {where}; wanted at most 2^24, as no cell has more of one gene")
    # a copy: rows are sorted in place, and what was read belongs to the next block too
    parts = (data.astype(np.float32), indices.astype(np.int32), starts[rows.start : rows.stop + 1] - starts[rows.start])
    block = sparse.csr_matrix(parts, shape=(rows.stop - rows.start, n_features))
    block.sort_indices()
    if not block.has_canonical_format:
        refuse(path, f"lists a feature twice in one of the {where.removeprefix('in ')}")
    taken.add(rows, block)


def refuse(path: Path, what: str) -> NoReturn:
    """Raise :class:`InputError`: the file is not as the instrument wrote it."""
    msg = f"{str(path)!r} {what}. Copy {path.name} from the instrument again."
    raise InputError(msg)
