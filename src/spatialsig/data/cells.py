"""Raw counts of the cells of a slide, in memory or read from the Zarr store in blocks of rows.

Floor 2, above geometry, nn, signatures, stats, store. Used by expression, train/autoencoder, train/cells.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import zarr
from scipy import sparse

from spatialsig.errors import InputError
from spatialsig.stats.cell_rows import sub_matrix
from spatialsig.store.stored.damage import decoding

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BLOCK_NNZ = 1_000_000  # non-zeros read at once: about one chunk of a store
RUN_CELLS = 32  # neighbours in the store that are held out together: each run is read by itself


@runtime_checkable
class CellSource(Protocol):
    """Cells of one slide that can be read in contiguous blocks."""

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        ...

    @property
    def nnz(self) -> int:
        """Number of counts above 0, over all genes of the store."""
        ...

    def nnz_of(self, first: int, last: int) -> int:
        """Counts above 0 of cells ``first`` to ``last`` (excluded); no fewer than :meth:`read` gives."""
        ...

    def read(self, first: int, last: int) -> sparse.csr_matrix:
        """Cells ``first`` to ``last`` (excluded), ``(last - first, n_genes)`` float32."""
        ...


@dataclass(frozen=True)
class MemoryCells:
    """Counts that are in memory already, ``(n_cells, n_genes)`` CSR."""

    counts: sparse.csr_matrix

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.counts.shape[0])

    @property
    def nnz(self) -> int:
        """Number of counts above 0."""
        return int(self.counts.nnz)

    def nnz_of(self, first: int, last: int) -> int:
        """Counts above 0 of cells ``first`` to ``last`` (excluded)."""
        return int(self.counts.indptr[last] - self.counts.indptr[first])

    def read(self, first: int, last: int) -> sparse.csr_matrix:
        """Cells ``first`` to ``last`` (excluded)."""
        return self.counts[first:last]


class _KeptRows:
    """Cells that are kept of more, by their rows."""

    _rows: NDArray[np.int64]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self._rows)

    @property
    def nnz(self) -> int:
        """Number of counts above 0, at most."""
        return self.nnz_of(0, self.n_cells)

    @abstractmethod
    def nnz_of(self, first: int, last: int) -> int:
        """Counts above 0 of the kept cells ``first`` to ``last`` (excluded), at most."""


class StoredCells(_KeptRows):
    """Chosen cells and genes of the CSR matrix ``X`` of a table in a Zarr store; only what is asked for is read.

    Parameters
    ----------
    group
        Directory of the matrix, ``<store>/tables/<table>/X``.
    columns
        Genes to keep, in their order, ``(n_genes,)``; -1 stands for a gene that the slide does not measure and gives
        an empty column.
    rows
        Cells to keep, ascending, ``(n_cells,)``; None keeps all.

    Raises
    ------
    InputError
        If the matrix is not stored as CSR.
    """

    def __init__(self, group: Path, columns: NDArray[np.int64], rows: NDArray[np.int64] | None = None) -> None:
        opened = zarr.open_group(group, mode="r")
        if opened.attrs.get("encoding-type") != "csr_matrix":
            msg = (
                f"matrix {str(group)!r} is stored as {opened.attrs.get('encoding-type')!r}; wanted a CSR matrix of "
                "counts: write the table with `X` as scipy.sparse.csr_matrix."
            )
            raise InputError(msg)
        self._group = group
        with decoding(lambda: [group]):
            self._indptr: NDArray[np.int64] = np.asarray(_array(opened, "indptr")[:], np.int64)
        self._data, self._indices = _array(opened, "data"), _array(opened, "indices")
        self._n_all = int(np.asarray(opened.attrs["shape"])[1])
        self._columns = np.asarray(columns, np.int64)
        self._rows = np.arange(len(self._indptr) - 1) if rows is None else np.asarray(rows, np.int64)

    def nnz_of(self, first: int, last: int) -> int:
        """Stored counts of the kept cells ``first`` to ``last`` (excluded), over all genes."""
        rows = self._rows[first:last]
        return int((self._indptr[rows + 1] - self._indptr[rows]).sum())

    def read(self, first: int, last: int) -> sparse.csr_matrix:
        """Cells ``first`` to ``last`` (excluded) of the kept ones, ``(last - first, n_genes)`` float32."""
        rows = self._rows[first:last]
        if not len(rows):
            return sparse.csr_matrix((0, len(self._columns)), dtype=np.float32)
        low, high = rows[0], rows[-1] + 1
        start, stop = int(self._indptr[low]), int(self._indptr[high])
        with decoding(lambda: [self._group]):
            read = (self._data[start:stop], self._indices[start:stop], self._indptr[low : high + 1] - start)
        block = sparse.csr_matrix(tuple(np.asarray(part) for part in read), shape=(high - low, self._n_all))
        return sub_matrix(block, self._columns, rows - low)


class ChosenCells(_KeptRows):
    """Some cells of another source.

    Parameters
    ----------
    source
        All cells.
    rows
        Cells to keep, ascending, ``(n_cells,)``.
    """

    def __init__(self, source: CellSource, rows: NDArray[np.int64]) -> None:
        self._source, self._rows = source, rows

    def nnz_of(self, first: int, last: int) -> int:
        """Counts above 0 of the kept cells ``first`` to ``last`` (excluded) and of those between them."""
        rows = self._rows[first:last]
        return self._source.nnz_of(int(rows[0]), int(rows[-1]) + 1) if len(rows) else 0

    def read(self, first: int, last: int) -> sparse.csr_matrix:
        """Cells ``first`` to ``last`` (excluded) of the kept ones."""
        rows = self._rows[first:last]
        if not len(rows):
            return self._source.read(0, 0)
        return self._source.read(int(rows[0]), int(rows[-1]) + 1)[rows - rows[0]]


def hold_out(source: CellSource, *, share: float, rng: np.random.Generator) -> tuple[ChosenCells, MemoryCells]:
    """Split a slide: the cells that stay, and short runs of cells, drawn at random, that are read into memory."""
    n_runs = -(-source.n_cells // RUN_CELLS)
    n_held = min(max(1, round(share * n_runs)), n_runs - 1)  # a slide of one run is not split
    starts = np.sort(rng.permutation(n_runs)[:n_held]) * RUN_CELLS
    ranges = [(int(start), min(int(start) + RUN_CELLS, source.n_cells)) for start in starts]
    stays = np.ones(source.n_cells, bool)
    for first, last in ranges:
        stays[first:last] = False
    apart = sparse.vstack([source.read(0, 0), *(source.read(*run) for run in ranges)], format="csr")
    return ChosenCells(source, np.flatnonzero(stays)), MemoryCells(apart)


def read_some(source: CellSource, n_cells: int) -> sparse.csr_matrix:
    """About ``n_cells`` cells from all parts of a source, or all of them."""
    if source.n_cells <= n_cells:
        return source.read(0, source.n_cells)
    share = n_cells / source.n_cells
    return hold_out(source, share=share, rng=np.random.default_rng(0))[1].counts


def blocks(source: CellSource) -> list[tuple[int, int]]:
    """Contiguous row ranges of about :data:`BLOCK_NNZ` non-zeros."""
    size = max(1, int(BLOCK_NNZ * source.n_cells / max(source.nnz, 1)))
    return [(first, min(first + size, source.n_cells)) for first in range(0, source.n_cells, size)]


def _array(group: Any, name: str) -> Any:
    return group[name]
