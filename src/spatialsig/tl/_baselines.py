"""Simple predictors evaluated on the folds of a cohort: what can be had without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig import _keys
from spatialsig._progress import track
from spatialsig.evaluation.evaluate import simple_predictions
from spatialsig.evaluation.metrics import evaluation_table
from spatialsig.evaluation.rows import Request, gather

if TYPE_CHECKING:
    import pandas as pd

    from spatialsig.slide.slides import Data


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
    """Evaluate simple predictors on the labels of a cohort, before (or without) a model.

    - ``hand_features``: ridge regression [1]_ on 42 numbers of colour, texture and nuclei of the H&E; ``colour`` on
      six, ``density`` on two of nuclear density;
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
    As :func:`evaluate`; ``p`` is of shifted maps [2]_, ``q`` the false discovery rate [3]_.

    Raises
    ------
    InputError
        If the test fold holds no labelled patch, or nothing is left to train on.
    KeyMissingError
        If the slides have no folds, labels or embeddings.

    References
    ----------
    .. [1] Hoerl AE, Kennard RW. Ridge regression: biased estimation for nonorthogonal problems. Technometrics 12, 55-67
       (1970). https://doi.org/10.1080/00401706.1970.10488634
    .. [2] Mrkvička T, Dvořák J, González JA, Mateu J. Revisiting the random shift approach for testing in spatial
       statistics. Spatial Statistics 42, 100430 (2021). https://doi.org/10.1016/j.spasta.2020.100430
    .. [3] Benjamini Y, Hochberg Y. Controlling the false discovery rate: a practical and powerful approach to multiple
       testing. Journal of the Royal Statistical Society B 57, 289-300 (1995).
       https://doi.org/10.1111/j.2517-6161.1995.tb02031.x

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> table = sp.tl.baselines(sdata)
    >>> sorted(table["method"].unique())
    ['colour', 'coordinates', 'density', 'hand_features', 'neighbours', 'train_mean']
    """
    request = Request(None, test_fold, use_rep, embedding_key, patches_key, signatures_key, table_key, seed)
    slides = gather(data, request)
    tested = [rows for rows in slides if rows.test.any()]
    predictions = {rows.sample: simple_predictions(rows, slides) for rows in track(tested, "baselines", unit="slide")}
    return evaluation_table(tested, slides, predictions, pooled=pooled)
