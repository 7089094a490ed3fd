"""Simple predictors on the folds of a model: ridges on a few features, neighbours, coordinates, the mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig.stats.baselines import nearest_neighbours, neighbour_mean, ridge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.evaluation.rows import Rows

# method: feature block it is fitted on
RIDGES = {
    "ae_only": "ae",
    "embedding": "embedding",
    "hand_features": "hand",
    "colour": "colour",
    "density": "density",
}


def simple_predictions(rows: Rows, slides: list[Rows]) -> dict[str, NDArray[np.float64]]:
    """Scores ``(n_test, n_signatures)`` of every baseline on the test rows of one slide."""
    test, trained = rows.test, [s for s in slides if s.train.any()]
    targets = np.concatenate([s.targets[s.train] for s in trained])
    predictions = {
        method: ridge(_training(trained, block), targets, rows.features[block][test])
        for method, block in RIDGES.items()
        if block in rows.features
    }
    predictions["coordinates"] = _by_coordinates(rows, trained)
    predictions["neighbours"] = neighbour_mean(rows.targets[test], rows.row[test], rows.col[test], step=rows.step)
    predictions["train_mean"] = np.broadcast_to(_mean(targets), (int(test.sum()), targets.shape[1]))
    return predictions


def _training(slides: list[Rows], block: str) -> NDArray[np.floating]:
    return np.concatenate([s.features[block][s.train] for s in slides])


def _mean(targets: NDArray[np.float32]) -> NDArray[np.float64]:
    measured = np.isfinite(targets)
    total, n = np.where(measured, targets, 0.0).sum(axis=0, dtype=np.float64), measured.sum(axis=0)
    return np.asarray(np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0))


def _by_coordinates(rows: Rows, trained: list[Rows]) -> NDArray[np.float64]:
    """Neighbours on the slide itself where the split lets training patches lie on it: that is the leak to detect."""
    nearby = [rows] if rows.train.any() else trained
    targets = np.concatenate([s.targets[s.train] for s in nearby])
    return nearest_neighbours(np.concatenate([s.position[s.train] for s in nearby]), targets, rows.position[rows.test])
