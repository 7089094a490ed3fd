"""Statistics of the cells of a patch, and their standard errors.

Floor 5, above slide. Used by evaluation/ceiling, evaluation/squares, labels/patch_labels, tl/_aggregate.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.labels.scorers import scores_under
from spatialsig.stats.grouped import (
    grouped_count,
    grouped_fraction,
    grouped_mean,
    grouped_median,
    grouped_sem,
    grouped_sum,
    grouped_trimmed_mean,
    pseudobulk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from scipy import sparse

_SIMPLE: dict[str, Callable[..., NDArray[Any]]] = {
    "mean": grouped_mean,
    "median": grouped_median,
    "sum": grouped_sum,
    "fraction": grouped_fraction,
    "count": grouped_count,
}
PSEUDOBULK = "pseudobulk"
STATISTICS = (*_SIMPLE, "trimmed_mean", PSEUDOBULK)


def statistic(
    values: NDArray[Any], membership: sparse.csr_matrix, *, stat: str, trim: float = 0.0
) -> NDArray[np.float64]:
    """``stat`` of the cells of each patch, ``(n_patches, d)``, of values ``(n_cells, d)``."""
    if stat == "trimmed_mean":
        return grouped_trimmed_mean(values, membership, trim=trim)
    return np.asarray(_SIMPLE[stat](values, membership), np.float64)


def standard_error(values: NDArray[Any], membership: sparse.csr_matrix, *, stat: str) -> NDArray[np.float64]:
    """Standard error of a sum or a fraction, 0 for a count, and that of the mean for any other statistic.

    ``(n_patches, d)``; NaN below two values, except for a count.
    """
    if stat == "fraction":
        numbers = np.asarray(values, np.float64)
        return grouped_sem(np.where(np.isnan(numbers), np.nan, numbers > 0), membership)
    sem = grouped_sem(values, membership)
    if stat == "count":
        return np.zeros_like(sem)
    return sem * grouped_count(values, membership) if stat == "sum" else sem


def score_labels(
    scores: NDArray[np.float32], membership: sparse.csr_matrix, *, stat: str, trim: float = 0.0
) -> NDArray[np.float64]:
    """Labels ``(n_patches, n_signatures)`` from scores of the cells; NaN where a signature is not measured."""
    labels = statistic(scores, membership, stat=stat, trim=trim)
    labels[:, np.isnan(scores).all(axis=0)] = np.nan  # a sum or a count of nothing is 0, not a label
    return labels


def pseudobulk_labels(
    scored: Mapping[str, Any], blocks: Iterable[tuple[slice, sparse.csr_matrix]], membership: sparse.csr_matrix
) -> NDArray[np.float64]:
    """Labels ``(n_patches, n_signatures)``: scores of the counts of each patch added up.

    ``blocks`` are rows and their counts on ``scored["genes"]``.
    """
    bulk = reduce(add, (pseudobulk(counts, membership[rows]) for rows, counts in blocks))
    return scores_under(scored, bulk).astype(np.float64)
