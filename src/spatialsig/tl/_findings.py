"""Reasons to doubt a score, as a table, before anybody believes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig import _keys
from spatialsig.evaluation.evaluate import all_findings, findings_table
from spatialsig.evaluation.findings_slides import slide_facts
from spatialsig.slide.slides import open_slides

if TYPE_CHECKING:
    import pandas as pd

    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.slide.slides import Data


def findings(
    data: Data,
    model: SignatureModel | None = None,
    evaluation: pd.DataFrame | None = None,
    *,
    signatures_key: str = _keys.SIGNATURES,
    table_key: str = _keys.TABLE,
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

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.tl.findings(sdata)["name"].tolist()
    ['registration_unchecked']
    """
    slides = [slide_facts(slide, signatures_key=signatures_key, table_key=table_key) for slide in open_slides(data)]
    return findings_table(all_findings(slides, model, evaluation))
