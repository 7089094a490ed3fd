"""Scores of cells straight from CSR counts: weighted sums of z-scores, in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from spatialsig.stats.expression import log1p_of, row_of_logs, size_factors, small_logs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse


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
        counts.data,
        counts.indices,
        counts.indptr,
        library,
        size_factors(library),
        small_logs(library),
        per_gene,
        offset,
    )
    return scores


@numba.njit(cache=True)
def _scores(
    data: NDArray[Any],
    indices: NDArray[Any],
    indptr: NDArray[Any],
    library: NDArray[np.float64],
    factor: NDArray[np.float64],
    logs: NDArray[np.float64],
    per_gene: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> NDArray[np.float32]:
    n_signatures = per_gene.shape[1]
    start, which, weight = _signatures_of_genes(per_gene)
    used = start[1:] > start[:-1]
    out = np.empty((len(indptr) - 1, n_signatures), np.float32)
    row = np.empty(n_signatures)
    hits = np.empty(np.max(np.diff(indptr)) + 1 if len(indptr) > 1 else 1, np.uint64)
    for cell in range(len(indptr) - 1):
        # first pick the few values that matter, without a branch the processor would mispredict
        n_hits = 0
        for k in range(np.uint64(indptr[cell]), np.uint64(indptr[cell + 1])):
            hits[n_hits] = k
            n_hits += used[np.uint32(indices[k])]
        small = logs[row_of_logs(library[cell], factor[cell], logs)]
        row[:] = offset
        for hit in range(n_hits):
            gene = np.uint32(indices[hits[hit]])
            value = log1p_of(data[hits[hit]], factor[cell], small)
            for j in range(start[gene], start[gene + 1]):
                row[which[j]] += value * weight[j]
        for s in range(n_signatures):
            out[cell, s] = row[s]
    return out


@numba.njit(cache=True)
def _signatures_of_genes(
    per_gene: NDArray[np.float64],
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.float64]]:
    """Signatures that gene ``g`` weighs in, ``which[start[g] : start[g + 1]]``, and its weights."""
    start = np.zeros(per_gene.shape[0] + 1, np.uint64)
    which, weight = np.empty(per_gene.size, np.uint64), np.empty(per_gene.size)
    for gene in range(per_gene.shape[0]):
        start[gene + 1] = start[gene]
        for s in range(per_gene.shape[1]):
            if per_gene[gene, s] != 0:
                which[start[gene + 1]], weight[start[gene + 1]] = s, per_gene[gene, s]
                start[gene + 1] += np.uint64(1)
    return start, which, weight
