"""How good the model is on slides it has never seen, beside everything that could fool the reader."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from spatialsig import _keys
from spatialsig._errors import InputError, SpatialsigWarning
from spatialsig._progress import track
from spatialsig.tl._baselines import simple_predictions
from spatialsig.tl._ceiling import noise_ceiling
from spatialsig.tl._findings import ERROR, findings
from spatialsig.tl._judge import judge
from spatialsig.tl._rows import Request, gather

if TYPE_CHECKING:
    import pandas as pd

    from spatialsig.data.slides import Data
    from spatialsig.models.ensemble import SignatureModel


def evaluate(
    data: Data,
    model: SignatureModel,
    *,
    embedding_key: str | None = None,
    pooled: bool = False,
    seed: int = 0,
    patches_key: str = _keys.PATCHES,
    signatures_key: str = _keys.SIGNATURES,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """Compare the model with simple predictors and the noise ceiling on the fold it has not seen.

    All methods learn from the same training patches and are judged on the same held-out patches, slide by slide:

    - ``he_only``: the model with the H&E alone; ``fused``: with H&E and embedding;
    - ``he_only_permuted``, ``fused_permuted``: the same with the images of a slide shuffled;
    - ``ae_only``, ``embedding``, ``hand_features``, ``colour``, ``density``, ``coordinates``, ``neighbours``,
      ``train_mean``: see :func:`baselines`.

    Every patch is read once. What is wrong with the data or the split, so that the numbers cannot be believed, is warned
    of; :func:`findings` says more.

    Parameters
    ----------
    data
        The cohort the model was trained on; not modified.
    model
        Trained model; its ``test_fold`` is the fold judged.
    embedding_key
        Patch embedding for the ridge baseline ``embedding``: a table with one row per patch, or ``obsm`` of the labels.
    pooled
        Add rows over the patches of all slides together (``sample`` is ``"(all slides)"``), in which differences between
        slides count too.
    seed
        Of the shuffled images and the noise ceiling.
    patches_key, signatures_key, table_key
        Patches, labels, cells.

    Returns
    -------
    One row per method, signature and held-out slide; NaN wherever there are no data for a number:

    - ``method``, ``signature``, ``sample``, ``patient``, ``n_patches``;
    - ``pearson``, ``spearman``, ``r2``, ``mae``, ``ccc`` (concordance), ``calibration_slope`` and
      ``calibration_intercept`` (of the line of labels on predictions);
    - ``ceiling``, ``share_of_ceiling`` (of Pearson r);
    - ``partial_pearson``: r given the number of cells and the log of their mean counts;
    - ``p``: share of all shifts of the prediction over the slide that agree as well with the labels (one-sided),
      ``q``: false discovery rate over the signatures of the same method and slide;
    - ``r_n_cells``, ``r_log_counts``: r of the labels with those two; ``stain_shift``: largest difference in colour to
      the training patches, in their standard deviations.

    Raises
    ------
    InputError
        If the model was trained on every slide, or the test fold holds no labelled patch.

    Warns
    -----
    SpatialsigWarning
        For every finding of severity "error".
    """
    test_fold = model.run.get("test_fold")
    if test_fold is None:
        msg = "the model was trained with `test_fold=None`: no slide is left to judge it on. Train with a test fold."
        raise InputError(msg)
    use_rep = model.run.get("use_rep")
    slides = gather(data, Request(model, test_fold, use_rep, embedding_key, patches_key, signatures_key, seed))
    tested = [rows for rows in slides if rows.test.any()]
    judged = [rows.sample for rows in tested]
    ceiling = noise_ceiling(data, seed=seed, samples=judged, table_key=table_key, signatures_key=signatures_key)
    simple = {rows.sample: simple_predictions(rows, slides) for rows in track(tested, "baselines", unit="slide")}
    predictions = {rows.sample: rows.predicted | simple[rows.sample] for rows in tested}
    result = judge(tested, slides, predictions, ceiling, pooled=pooled)
    found = findings(data, model, result, signatures_key=signatures_key, table_key=table_key)
    for text in found.loc[found["severity"] == ERROR, "text"]:
        warnings.warn(text, SpatialsigWarning, stacklevel=2)
    return result
