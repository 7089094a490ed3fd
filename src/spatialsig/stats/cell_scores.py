"""Scores of cells straight from CSR counts: weighted sums of z-scores, in one pass.

Floor 1, above the ground floor. Used by labels/scorers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np
from scipy.stats import rankdata

from spatialsig.errors import InputError
from spatialsig.stats.expression import arrays_of, depth_of, log1p_of, row_of_logs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.stats.expression import Csr, Depth

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Singles = NDArray[np.float32]


def signature_scores(counts: sparse.csr_matrix, library: Floats, mean: Floats, std: Floats, weights: Floats) -> Singles:
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
    scores: Singles = _scores(arrays_of(counts), depth_of(library), per_gene, offset)
    return scores


@numba.njit(cache=True)
def _scores(csr: Csr, depth: Depth, per_gene: Floats, offset: Floats) -> Singles:
    (data, indices, indptr), (library, factor, logs) = csr, depth
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
def _signatures_of_genes(per_gene: Floats) -> tuple[NDArray[np.uint64], NDArray[np.uint64], Floats]:
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


def control_genes(
    mean: Floats, members: Mask, excluded: Mask, *, n_bins: int, n_controls: int, rng: np.random.Generator
) -> Floats:
    """Draw control genes for each signature from the expression bins of its genes.

    Parameters
    ----------
    mean
        Mean expression of each gene, ``(n_genes,)``.
    members
        Genes of each signature, ``(n_genes, n_signatures)``.
    excluded
        Genes that are no controls, ``(n_genes,)``: on a targeted panel the genes of the other signatures would make up
        much of a bin, and the score of one signature would fall where another is high.
    n_bins
        Number of expression bins of about the same size.
    n_controls
        At most this many controls from every bin.
    rng
        Of the draw.

    Returns
    -------
    Weights ``(n_genes, n_signatures)``: ``1 / n`` at the ``n`` controls of a signature, so that their product with the
    expression is the mean of the controls. A bin without free genes takes those of the nearest bin.

    Raises
    ------
    InputError
        If every gene is excluded.
    """
    if excluded.all():
        msg = f"all {len(mean)} genes belong to a signature, so none is left as control; use `method='zscore'`."
        raise InputError(msg)
    bins = expression_bins(mean, n_bins)
    free = np.unique(bins[~excluded])
    weights = np.zeros(members.shape)
    for column in range(members.shape[1]):
        chosen: set[int] = set()
        for wanted in np.unique(bins[members[:, column]]):
            nearest = free[np.abs(free - wanted).argmin()]
            candidates = np.flatnonzero((bins == nearest) & ~excluded)
            chosen.update(rng.permutation(candidates)[:n_controls].tolist())
        weights[sorted(chosen), column] = 1 / max(len(chosen), 1)
    return weights


def expression_bins(mean: Floats, n_bins: int) -> NDArray[np.int64]:
    """Bin of each gene by the rank of its mean, ``(n_genes,)``, as scanpy's ``score_genes`` cuts them."""
    per_bin = max(int(np.round(len(mean) / (n_bins - 1))), 1)
    bins: NDArray[np.int64] = (rankdata(mean, method="min") // per_bin).astype(np.int64)
    return bins
