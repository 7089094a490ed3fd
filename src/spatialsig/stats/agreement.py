"""How well predictions agree with measurements, one column at a time; NaN pairs are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_PATCHES = 10  # fewer pairs give no correlation worth a number


def agreement(measured: NDArray[Any], predicted: NDArray[Any], *, n_min: int = MIN_PATCHES) -> dict[str, float]:
    """Pearson r, Spearman rho, R² and mean absolute error of one target, and the number of pairs.

    Everything but ``n_patches`` is NaN with fewer than ``n_min`` pairs or constant measurements. A constant prediction
    explains nothing and scores a correlation of 0.
    """
    keep = np.isfinite(measured) & np.isfinite(predicted)
    truth = np.asarray(measured, np.float64)[keep]
    guess = np.asarray(predicted, np.float64)[keep]
    result = dict.fromkeys(("pearson", "spearman", "r2", "mae"), np.nan) | {"n_patches": float(keep.sum())}
    if len(truth) < n_min or _constant(truth):
        return result
    result["mae"] = float(np.abs(truth - guess).mean())
    result["r2"] = float(1 - ((truth - guess) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
    flat = _constant(guess)
    result["pearson"] = 0.0 if flat else float(np.corrcoef(truth, guess)[0, 1])
    result["spearman"] = 0.0 if flat else float(stats.spearmanr(truth, guess).statistic)
    return result


def pearson(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Pearson r of each pair of columns, ``(d,)``, over the rows where both are finite."""
    return np.array([agreement(x, y, n_min=3)["pearson"] for x, y in zip(a.T, b.T, strict=True)])


def _constant(values: NDArray[np.float64]) -> bool:
    return bool(np.ptp(values) <= 1e-12 * max(1.0, float(np.abs(values).max())))
