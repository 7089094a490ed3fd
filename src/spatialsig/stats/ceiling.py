"""The best correlation a perfect predictor could reach, given that the labels come from few counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray


def split_counts(
    counts: sparse.csr_matrix, *, seed: int | np.random.Generator
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Deal every molecule to one of two halves by a fair coin: two independent measurements of the same cells.

    Both keep the entries of ``counts``, zeros that stand for nothing included, and share its indices. A generator as
    ``seed`` is drawn from where it stands.
    """
    rng = np.random.default_rng(seed)
    first = rng.binomial(np.rint(counts.data).astype(np.int64), 0.5).astype(np.float32)
    halves = (first, counts.data.astype(np.float32) - first)
    one, two = (sparse.csr_matrix((half, counts.indices, counts.indptr), shape=counts.shape) for half in halves)
    return one, two


def ceiling_from_halves(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Noise ceiling from the correlation of the two halves.

    Spearman-Brown gives the reliability of the whole, ``2 r / (1 + r)``; its square root is the largest correlation
    that any prediction can have with the measured labels. 0 where the halves do not agree at all.
    """
    positive = np.clip(r, 0, 1)
    return np.where(np.isnan(r), np.nan, np.sqrt(2 * positive / (1 + positive)))
