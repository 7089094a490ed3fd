"""Metrics of a model on slides it has never seen, beside everything that could fool the reader."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from spatialsig import _keys
from spatialsig.errors import SpatialsigWarning
from spatialsig.evaluation.evaluate import evaluate_model
from spatialsig.evaluation.schema import ERROR

if TYPE_CHECKING:
    import pandas as pd

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.slide.slides import Data


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
    """Evaluate a model on the fold it has not seen, beside simple predictors and the noise ceiling.

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
    - ``pearson``, ``spearman``, ``r2``, ``mae``, ``ccc`` (concordance [1]_), ``calibration_slope`` and
      ``calibration_intercept`` (of the line of labels on predictions);
    - ``ceiling`` [4]_, ``share_of_ceiling`` (of Pearson r);
    - ``partial_pearson``: r given the number of cells and the log of their mean counts;
    - ``p``: share of all shifts [2]_ of the prediction over the slide that agree as well with the labels (one-sided),
      ``q``: false discovery rate [3]_ over the signatures of the same method and slide;
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

    References
    ----------
    .. [1] Lin LI. A concordance correlation coefficient to evaluate reproducibility. Biometrics 45, 255-268 (1989).
       https://doi.org/10.2307/2532051
    .. [2] Mrkvička T, Dvořák J, González JA, Mateu J. Revisiting the random shift approach for testing in spatial
       statistics. Spatial Statistics 42, 100430 (2021). https://doi.org/10.1016/j.spasta.2020.100430
    .. [3] Benjamini Y, Hochberg Y. Controlling the false discovery rate: a practical and powerful approach to multiple
       testing. Journal of the Royal Statistical Society B 57, 289-300 (1995).
       https://doi.org/10.1111/j.2517-6161.1995.tb02031.x
    .. [4] Spearman C. Correlation calculated from faulty data. British Journal of Psychology 3, 271-295 (1910).
       https://doi.org/10.1111/j.2044-8295.1910.tb00206.x

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> model = sp.datasets.toy_model(sdata)
    >>> table = sp.tl.evaluate(sdata, model)
    >>> table.query("method == 'he_only'")["signature"].nunique()
    6
    """
    table, findings = evaluate_model(
        data,
        model,
        embedding_key=embedding_key,
        pooled=pooled,
        seed=seed,
        patches_key=patches_key,
        signatures_key=signatures_key,
        table_key=table_key,
    )
    for finding in findings:
        if finding.severity == ERROR:
            warnings.warn(finding.text, SpatialsigWarning, stacklevel=2)
    return table
