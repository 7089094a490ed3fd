"""Normalised expression straight from CSR counts: no dense matrix of a slide, sums in float64.

The normalisation is ``x = log1p(1e4 * count / library)`` throughout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

TARGET_SUM = 1e4


def library_size(counts: sparse.csr_matrix) -> NDArray[np.float64]:
    """Counts per cell over all columns of ``counts``, ``(n_cells,)``."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()


def size_factors(library: NDArray[np.float64]) -> NDArray[np.float64]:
    """``1e4 / library``; 1e4 for an empty cell, whose counts are all zero anyway."""
    return TARGET_SUM / np.maximum(library, 1.0)


def log1p_cp10k(counts: sparse.csr_matrix, library: NDArray[np.float64]) -> sparse.csr_matrix:
    """Normalise counts per cell; same sparsity as the input, float32."""
    per_value = np.repeat(size_factors(library), np.diff(counts.indptr))
    values = np.log1p(counts.data * per_value).astype(np.float32)
    return sparse.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)


def gene_moments(
    counts: sparse.csr_matrix, library: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and sum of squares of the normalised expression of every gene, each ``(n_genes,)``, in one pass."""
    factor = size_factors(library)
    moments: tuple[NDArray[np.float64], NDArray[np.float64]] = _moments(
        counts.data, counts.indices, counts.indptr, factor, counts.shape[1]
    )
    return moments


def scaler_from_moments(
    total: NDArray[np.float64], squares: NDArray[np.float64], n_cells: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation per gene, each ``(n_genes,)``, from the pooled sums of :func:`gene_moments`.

    A gene that never varies gets a standard deviation of 1: its z-score is 0 for every cell, whatever divides it.
    """
    mean = total / n_cells
    std = np.sqrt(np.maximum(squares / n_cells - mean**2, 0))
    return mean, np.where(std > 0, std, 1.0)


def zscore_dense(
    counts: sparse.csr_matrix, library: NDArray[np.float64], mean: NDArray[Any], std: NDArray[Any]
) -> NDArray[np.float32]:
    """Dense z-scores ``(n_cells, n_genes)`` of a batch of cells under a fitted scaler."""
    start = (-np.asarray(mean, np.float64) / std).astype(np.float32)
    dense = np.broadcast_to(start, counts.shape).copy()
    _add_scaled(counts.data, counts.indices, counts.indptr, size_factors(library), np.asarray(std, np.float64), dense)
    return dense


def signature_scores(
    counts: sparse.csr_matrix,
    library: NDArray[np.float64],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Score every cell for every signature: the weighted sum of its z-scores.

    Parameters
    ----------
    counts
        Cells by genes, ``(n_cells, n_genes)``.
    library
        Counts per cell, ``(n_cells,)``.
    mean, std
        Scaler of the normalised expression, ``(n_genes,)``.
    weights
        ``(n_genes, n_signatures)``; ``1 / n`` at the ``n`` genes of a signature gives the mean z-score.

    Returns
    -------
    ``(n_cells, n_signatures)`` float32. Memory beyond it is that of ``weights``.
    """
    per_gene = np.ascontiguousarray(weights / std[:, None])
    offset = -(mean[:, None] * per_gene).sum(axis=0)
    scores: NDArray[np.float32] = _scores(
        counts.data, counts.indices, counts.indptr, size_factors(library), per_gene, offset
    )
    return scores


@numba.njit(cache=True)
def _moments(
    data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any], factor: NDArray[np.float64], n_genes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    total = np.zeros(n_genes)
    squares = np.zeros(n_genes)
    for cell in range(len(indptr) - 1):
        for k in range(indptr[cell], indptr[cell + 1]):
            value = np.log1p(data[k] * factor[cell])
            total[indices[k]] += value
            squares[indices[k]] += value * value
    return total, squares


@numba.njit(cache=True)
def _add_scaled(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    factor: NDArray[np.float64],
    std: NDArray[np.float64],
    out: NDArray[np.float32],
) -> None:
    for cell in range(len(indptr) - 1):
        for k in range(indptr[cell], indptr[cell + 1]):
            gene = indices[k]
            out[cell, gene] += np.log1p(data[k] * factor[cell]) / std[gene]


@numba.njit(cache=True)
def _scores(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    factor: NDArray[np.float64],
    per_gene: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> NDArray[np.float32]:
    n_signatures = per_gene.shape[1]
    used = np.zeros(per_gene.shape[0], np.bool_)
    for gene in range(per_gene.shape[0]):
        used[gene] = np.any(per_gene[gene] != 0)
    out = np.empty((len(indptr) - 1, n_signatures), np.float32)
    row = np.empty(n_signatures)
    for cell in range(len(indptr) - 1):
        row[:] = offset
        for k in range(indptr[cell], indptr[cell + 1]):
            gene = indices[k]
            if used[gene]:
                value = np.log1p(data[k] * factor[cell])
                for s in range(n_signatures):
                    row[s] += value * per_gene[gene, s]
        for s in range(n_signatures):
            out[cell, s] = row[s]
    return out
