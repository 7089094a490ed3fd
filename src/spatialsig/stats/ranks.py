"""Scores from the ranks of the genes within a cell, straight from CSR counts.

Floor 1, above the ground floor. Used by labels/scorers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from spatialsig.stats.expression import arrays_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.stats.expression import Csr

N_TALLIED = 256  # counts below this are tallied; the few above are compared one by one


def detected_genes(counts: sparse.csr_matrix) -> NDArray[np.int64]:
    """Number of genes with a count in each cell, ``(n_cells,)``."""
    detected: NDArray[np.int64] = _detected(counts.data, counts.indptr)
    return detected


def rank_scores(counts: sparse.csr_matrix, members: NDArray[np.bool_], *, max_rank: int) -> NDArray[np.float32]:
    """UCell scores: the normalised Mann-Whitney U of each signature in each cell (Andreatta and Carmona 2021).

    The genes of a cell are ranked from the highest count down, ties (and all zeros) on their average rank. Ranks above
    ``max_rank`` count as ``max_rank + 1``. With ``n`` genes in the signature and ``U = sum(ranks) - n (n + 1) / 2`` the
    score is ``1 - U / (n max_rank)``, and 0 for a cell where every gene lies above ``max_rank``.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``, not negative. Only the order within a cell matters.
    members
        ``(n_genes, n_signatures)``: which genes belong to which signature.
    max_rank
        At least the size of the largest signature, so that no score is negative.

    Returns
    -------
    ``(n_cells, n_signatures)`` float32 in [0, 1]; NaN for a signature without genes.
    """
    sizes = members.sum(axis=0)
    order = np.nonzero(members)
    start = np.searchsorted(order[0], np.arange(members.shape[0] + 1))
    scores: NDArray[np.float32] = _rank_scores(
        arrays_of(counts), start, order[1], sizes.astype(np.float64), float(max_rank)
    )
    scores[:, sizes == 0] = np.nan
    return scores


@numba.njit(cache=True)
def _detected(data: NDArray[Any], indptr: NDArray[Any]) -> NDArray[np.int64]:
    out = np.zeros(len(indptr) - 1, np.int64)
    for cell in range(len(indptr) - 1):
        for k in range(indptr[cell], indptr[cell + 1]):
            out[cell] += data[k] > 0
    return out


@numba.njit(cache=True)
def _rank_scores(
    csr: Csr, start: NDArray[np.int64], which: NDArray[np.int64], sizes: NDArray[np.float64], max_rank: float
) -> NDArray[np.float32]:
    data, indices, indptr = csr
    n_genes, n_signatures = len(start) - 1, len(sizes)
    out = np.zeros((len(indptr) - 1, n_signatures), np.float32)
    tally, above = np.zeros(N_TALLIED, np.int64), np.zeros(N_TALLIED, np.int64)
    total, seen = np.empty(n_signatures), np.empty(n_signatures, np.bool_)
    for cell in range(len(indptr) - 1):
        row = data[indptr[cell] : indptr[cell + 1]]
        genes = indices[indptr[cell] : indptr[cell + 1]]
        n_detected, highest = _tally(row, tally, above)
        zero_rank = n_detected + (n_genes - n_detected + 1) / 2  # average of the ranks n_detected + 1 to n_genes
        zero = zero_rank if zero_rank <= max_rank else max_rank + 1
        total[:] = sizes * zero
        seen[:] = zero <= max_rank
        for k in range(len(row)):
            gene = genes[k]
            if row[k] > 0 and start[gene] < start[gene + 1]:
                rank = _rank(row[k], row, tally, above)
                for j in range(start[gene], start[gene + 1]):
                    total[which[j]] += (rank if rank <= max_rank else max_rank + 1) - zero
                    seen[which[j]] |= rank <= max_rank
        for s in range(n_signatures):
            if seen[s] and sizes[s] > 0:
                u = total[s] - sizes[s] * (sizes[s] + 1) / 2
                out[cell, s] = 1 - u / (sizes[s] * max_rank)
        tally[: highest + 1] = 0
    return out


@numba.njit(cache=True)
def _tally(row: NDArray[Any], tally: NDArray[np.int64], above: NDArray[np.int64]) -> tuple[int, int]:
    """Fill ``tally[v]``, how often a count occurs, and ``above[v]``, how many are larger; genes seen, highest tallied."""
    n_detected, n_large, highest = 0, 0, 0
    for value in row:
        if value > 0:
            n_detected += 1
            if value < N_TALLIED:
                tally[int(value)] += 1
                highest = max(highest, int(value))
            else:
                n_large += 1
    larger = n_large
    for value in range(highest, 0, -1):
        above[value] = larger
        larger += tally[value]
    return n_detected, highest


@numba.njit(cache=True)
def _rank(value: float, row: NDArray[Any], tally: NDArray[np.int64], above: NDArray[np.int64]) -> float:
    """Average rank of a count among those of its cell, the largest on rank 1."""
    if value < N_TALLIED:
        return float(above[int(value)] + (tally[int(value)] + 1) / 2)
    larger, equal = 0, 0
    for other in row:
        larger += other > value
        equal += other == value
    return larger + (equal + 1) / 2
