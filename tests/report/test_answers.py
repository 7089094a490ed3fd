"""Words made from tables: verdicts follow the intervals, doubts come worst first, nothing unknown becomes a number."""

import numpy as np
import pandas as pd
import pytest

from spatialsig import tl
from spatialsig.errors import KeyMissingError
from spatialsig.report.comparisons import answers
from spatialsig.report.document import warnings_section
from spatialsig.report.results_section import percent, summarise, whole

ROW = {"better": "fused", "than": "he_only", "signature": "mean", "difference": 0.1, "p": 0.01, "n_patients": 5}


def ask(**changes):
    (answer,) = answers(pd.DataFrame([ROW | {"low": 0.02, "high": 0.18} | changes]))
    return answer


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "Yes"),
        ({"difference": -0.1, "low": -0.18, "high": -0.02}, "No"),
        ({"low": -0.01}, "Not shown"),
        ({"low": 0.0}, "Not shown"),
        ({"n_patients": 2}, "Too few patients"),
        ({"low": np.nan, "high": np.nan, "n_patients": 1}, "Too few patients"),
        ({"difference": np.nan}, "Not shown"),
    ],
)
def test_the_verdict_is_that_of_the_interval(changes, verdict):
    assert ask(**changes).verdict == verdict


def test_the_sentence_holds_the_numbers():
    answer = ask()
    assert answer.question == "Does gene expression help the image?"
    expected = "H&E + AE minus H&E only: +0.10 in mean Pearson r (95 % interval +0.02 to +0.18, p = 0.010, 5 patients)."
    assert answer.text == expected
    assert "p < 0.001" in ask(p=1e-5).text
    assert "+0.00 to" not in ask(low=0.001).text
    assert "no interval is known" in ask(low=np.nan, high=np.nan).text


def test_signatures_are_counted_and_other_pairs_are_asked_plainly():
    rows = [ROW | {"better": "a", "than": "b", "low": 0.02, "high": 0.2}]
    rows += [rows[0] | {"signature": name, "difference": d} for name, d in (("x", 0.1), ("y", -0.1), ("z", np.nan))]
    (answer,) = answers(pd.DataFrame(rows))
    assert answer.question == "Is a better than b?"
    assert answer.text.endswith("Above 0 for 1 of 2 signatures.")


def test_answers_from_a_real_comparison(drawn):
    evaluation = drawn.make_evaluation(("S1", "S2", "S3", "S4"))
    found = {answer.question: answer for answer in answers(tl.compare_methods(evaluation))}
    assert found["Does the H&E help beyond nuclear density?"].verdict == "Yes"
    assert found["Does the image help gene expression?"].verdict == "Yes"
    assert "Above 0 for 2 of 2 signatures" in found["Does the H&E help beyond nuclear density?"].text


def test_a_missing_column_is_named():
    with pytest.raises(KeyMissingError, match=r"column='low'.*sp\.tl\.compare_methods"):
        answers(pd.DataFrame([ROW]))
    with pytest.raises(KeyMissingError, match=r"column='severity'.*sp\.tl\.findings"):
        warnings_section(pd.DataFrame({"name": [], "slide": [], "text": []}), [])


def test_doubts_come_worst_first_and_once():
    table = pd.DataFrame(
        [
            {"name": "a", "severity": "note", "slide": "", "text": "Good to know."},
            {"name": "b", "severity": "error", "slide": "S1", "text": "Wrong."},
            {"name": "c", "severity": "strange", "slide": "", "text": "Odd."},
        ]
    )
    found = warnings_section(table, ["Slow.", "Wrong.", "Slow."])
    assert [(d.severity, d.text) for d in found] == [
        ("error", "Wrong."), ("strange", "Odd."), ("warning", "Slow."), ("note", "Good to know."),
    ]  # fmt: skip
    assert found[0].slide == "S1"
    assert warnings_section(None, []) == []


def test_results_of_a_model_that_was_judged_nowhere(drawn):
    evaluation = drawn.make_evaluation(("S1", "S2"))
    gone = evaluation["method"] == "he_only"
    evaluation.loc[gone, ["pearson", "share_of_ceiling"]] = np.nan
    found = summarise(evaluation, tl.summarise(evaluation), synthetic=False)
    assert "mean Pearson r of –." in found.headline  # noqa: RUF001
    assert found.tiles[0][1] == "–"  # noqa: RUF001
    assert found.worst == ""
    assert all(np.isnan(row.mean) for row in found.slides)


def test_slides_stand_worst_first(drawn):
    evaluation = drawn.make_evaluation(("S1", "S2", "S3"))
    mine = evaluation["method"] == "he_only"
    evaluation.loc[mine & (evaluation["sample"] == "S3"), "pearson"] = 0.1
    evaluation["calibration_slope"] = 1.5
    found = summarise(evaluation, tl.summarise(evaluation), synthetic=False)
    assert found.slides[0].name == "S3"
    assert found.slides[0].mean == pytest.approx(0.1)
    assert found.slides[0].slope == pytest.approx(1.5)
    assert found.worst.startswith("Worst slide: S3 (0.10); best: ")


def test_chance_is_told_by_signature(drawn):
    evaluation = drawn.make_evaluation(("S1", "S2"))
    evaluation["p"] = np.where(evaluation["signature"] == "Immune_T", 0.001, 0.6)
    found = summarise(evaluation, tl.summarise(evaluation), synthetic=False)
    assert found.chance == "H&E only, beyond chance within slides (q < 0.05): Immune_T; not: Fibroblast."
    assert summarise(drawn.make_evaluation(), tl.summarise(drawn.make_evaluation()), synthetic=False).chance == ""


def test_unknown_counts_and_shares_are_dashes():
    assert whole(None) == whole(np.nan) == percent(np.nan) == "–"  # noqa: RUF001
    assert whole(12345) == "12,345"
