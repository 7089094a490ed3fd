"""Predictions of an outside model, judged beside the controls, the ceiling and the traps of this package.

Floor 11, above report. Called as sp.tl.referee.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anndata as ad
import numpy as np
import pandas as pd

from spatialsig import _keys, tl
from spatialsig._arguments import AnyPath, Key, Micrometres, Natural, NewKey, Seed, checked
from spatialsig._checks import warn
from spatialsig.errors import InputError
from spatialsig.evaluation.evaluate import findings_table, simple_predictions
from spatialsig.evaluation.findings_scores import score_findings
from spatialsig.evaluation.findings_slides import slide_findings
from spatialsig.evaluation.metrics import evaluation_table
from spatialsig.evaluation.rows import Request, gather
from spatialsig.evaluation.schema import ERROR, OUTSIDE, SEVERITIES
from spatialsig.pl.drawing.methods import outside_called
from spatialsig.referee import verdict as say
from spatialsig.referee.doubts import findings_on, leaks_in
from spatialsig.referee.laid import Judged, Terms, lay_slide
from spatialsig.referee.reading import read_predictions
from spatialsig.report import write_report
from spatialsig.slide.each import map_slides
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, recorded_slides

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.evaluation.rows import Rows

Predictions: TypeAlias = AnyPath | pd.DataFrame | ad.AnnData | Mapping[str, AnyPath | pd.DataFrame | ad.AnnData]
MIN_FIT = 10  # training patches that a scale is fitted on


@dataclass(frozen=True)
class Refereed:
    """What :func:`referee` found.

    Attributes
    ----------
    verdict
        ``"stands"``, ``"no better than the controls"``, ``"rows out of order"``, ``"wrong unit"`` or ``"leaked"``.
    sentence
        The verdict with its numbers, for a text.
    table
        One row per signature and their mean: r with interval, ceiling, share of it, p, q, and the controls; for citing.
    evaluation
        Rows as of :func:`spatialsig.tl.evaluate`; the model is ``method == "outside"``.
    findings
        Rows as of :func:`spatialsig.tl.findings`, worst first.
    """

    verdict: str
    sentence: str
    table: pd.DataFrame
    evaluation: pd.DataFrame
    findings: pd.DataFrame


@checked
@needs_cells
def referee(
    data: Data,
    predictions: Predictions,
    *,
    unit: Literal["scores", "log1p_cp10k", "cp10k", "counts"],
    by: Literal["patch", "cell"] | None = None,
    coordinates: Literal["um", "px"] | None = None,
    size_um: Micrometres | None = None,
    recalibrate: bool = False,
    trained_on: Sequence[str] = (),
    name: Key = "outside model",
    report: AnyPath | None = None,
    test_fold: Natural = 0,
    seed: Seed = 0,
    key_added: NewKey = _keys.SIGNATURES_OUTSIDE,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    table_key: Key = _keys.TABLE,
) -> Refereed:
    """Judge the predictions of any outside model on the held-out patients, beside controls, ceiling and traps.

    Rows are matched to patches by ids or places, never by their order. Genes are scored as the labels were. Nothing is
    fitted to the predictions unless ``recalibrate`` asks for it, and then on training patients alone.

    Told apart are: rows in another order than their patches; values in another unit than stated; predictions that know the
    measurement, since what they leave of the labels is smaller than its noise; and those that say no more than density or
    colour. A leak that stays below the ceiling cannot be told from a good model by the numbers: ``trained_on`` names what the
    model has seen.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort, with folds and labels.
    predictions
        A csv, parquet, h5ad or GeoJSON file, a directory with one ``<sample>.csv`` (or other) per slide, a DataFrame, an AnnData,
        or a mapping of samples to those. Rows are patches, spots, squares or cells; columns signatures or genes. Several slides
        in one table are told by the column ``sample``. A row is placed by ``x_um`` and ``y_um``, ``x_px`` and ``y_px`` (H&E at
        full resolution; also ``x_pixel``, ``pxl_col_in_fullres``, ...), ``x0`` and ``y0`` (corners), ``obsm["spatial"]``, or
        else by ``patch_id`` or ``cell_id``.
    unit
        What the values are: ``"scores"`` of signatures in the unit of the labels, or expression of genes: ``"log1p_cp10k"``
        (logarithm of 1 + counts per 10,000), ``"cp10k"``, ``"counts"``. Checked against the values.
    by
        Whether rows are patches (or spots) or cells, which are averaged over each patch; found by ids when None.
    coordinates
        Unit of places whose columns do not say it: ``"um"`` of the cells, or ``"px"`` of the H&E; found when None.
    size_um
        Edge of their squares where it is not that of the patches. Squares of another grid count by the area they share.
    recalibrate
        Fit one line per signature on the training patients, for errors and calibration; r within slides stays.
    trained_on
        Patients or slides that the model has learned from.
    name
        Of the model, for the report.
    report
        File for one HTML page with everything; None writes none.
    test_fold
        Fold judged; the controls learn from the others.
    seed
        Of the noise ceiling.
    key_added
        Name of the table of matched scores; one of that name is replaced.
    patches_key, signatures_key, table_key
        Patches, labels, cells.

    Returns
    -------
    The verdict, a table to cite, an evaluation and findings, see :class:`spatialsig.referee.Refereed`.

    Writes ``tables[key_added]`` on every slide that has predictions: ``X`` the scores per patch, NaN where there is none;
    ``uns["spatialsig"]["referee"]`` unit, and how rows were matched.

    Raises
    ------
    InputError
        If rows cannot be matched, lie beside the slide, hold what their unit cannot, or no held-out patch has a prediction.
    KeyMissingError
        If slides have no folds or labels.
    LeakageError
        As :func:`evaluate`.

    Examples
    --------
    >>> import warnings
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> labels = sdata["signatures"]
    >>> table = labels.to_df().assign(patch_id=labels.obs["patch_id"].to_numpy())  # a "model" that has seen the labels
    >>> with warnings.catch_warnings(action="ignore"):  # which say so
    ...     sp.tl.referee(sdata, table, unit="scores").verdict
    'leaked'
    """
    samples = [slide.name for slide in recorded_slides(data)]
    outside = read_predictions(predictions, samples)
    slides = gather(data, Request(None, test_fold, None, None, patches_key, signatures_key, table_key, seed))
    terms = Terms(unit, by, coordinates, size_um, name, key_added, patches_key, signatures_key, table_key)
    laid = dict(
        zip(
            samples,
            map_slides(data, partial(lay_slide, outside=outside, terms=terms), "match predictions"),
            strict=True,
        )
    )
    judged = [_kept(rows, one) for rows in slides if rows.test.any() and (one := laid[rows.sample]) is not None]
    judged = [(rows, one) for rows, one in judged if rows.test.any()]
    if not judged:
        held_out = [rows.sample for rows in slides if rows.test.any()]
        msg = f"no labelled patch of fold {test_fold} ({', '.join(held_out)}) has a prediction; there is nothing to judge."
        raise InputError(msg)
    scores = {rows.sample: one.scores for rows, one in judged}
    if recalibrate:
        scores = _recalibrated(slides, laid, scores)
    tested = [rows for rows, _ in judged]
    methods = {
        rows.sample: {OUTSIDE: scores[rows.sample][rows.index[rows.test]], **simple_predictions(rows, slides)}
        for rows in tested
    }
    evaluation = evaluation_table(tested, slides, methods, pooled=False)
    found = [
        *findings_on(data, slides, judged, scores, terms, recalibrated=recalibrate),
        *leaks_in(evaluation, tested, trained_on),
    ]
    found += slide_findings([rows.facts for rows in slides], test_fold=test_fold, embedding=False)
    found += score_findings(evaluation)
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    summary = tl.summarise(evaluation)
    verdict, sentence = say.verdict_of(found, summary)
    result = Refereed(verdict, sentence, say.citable(summary, evaluation), evaluation, findings_table(found))
    if report is not None:
        _write(report, data, result, terms, summary)
    for finding in found:
        if finding.severity == ERROR:
            warn(finding.text)
    return result


def _kept(rows: Rows, one: Judged) -> tuple[Rows, Judged]:
    """Rows without held-out patches that have no prediction: all methods are judged on the same."""
    keep = rows.train | np.isfinite(one.scores[rows.index]).any(axis=1)
    if keep.all():
        return rows, one
    arrays = {
        name: getattr(rows, name)[keep] for name in ("train", "targets", "position", "row", "col", "density", "index")
    }
    return replace(rows, **arrays, features={name: block[keep] for name, block in rows.features.items()}), one


def _recalibrated(
    slides: list[Rows], laid: Mapping[str, Judged | None], scores: Mapping[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """Scores through one line per signature, fitted on the training patches that have predictions."""
    parts = [
        (one.scores[rows.index[rows.train]], rows.targets[rows.train])
        for rows in slides
        if (one := laid[rows.sample]) is not None
    ]
    x, y = (np.concatenate(blocks) for blocks in zip(*parts, strict=True))
    lines = []
    for guess, truth in zip(x.T, y.T, strict=True):
        known = np.isfinite(guess) & np.isfinite(truth)
        lines.append(
            np.polyfit(guess[known], truth[known], 1)
            if known.sum() >= MIN_FIT and np.ptp(guess[known]) > 0
            else (np.nan, np.nan)
        )
    slope, intercept = np.array(lines).T
    if not np.isfinite(slope).any():
        msg = f"`recalibrate=True` needs predictions on at least {MIN_FIT} patches of training patients; there are {np.isfinite(x).any(axis=1).sum()}."
        raise InputError(msg)
    return {sample: values * slope + intercept for sample, values in scores.items()}


def _write(report: AnyPath, data: Data, result: Refereed, terms: Terms, summary: pd.DataFrame) -> None:
    parameters = {"model": terms.name, "verdict": result.verdict} | {
        k: v for k, v in asdict(terms).items() if v is not None
    }
    said = result.sentence
    for text in result.findings["text"]:  # which stand on the page themselves
        said = said.replace(f" {text}", "")
    with outside_called(terms.name):
        write_report(
            report, cohort=data, evaluation=result.evaluation, histories={}, warnings=[said], coverage=None, parameters=parameters,
            summary=summary, findings=result.findings, title=f"{terms.name}, judged on held-out patients: {result.verdict}",
            predictions_key=terms.key_added, patches_key=terms.patches_key, signatures_key=terms.signatures_key, table_key=terms.table_key,
        )  # fmt: skip
