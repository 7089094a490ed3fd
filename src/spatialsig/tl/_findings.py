"""Warnings that nobody should miss before believing a score."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pandas as pd

from spatialsig import _keys
from spatialsig.data.slides import open_slides
from spatialsig.models.ensemble import members_of
from spatialsig.tl._finding import ERROR, EVERY_SLIDE, SEVERITIES, WARNING, Finding
from spatialsig.tl._findings_data import data_findings, facts_of
from spatialsig.tl._findings_scores import score_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialsig.data.slides import Data
    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.models.vit import SignatureViT

__all__ = ["ERROR", "findings"]


def findings(
    data: Data,
    model: SignatureModel | None = None,
    evaluation: pd.DataFrame | None = None,
    *,
    signatures_key: str = _keys.SIGNATURES,
    table_key: str = _keys.TABLE,
) -> pd.DataFrame:
    """Look for everything that is known to fool the reader of such results.

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
    slides = [facts_of(slide, signatures_key=signatures_key, table_key=table_key) for slide in open_slides(data)]
    found = list(data_findings(slides, test_fold=None if model is None else model.run.get("test_fold")))
    if model is not None:
        found += _model_findings(model)
    if evaluation is not None and len(evaluation):
        found += score_findings(evaluation)
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return pd.DataFrame([asdict(f) for f in found], columns=["name", "severity", "slide", "text"])


def _model_findings(model: SignatureModel) -> Iterator[Finding]:
    if any(_never_without_embedding(m) for m in members_of(model)):
        yield Finding(
            "never_without_embedding", WARNING, EVERY_SLIDE,
            "The model was never shown an image without its embedding (`modality_dropout=0`), so its scores on H&E alone "
            "cannot be trusted. Train with `modality_dropout=0.3`.",
        )  # fmt: skip


def _never_without_embedding(model: SignatureViT) -> bool:
    shown = model.config.modality_dropout > 0 or model.run.get("distil", 0) > 0
    return model.config.fusion != "none" and not shown
