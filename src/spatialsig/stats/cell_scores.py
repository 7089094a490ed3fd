"""Scores of cells straight from CSR counts: weighted sums of z-scores, in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from spatialsig.stats.expression import N_SMALL, size_factors

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
        counts.data, counts.indices, counts.indptr, size_factors(library), per_gene, offset
    )
    return scores


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
    start, which, weight = _signatures_of_genes(per_gene)
    used = start[1:] > start[:-1]
    out = np.empty((len(indptr) - 1, n_signatures), np.float32)
    row, small = np.empty(n_signatures), np.empty(N_SMALL)
    hits = np.empty(np.max(np.diff(indptr)) + 1 if len(indptr) > 1 else 1, np.uint64)
    for cell in range(len(indptr) - 1):
        # first pick the few values that matter, without a branch the processor would mispredict
        n_hits = 0
        for k in range(np.uint64(indptr[cell]), np.uint64(indptr[cell + 1])):
            hits[n_hits] = k
            n_hits += used[np.uint32(indices[k])]
        tabled = n_hits > N_SMALL  # many genes: take the logarithms of the small counts once
        if tabled:
            for count in range(N_SMALL):
                small[count] = np.log1p(count * factor[cell])
        row[:] = offset
        for hit in range(n_hits):
            k = hits[hit]
            gene = np.uint32(indices[k])
            place = np.uint8(data[k]) if 0 <= data[k] < N_SMALL else np.uint8(0)
            value = small[place] if tabled and place == data[k] else np.log1p(data[k] * factor[cell])
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
