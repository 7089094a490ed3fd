"""Metrics of a model on slides it has never seen, beside everything that could fool the reader.

Floor 7, above evaluation. Called as sp.tl.baselines, sp.tl.evaluate, sp.tl.findings; used by 2 modules of 2 rooms.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, Natural, Seed, checked
from spatialsig._checks import check_key, first_few, warn
from spatialsig.errors import InputError
from spatialsig.evaluation.evaluate import all_findings, evaluate_model, evaluate_request, findings_table
from spatialsig.evaluation.findings_slides import slide_facts
from spatialsig.evaluation.rows import Request
from spatialsig.evaluation.schema import ERROR, slide_rows
from spatialsig.models.card import RESULTS, results_of
from spatialsig.models.ensemble import SignatureModel
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, open_slides


@checked
@needs_cells
def evaluate(
    data: Data,
    model: SignatureModel,
    *,
    embedding_key: Key | None = None,
    pooled: bool = False,
    seed: Seed = 0,
    device: str | None = None,
    run_dir: AnyPath | None = None,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    table_key: Key = _keys.TABLE,
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
    device
        Where the network computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``; None takes
        ``sp.settings.device``.
    run_dir
        Directory for what the pixels of each slide say (features and predictions): called again with the same data, model
        and seed, these slides are not read again. None keeps nothing.
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
    - ``p``: share of all shifts [2]_ of the prediction over the slide that agree as well with the labels (one-sided); of
      ``coordinates``, where most held-out patches lie within a patch of one that trains, the p-value of exchanged patches;
      ``q``: false discovery rate [3]_ over the signatures of the same method and slide;
    - ``r_n_cells``, ``r_log_counts``: r of the labels with those two; ``stain_shift``: largest difference in colour to
      the training patches, in their standard deviations.

    Writes ``model.run["results"]``: means over patients of every method, for the card that ``model.save`` writes.

    Raises
    ------
    LeakageError
        If slides were split by patient, and a patient was renamed so that the test fold shares it with others.
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
    >>> sp.tl.evaluate(sdata, model).query("method == 'he_only'")["signature"].nunique()
    6
    """
    table, faults = evaluate_model(
        data, model, pooled=pooled, embedding_key=embedding_key, seed=seed, device=device,
        run_dir=None if run_dir is None else Path(run_dir), patches_key=patches_key, signatures_key=signatures_key, table_key=table_key,
    )  # fmt: skip
    for finding in faults:
        if finding.severity == ERROR:
            warn(finding.text)
    model.run[RESULTS] = results_of(table)
    return table


@checked
@needs_cells
def baselines(
    data: Data,
    *,
    test_fold: Natural = 0,
    use_rep: Key | None = None,
    embedding_key: Key | None = None,
    pooled: bool = False,
    seed: Seed = 0,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    table_key: Key = _keys.TABLE,
) -> pd.DataFrame:
    """Evaluate simple predictors on the labels of a cohort, before (or without) a model.

    - ``hand_features``: ridge regression [1]_ on 42 numbers of colour, texture and nuclei of the H&E; ``colour`` on
      six, ``density`` on two of nuclear density;
    - ``ae_only``: ridge regression on the expression embedding ``use_rep``; ``embedding``: on ``embedding_key``, such as
      the features of a pathology backbone;
    - ``coordinates``: nearest neighbours by position; above 0.05, and beyond chance, the split leaks;
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
    LeakageError
        As :func:`evaluate`.
    InputError
        If the test fold holds no labelled patch, or nothing is left to train on.
    KeyMissingError
        If the slides have no folds, labels or embeddings.

    References
    ----------
    .. [1] Hoerl AE, Kennard RW. Ridge regression: biased estimation for nonorthogonal problems. Technometrics 12, 55-67
       (1970). https://doi.org/10.1080/00401706.1970.10488634

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> table = sp.tl.baselines(sdata)
    >>> sorted(table["method"].unique())
    ['colour', 'coordinates', 'density', 'hand_features', 'neighbours', 'train_mean']
    """
    request = Request(None, test_fold, use_rep, embedding_key, patches_key, signatures_key, table_key, seed)
    return evaluate_request(data, request, pooled=pooled)[0]


@checked
@needs_cells
def findings(
    data: Data,
    model: SignatureModel | None = None,
    evaluation: pd.DataFrame | None = None,
    *,
    signatures_key: Key = _keys.SIGNATURES,
    table_key: Key = _keys.TABLE,
) -> pd.DataFrame:
    """List the reasons to doubt a result that the slides, the model and its evaluation give.

    Split and patients, genes shared by embedding and labels, steps that looked at the test fold, scales, registration,
    cells outside patches, ties, coverage, control probes; with an evaluation also: position or density that explain it,
    ignored images, a collapsed H&E-only mode, agreement no better than chance, noisy labels, too few patients, a stain
    the model has not seen.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified.
    model
        Trained model; without it, what needs to know the test fold is left out.
    evaluation
        Table of :func:`evaluate` or :func:`baselines`; without it, only the data are looked at.
    signatures_key, table_key
        Labels, cells.

    Returns
    -------
    One row per finding, worst first; empty where nothing was found: ``name``, ``severity`` ("error": the numbers are
    wrong; "warning": they are easily misread; "note"), ``slide`` (empty for the whole cohort), ``text`` (a sentence with
    the numbers, and the fix).

    Raises
    ------
    KeyMissingError
        If a table of another name than the default is on no slide, so that nothing would be found.
    InputError
        If ``evaluation`` judges slides that ``data`` does not hold, or holds no numbers where there should be some.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.tl.findings(sdata)["name"].tolist()
    ['registration_unchecked']
    """
    _check_somewhere(data, signatures_key=signatures_key, table_key=table_key)
    slides = [slide_facts(slide, signatures_key=signatures_key, table_key=table_key) for slide in open_slides(data)]
    if evaluation is not None and len(evaluation):
        judged = list(dict.fromkeys(map(str, slide_rows(evaluation)["sample"])))
        unknown = [name for name in judged if name not in {facts.name for facts in slides}]
        if unknown:
            msg = f"`evaluation` judges slides that are not in `data`: {first_few(unknown)}. Give the cohort that was evaluated."
            raise InputError(msg)
    return findings_table(all_findings(slides, model, evaluation))


def _check_somewhere(data: Data, **keys: str) -> None:
    """Refuse a key that was asked for and is on no slide; slides without labels or cells have no table of the default name."""
    asked = {name: key for name, key in keys.items() if key not in (_keys.SIGNATURES, _keys.TABLE)}
    tables = sorted({key for slide in open_slides(data) for key in slide.sdata.tables}) if asked else []
    for name, key in asked.items():
        check_key(tables, key, name=name, where="the tables of the slides")
