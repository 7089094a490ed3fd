"""Rows of a CSR matrix of counts as dense batches: what an autoencoder reads, made as fast as memory can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from spatialsig.stats.expression import size_factors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

_SMALL = 8  # counts below it are most of the non-zeros: their logarithm is taken once per cell


def zscore_rows(
    counts: sparse.csr_matrix,
    rows: NDArray[np.int64],
    library: NDArray[np.float64],
    mean: NDArray[Any],
    std: NDArray[Any],
) -> NDArray[np.float32]:
    """Dense z-scores of chosen cells under a fitted scaler.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)`` raw counts.
    rows
        ``(b,)`` cells to take, in any order.
    library
        Counts per cell, ``(n_cells,)``.
    mean, std
        Scaler of ``log1p(1e4 * count / library)``, ``(n_genes,)``.

    Returns
    -------
    ``(b, n_genes)`` float32.
    """
    scale = 1.0 / np.asarray(std, np.float64)
    base = (-np.asarray(mean, np.float64) * scale).astype(np.float32)
    out = np.empty((len(rows), counts.shape[1]), np.float32)
    factor = size_factors(library[rows])
    _zscore(counts.data, counts.indices, counts.indptr, np.asarray(rows, np.int64), factor, base, scale, out)
    return out


def dense_rows(counts: sparse.csr_matrix, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Counts of chosen cells, ``(b, n_genes)`` float32."""
    out = np.zeros((len(rows), counts.shape[1]), np.float32)
    _dense(counts.data, counts.indices, counts.indptr, np.asarray(rows, np.int64), out)
    return out


@numba.njit(cache=True, nogil=True)
def _zscore(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    rows: NDArray[np.int64],
    factor: NDArray[np.float64],
    base: NDArray[np.float32],
    scale: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    small = np.empty(_SMALL)
    for i in range(len(rows)):
        out[i] = base
        for count in range(_SMALL):
            small[count] = -1.0
        for k in range(indptr[rows[i]], indptr[rows[i] + 1]):
            value, gene = data[k], indices[k]
            count = int(value)
            if 0 < count < _SMALL and count == value:
                if small[count] < 0:
                    small[count] = np.log1p(count * factor[i])
                logged = small[count]
            else:
                logged = np.log1p(value * factor[i])
            out[i, gene] += logged * scale[gene]


@numba.njit(cache=True, nogil=True)
def _dense(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    rows: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    for i in range(len(rows)):
        for k in range(indptr[rows[i]], indptr[rows[i] + 1]):
            out[i, indices[k]] += data[k]
