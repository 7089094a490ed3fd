"""Simple predictors on the folds of the model: what can be had without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._progress import track
from spatialsig.stats.baselines import nearest_neighbours, neighbour_mean, ridge
from spatialsig.tl._ceiling import noise_ceiling
from spatialsig.tl._judge import judge
from spatialsig.tl._rows import Request, gather

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from spatialsig.data.slides import Data
    from spatialsig.tl._rows import Rows

# method: feature block it is fitted on
RIDGES = {
    "ae_only": "ae",
    "embedding": "embedding",
    "hand_features": "hand",
    "colour": "colour",
    "density": "density",
}


def baselines(
    data: Data,
    *,
    test_fold: int = 0,
    use_rep: str | None = None,
    embedding_key: str | None = None,
    pooled: bool = False,
    seed: int = 0,
    patches_key: str = _keys.PATCHES,
    signatures_key: str = _keys.SIGNATURES,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """Judge predictors that need no training worth the name, before (or without) a model.

    - ``hand_features``: ridge regression on 42 numbers of colour, texture and nuclei of the H&E; ``colour`` on six,
      ``density`` on two of nuclear density;
    - ``ae_only``: ridge regression on the expression embedding ``use_rep``; ``embedding``: on ``embedding_key``, such as
      the features of a pathology backbone;
    - ``coordinates``: nearest neighbours by position; above 0.05 the split leaks;
    - ``neighbours``: mean *measured* label of the eight patches around; what smoothing alone buys, not a predictor;
    - ``train_mean``: the mean of the training patches.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort, with folds and labels; not modified.
    test_fold
        Fold judged; the others are learned from.
    use_rep
        Expression embedding in ``tables[signatures_key].obsm``; ``None`` leaves ``ae_only`` out.
    embedding_key
        Table with one row per patch, or ``obsm`` of the labels; ``None`` leaves ``embedding`` out.
    pooled
        Add rows over the patches of all slides together.
    seed
        Of the noise ceiling.
    patches_key, signatures_key, table_key
        Patches, labels, cells.

    Returns
    -------
    As :func:`evaluate`.

    Raises
    ------
    InputError
        If the test fold holds no labelled patch, or nothing is left to train on.
    KeyMissingError
        If the slides have no folds, labels or embeddings.
    """
    request = Request(None, test_fold, use_rep, embedding_key, patches_key, signatures_key, seed)
    slides = gather(data, request)
    tested = [rows for rows in slides if rows.test.any()]
    judged = [rows.sample for rows in tested]
    ceiling = noise_ceiling(data, seed=seed, samples=judged, table_key=table_key, signatures_key=signatures_key)
    predictions = {rows.sample: simple_predictions(rows, slides) for rows in track(tested, "baselines", unit="slide")}
    return judge(tested, slides, predictions, ceiling, pooled=pooled)


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
    known = np.isfinite(targets)
    total, n = np.where(known, targets, 0.0).sum(axis=0, dtype=np.float64), known.sum(axis=0)
    return np.asarray(np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0))


def _by_coordinates(rows: Rows, trained: list[Rows]) -> NDArray[np.float64]:
    """Neighbours on the slide itself where the split lets training patches lie on it: that is the leak to detect."""
    known = [rows] if rows.train.any() else trained
    targets = np.concatenate([s.targets[s.train] for s in known])
    return nearest_neighbours(np.concatenate([s.position[s.train] for s in known]), targets, rows.position[rows.test])
