"""Simple predictors that a model has to beat, each fitted on training rows only."""

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
    """Ridge regression of every target on ``x``; penalty by leave-one-out. ``(n_test, n_targets)``."""
    return _by_target(lambda: make_pipeline(StandardScaler(), RidgeCV(PENALTIES)), x, y, x_test)


def nearest_neighbours(x: NDArray[Any], y: NDArray[Any], x_test: NDArray[Any]) -> NDArray[np.float64]:
    """Mean target of the ten nearest training rows, ``(n_test, n_targets)``."""
    k = min(N_NEIGHBOURS, len(x))
    return _by_target(lambda: KNeighborsRegressor(k), x, y, x_test)


def _by_target(make_model: Any, x: NDArray[Any], y: NDArray[Any], x_test: NDArray[Any]) -> NDArray[np.float64]:
    """Fit each target on the rows where it is measured; NaN where it never is, or where an input is missing."""
    out = np.full((len(x_test), y.shape[1]), np.nan)
    usable, usable_test = np.isfinite(x).all(axis=1), np.isfinite(x_test).all(axis=1)
    for target in range(y.shape[1]):
        rows = usable & np.isfinite(y[:, target])
        if rows.sum() > N_NEIGHBOURS and usable_test.any():
            model = make_model().fit(x[rows], y[rows, target])
            out[usable_test, target] = model.predict(x_test[usable_test])
    return out
