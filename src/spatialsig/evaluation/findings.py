"""Findings on slides, model and evaluation together, worst first."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import pandas as pd

from spatialsig.evaluation.finding import EVERY_SLIDE, SEVERITIES, WARNING, Finding
from spatialsig.evaluation.findings_scores import score_findings
from spatialsig.evaluation.findings_slides import slide_findings
from spatialsig.models.ensemble import members_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialsig.evaluation.findings_slides import SlideFacts
    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.models.vit import SignatureViT


def all_findings(
    slides: list[SlideFacts], model: SignatureModel | None, evaluation: pd.DataFrame | None
) -> list[Finding]:
    """Findings on slides, and on the model and its evaluation where there are any, worst first."""
    findings = list(slide_findings(slides, test_fold=None if model is None else model.run.get("test_fold")))
    if model is not None:
        findings += _model_findings(model)
    if evaluation is not None and len(evaluation):
        findings += score_findings(evaluation)
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def findings_table(findings: list[Finding]) -> pd.DataFrame:
    """Findings as a table, one row each."""
    return pd.DataFrame([asdict(f) for f in findings], columns=["name", "severity", "slide", "text"])


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
