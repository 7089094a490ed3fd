"""Evaluation of a model beside simple predictors: the table of metrics and the findings on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig import _keys
from spatialsig._progress import track
from spatialsig.errors import InputError
from spatialsig.evaluation.findings import all_findings
from spatialsig.evaluation.metrics import evaluation_table
from spatialsig.evaluation.rows import Request, gather
from spatialsig.evaluation.simple_predictors import simple_predictions

if TYPE_CHECKING:
    import pandas as pd

    from spatialsig.evaluation.finding import Finding
    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.slide.slides import Data


def evaluate_model(
    data: Data,
    model: SignatureModel,
    *,
    embedding_key: str | None = None,
    pooled: bool = False,
    seed: int = 0,
    patches_key: str = _keys.PATCHES,
    signatures_key: str = _keys.SIGNATURES,
    table_key: str = _keys.TABLE,
) -> tuple[pd.DataFrame, list[Finding]]:
    """Metrics of a model on the fold it has not seen, and what is wrong with them; see :func:`spatialsig.tl.evaluate`."""
    test_fold = model.run.get("test_fold")
    if test_fold is None:
        msg = "the model was trained with `test_fold=None`: no slide is left to judge it on. Train with a test fold."
        raise InputError(msg)
    request = Request(
        model, test_fold, model.run.get("use_rep"), embedding_key, patches_key, signatures_key, table_key, seed
    )
    slides = gather(data, request)
    tested = [rows for rows in slides if rows.test.any()]
    simple = {rows.sample: simple_predictions(rows, slides) for rows in track(tested, "baselines", unit="slide")}
    predictions = {rows.sample: rows.predicted | simple[rows.sample] for rows in tested}
    table = evaluation_table(tested, slides, predictions, pooled=pooled)
    return table, all_findings([rows.facts for rows in slides], model, table)
