"""Simple predictors that a model has to beat, each fitted on training rows only.

Floor 1, above the ground floor. Used by 5 modules of evaluation, referee, tl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    from numpy.typing import NDArray

PENALTIES = np.logspace(-2, 4, 13)
N_NEIGHBOURS = 10


def ridge(x: NDArray[Any], y: NDArray[Any], x_test: NDArray[Any]) -> NDArray[np.float64]:
    """Ridge regression of every target on ``x``, each with its own penalty by leave-one-out. ``(n_test, n_targets)``."""
    return _by_target(lambda: make_pipeline(StandardScaler(), RidgeCV(PENALTIES, alpha_per_target=True)), x, y, x_test)


def nearest_neighbours(x: NDArray[Any], y: NDArray[Any], x_test: NDArray[Any]) -> NDArray[np.float64]:
    """Mean target of the ten nearest training rows, ``(n_test, n_targets)``."""
    k = min(N_NEIGHBOURS, len(x))
    return _by_target(lambda: KNeighborsRegressor(k), x, y, x_test)


def neighbour_mean(
    y: NDArray[Any], row: NDArray[np.int64], col: NDArray[np.int64], *, step: int
) -> NDArray[np.float64]:
    """Mean target of the up to eight patches around each one, ``(n, n_targets)``; NaN where none is measured.

    What smoothing alone buys: it reads the labels it is judged on. ``step`` is the number of grid cells to the next patch
    that does not overlap, so that no cell is shared.
    """
    row, col = row - row.min() + step, col - col.min() + step
    grid = np.full((row.max() + step + 1, col.max() + step + 1, y.shape[1]), np.nan)
    grid[row, col] = y
    offsets = [(dy, dx) for dy in (-step, 0, step) for dx in (-step, 0, step) if (dy, dx) != (0, 0)]
    around = np.stack([grid[row + dy, col + dx] for dy, dx in offsets])
    known = np.isfinite(around)
    total, n = np.where(known, around, 0.0).sum(axis=0), known.sum(axis=0)
    return np.asarray(np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0))


def _by_target(make_model: Any, x: NDArray[Any], y: NDArray[Any], x_test: NDArray[Any]) -> NDArray[np.float64]:
    """Fit each target on the rows where it is measured; NaN where it never is, or where an input is missing.

    Targets measured on the same rows are fitted together.
    """
    out = np.full((len(x_test), y.shape[1]), np.nan)
    usable, usable_test = np.isfinite(x).all(axis=1), np.isfinite(x_test).all(axis=1)
    if not usable_test.any():
        return out
    patterns, of_target = np.unique(np.isfinite(y) & usable[:, None], axis=1, return_inverse=True)
    for k, rows in enumerate(patterns.T):
        targets = np.flatnonzero(of_target.ravel() == k)
        if rows.sum() > N_NEIGHBOURS:
            model = make_model().fit(x[rows], y[np.ix_(rows, targets)])
            out[np.ix_(usable_test, targets)] = model.predict(x_test[usable_test]).reshape(-1, len(targets))
    return out
