"""Findings of slides, model and numbers stand together, worst first."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest

from spatialsig.evaluation.finding import ERROR, NOTE, SEVERITIES, WARNING, Finding, listed
from spatialsig.evaluation.findings import all_findings, findings_table
from spatialsig.evaluation.findings_slides import SlideFacts

NOTHING = {"scored": {}, "embedded": {}, "labelled": {}, "assigned": {}, "chosen": {}, "controls": [], "signatures": []}


def facts(name: str = "S1", **changes: Any) -> SlideFacts:
    clean = {"patient_known": True, "split": {"by": "patient"}, "alignment": {"verdict": "good", "shift_um": 1.0}}
    return SlideFacts(name=name, **NOTHING | clean | changes)


@dataclass
class Config:
    fusion: str = "none"
    modality_dropout: float = 0.0


@dataclass
class Model:
    config: Config = field(default_factory=Config)
    run: dict[str, Any] = field(default_factory=lambda: {"test_fold": 0})


def names(*arguments: Any) -> list[str]:
    return [finding.name for finding in all_findings(*arguments)]


def test_nothing_given_is_nothing_found() -> None:
    assert all_findings([], None, None) == []
    assert all_findings([facts(), facts("S2")], Model(), pd.DataFrame()) == []  # type: ignore[arg-type]


def test_the_worst_comes_first() -> None:
    slides = [facts(alignment={}, split={"by": "random"}, controls=["Blank-1"])]
    findings = all_findings(slides, None, None)
    assert [finding.severity for finding in findings] == [ERROR, WARNING, NOTE]
    assert [finding.name for finding in findings] == ["random_split", "controls_in_counts", "registration_unchecked"]
    assert SEVERITIES == (ERROR, WARNING, NOTE)


def test_the_test_fold_is_that_of_the_model() -> None:
    looked = [facts(chosen={"test_fold": 1})]
    assert names(looked, None, None) == []
    assert names(looked, Model(), None) == ["genes_from_test"]
    assert names(looked, Model(run={"test_fold": 1}), None) == []


@pytest.mark.parametrize(
    ("fusion", "dropout", "distil", "expected"),
    [
        ("none", 0.0, 0, []),
        ("gated", 0.3, 0, []),
        ("gated", 0.0, 0.5, []),
        ("gated", 0.0, 0, ["never_without_embedding"]),
    ],
)
def test_a_model_that_never_saw_an_image_alone(fusion: str, dropout: float, distil: float, expected: list[str]) -> None:
    model = Model(Config(fusion, dropout), {"test_fold": 0, "distil": distil})
    assert names([], model, None) == expected


def test_the_table_has_its_columns_even_without_rows() -> None:
    assert list(findings_table([]).columns) == ["name", "severity", "slide", "text"]
    table = findings_table([Finding("a", NOTE, "S1", "Why."), Finding("b", ERROR, "", "What.")])
    assert table.to_numpy().tolist() == [["a", NOTE, "S1", "Why."], ["b", ERROR, "", "What."]]


def test_long_lists_are_cut() -> None:
    assert listed(["a"]) == "a"
    assert listed(list("abcd")) == "a, b, c, d"
    assert listed(list("abcdef")) == "a, b, c, d and 2 more"
    assert listed(list("abc"), most=1) == "a and 2 more"
