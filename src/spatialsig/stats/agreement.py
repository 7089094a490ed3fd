"""Correlation and error of predictions against measurements, one column at a time, and the best that noisy labels allow.

Floor 1, above the ground floor. Used by 16 modules of evaluation, inference, maps, pl, referee, stats, tl, train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse, stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_PATCHES = 10  # fewer pairs give no correlation worth a number
METRICS = ("pearson", "spearman", "r2", "mae", "ccc", "calibration_slope", "calibration_intercept")


def agreement(measured: NDArray[Any], predicted: NDArray[Any], *, n_min: int = MIN_PATCHES) -> dict[str, float]:
    """Agreement of the predictions of one target with its measurements, both ``(n,)``.

    Returns
    -------
    ``pearson``, ``spearman``, ``r2``, ``mae``; ``ccc``, Lin's concordance (1 only on the diagonal);
    ``calibration_slope`` and ``calibration_intercept`` of the line of the measurements on the predictions (1 and 0 for
    calibrated ones; NaN for a constant prediction); ``n_patches``, the number of pairs. Everything but ``n_patches`` is
    NaN with fewer than ``n_min`` pairs or constant measurements. A constant prediction explains nothing and scores a
    correlation of 0.
    """
    keep = np.isfinite(measured) & np.isfinite(predicted)
    truth = np.asarray(measured, np.float64)[keep]
    guess = np.asarray(predicted, np.float64)[keep]
    result = dict.fromkeys(METRICS, np.nan) | {"n_patches": float(keep.sum())}
    if len(truth) < max(n_min, 1) or is_constant(truth):
        return result
    flat = is_constant(guess)
    covariance = 0.0 if flat else float(((truth - truth.mean()) * (guess - guess.mean())).mean())
    result["mae"] = float(np.abs(truth - guess).mean())
    result["r2"] = float(1 - ((truth - guess) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
    result["ccc"] = 2 * covariance / float(truth.var() + guess.var() + (truth.mean() - guess.mean()) ** 2)
    result["pearson"] = 0.0 if flat else float(np.corrcoef(truth, guess)[0, 1])
    result["spearman"] = 0.0 if flat else float(stats.spearmanr(truth, guess).statistic)
    if not flat:
        result["calibration_slope"] = covariance / float(guess.var())
        result["calibration_intercept"] = float(truth.mean() - result["calibration_slope"] * guess.mean())
    return result


def partial_pearson(
    measured: NDArray[Any], predicted: NDArray[Any], given: NDArray[Any], *, n_min: int = MIN_PATCHES
) -> float:
    """Pearson r of two columns ``(n,)`` after a linear fit on ``given`` ``(n, d)`` is taken off both.

    NaN with fewer than ``n_min`` complete rows beyond the ``d`` columns, or where nothing is left of the measurements; 0
    where nothing is left of the predictions.
    """
    keep = np.isfinite(measured) & np.isfinite(predicted) & np.isfinite(given).all(axis=1)
    if keep.sum() < n_min + given.shape[1]:
        return np.nan
    both = np.stack([measured[keep], predicted[keep]], axis=1).astype(np.float64)
    basis = _standardised(np.asarray(given, np.float64)[keep])
    design = np.concatenate([np.ones((len(both), 1)), basis], axis=1)
    left = both - design @ np.linalg.lstsq(design, both, rcond=None)[0]
    spread = left.std(axis=0)
    gone = spread <= 1e-9 * np.abs(both).max(axis=0)  # nothing but rounding
    if gone[0]:
        return np.nan
    return 0.0 if gone[1] else float((left[:, 0] * left[:, 1]).mean() / spread.prod())


def pearson(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Pearson r of each pair of columns, ``(d,)``, over the rows where both are finite.

    NaN below three rows or where a column of ``a`` is constant, 0 where one of ``b`` is.
    """
    return np.array([_pearson(x, y) for x, y in zip(a.T, b.T, strict=True)])


def is_constant(values: NDArray[np.float64]) -> bool:
    """Whether all values are the same but for rounding."""
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))


def _pearson(measured: NDArray[Any], predicted: NDArray[Any]) -> float:
    keep = np.isfinite(measured) & np.isfinite(predicted)
    truth, guess = np.asarray(measured, np.float64)[keep], np.asarray(predicted, np.float64)[keep]
    if len(truth) < 3 or is_constant(truth):
        return np.nan
    return 0.0 if is_constant(guess) else float(np.corrcoef(truth, guess)[0, 1])


def _standardised(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = columns.std(axis=0)
    scaled: NDArray[np.float64] = (columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return scaled


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
