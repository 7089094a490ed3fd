"""Evaluation of a model beside simple predictors: the table of metrics, and all findings on slides, model and table.

Floor 6, above expression, inference, labels. Used by referee/judge, tl/_cross_validate, tl/_evaluate.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig._progress import track
from spatialsig.errors import InputError
from spatialsig.evaluation.findings_scores import score_findings
from spatialsig.evaluation.findings_slides import slide_findings
from spatialsig.evaluation.metrics import evaluation_table
from spatialsig.evaluation.rows import Request, gather
from spatialsig.evaluation.schema import ERROR, EVERY_SLIDE, FINDING_COLUMNS, SEVERITIES, WARNING, Finding
from spatialsig.inference.provenance import HELD_OUT_SEEN
from spatialsig.models.ensemble import members_of
from spatialsig.slide.seen import text_of_seen
from spatialsig.stats.baselines import nearest_neighbours, neighbour_mean, ridge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from spatialsig.evaluation.findings_slides import SlideFacts
    from spatialsig.evaluation.rows import Rows
    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.models.vit import SignatureViT
    from spatialsig.slide.slides import Data

# method: feature block it is fitted on
RIDGES = {
    "ae_only": "ae",
    "embedding": "embedding",
    "hand_features": "hand",
    "colour": "colour",
    "density": "density",
}


def evaluate_request(data: Data, request: Request, *, pooled: bool) -> tuple[pd.DataFrame, list[SlideFacts]]:
    """Metrics of simple predictors and of the model, if one is asked for; and what each slide says about itself."""
    slides = gather(data, request)
    tested = [rows for rows in slides if rows.test.any()]
    simple = {rows.sample: simple_predictions(rows, slides) for rows in track(tested, "baselines", unit="slide")}
    predictions = {rows.sample: rows.predicted | simple[rows.sample] for rows in tested}
    return evaluation_table(tested, slides, predictions, pooled=pooled), [rows.facts for rows in slides]


def evaluate_model(
    data: Data, model: SignatureModel, *, pooled: bool = False, **tables: Any
) -> tuple[pd.DataFrame, list[Finding]]:
    """Metrics of a model on the fold it has not seen, and findings on them; see :func:`spatialsig.tl.evaluate`.

    ``tables`` are the fields of :class:`Request` that do not follow from the model.
    """
    test_fold = model.run.get("test_fold")
    if test_fold is None:
        msg = "the model was trained with `test_fold=None`: no slide is left to judge it on. Train with a test fold."
        raise InputError(msg)
    request = Request(model, test_fold, model.run.get("use_rep"), **tables)
    table, facts = evaluate_request(data, request, pooled=pooled)
    return table, all_findings(facts, model, table)


def all_findings(
    slides: list[SlideFacts], model: SignatureModel | None, evaluation: pd.DataFrame | None
) -> list[Finding]:
    """Findings on slides, and on the model and its evaluation where there are any, worst first."""
    run = {} if model is None else model.run
    embedding = model is None or run.get("use_rep") is not None  # which nothing that is judged has seen otherwise
    findings = list(slide_findings(slides, test_fold=run.get("test_fold"), embedding=embedding))
    if model is not None:
        findings += _model_findings(model)
    if evaluation is not None and len(evaluation):
        findings += score_findings(evaluation)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def findings_table(findings: list[Finding]) -> pd.DataFrame:
    """Findings as a table, one row each."""
    return pd.DataFrame([asdict(f) for f in findings], columns=list(FINDING_COLUMNS))


def _model_findings(model: SignatureModel) -> Iterator[Finding]:
    for what, slides in model.run.get(HELD_OUT_SEEN, {}).items():
        yield Finding("given_from_test", ERROR, EVERY_SLIDE, f"{what[0].upper()}{what[1:]} {text_of_seen(slides)}")
    if any(_never_without_embedding(m) for m in members_of(model)):
        yield Finding(
            "never_without_embedding", WARNING, EVERY_SLIDE,
            "The model was never shown an image without its embedding (`modality_dropout=0`), so its scores on H&E alone "
            "cannot be trusted. Train with `modality_dropout=0.3`.",
        )  # fmt: skip


def _never_without_embedding(model: SignatureViT) -> bool:
    shown = model.config.modality_dropout > 0 or model.run.get("distil", 0) > 0
    return model.config.fusion != "none" and not shown


def simple_predictions(rows: Rows, slides: list[Rows]) -> dict[str, NDArray[np.float64]]:
    """Scores ``(n_test, n_signatures)`` of every baseline whose features are there, on the test rows of one slide."""
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
    """Neighbours on the slide itself where the split lets training patches lie on it: this exposes a spatial leak."""
    nearby = [rows] if rows.train.any() else trained
    targets = np.concatenate([s.targets[s.train] for s in nearby])
    return nearest_neighbours(np.concatenate([s.position[s.train] for s in nearby]), targets, rows.position[rows.test])
