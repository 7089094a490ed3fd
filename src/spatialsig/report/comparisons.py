"""Answers to a reader's questions about the methods, a sentence each, from the table of comparisons.

Floor 10, above cohort. Used by report/document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._checks import check_key
from spatialsig.evaluation.schema import OUTSIDE
from spatialsig.pl.drawing.methods import MEAN, display_name
from spatialsig.report.results_section import number

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("better", "than", "signature", "difference", "low", "high")
QUESTIONS = {
    ("fused", "he_only"): "Does gene expression help the image?",
    ("fused", "ae_only"): "Does the image help gene expression?",
    ("fused", "fused_permuted"): "Does the fused model look at the image?",
    ("he_only", "density"): "Does the H&E help beyond nuclear density?",
    ("he_only", "colour"): "Does the H&E help beyond its colour?",
    ("he_only", "hand_features"): "Does the network see more than simple image features?",
    ("he_only", "embedding"): "Does training help beyond the backbone?",
    ("he_only", "train_mean"): "Does the H&E help beyond the mean of the training slides?",
    ("he_only", "neighbours"): "Does the H&E say more than the labels around a patch?",
    (OUTSIDE, "density"): "Does the outside model help beyond nuclear density?",
    (OUTSIDE, "colour"): "Does the outside model help beyond the colour of the H&E?",
    (OUTSIDE, "hand_features"): "Does the outside model see more than simple image features fitted here?",
}
YES, NO, OPEN, FEW = "Yes", "No", "Not shown", "Too few patients"
MIN_PATIENTS = 3  # a verdict on fewer would rest on two numbers being alike by luck


@dataclass(frozen=True)
class Answer:
    """One question, the verdict in a word or two, and the sentence with the numbers."""

    question: str
    verdict: str
    text: str


def answers(comparisons: pd.DataFrame) -> list[Answer]:
    """Answers in the order of the table, from its rows ``signature == "mean"``; raises if a column is missing."""
    for column in COLUMNS:
        fix = "Make the table with `sp.tl.compare_methods`."
        check_key(list(map(str, comparisons.columns)), column, name="column", where="the comparisons", fix=fix)
    rows = comparisons[comparisons["signature"] == MEAN].to_dict("records")
    return [_answer({str(key): value for key, value in row.items()}, comparisons) for row in rows]


def _answer(row: dict[str, Any], comparisons: pd.DataFrame) -> Answer:
    better, than = display_name(str(row["better"])), display_name(str(row["than"]))
    asked = QUESTIONS.get((str(row["better"]), str(row["than"])), f"Is {better} better than {than}?")
    asked = asked.replace("the outside model", better) if better != "outside model" else asked
    difference, low, high = (float(row[name]) for name in ("difference", "low", "high"))
    if not np.isfinite(difference):
        return Answer(asked, OPEN, f"{better} and {than} were judged on no slide together.")
    said = f"{better} minus {than}: {_signed(difference)} in mean Pearson r"
    if not (np.isfinite(low) and np.isfinite(high)):
        return Answer(asked, FEW, f"{said}; no interval is known.{_signatures(row, comparisons)}")
    said += f" (95 % interval {_signed(low)} to {_signed(high)}{_p(row)}{_patients(row)})."
    verdict = YES if low > 0 else NO if high < 0 else OPEN
    if float(row.get("n_patients", np.inf)) < MIN_PATIENTS:
        verdict = FEW
    return Answer(asked, verdict, said + _signatures(row, comparisons))


def _signatures(row: dict[str, Any], comparisons: pd.DataFrame) -> str:
    """For how many signatures the difference goes the same way."""
    same = (comparisons["better"] == row["better"]) & (comparisons["than"] == row["than"])
    known = comparisons[same & (comparisons["signature"] != MEAN)]["difference"].dropna()
    return f" Above 0 for {int((known > 0).sum())} of {len(known)} signatures." if len(known) > 1 else ""


def _p(row: dict[str, Any]) -> str:
    p = float(row.get("p", np.nan))
    return "" if not np.isfinite(p) else ", p < 0.001" if p < 0.001 else f", p = {number(p, digits=3)}"


def _patients(row: dict[str, Any]) -> str:
    n = float(row.get("n_patients", np.nan))
    return "" if not np.isfinite(n) else f", {int(n)} patient{'s' if n != 1 else ''}"


def _signed(value: float) -> str:
    text = number(value)
    return text if text.startswith("\N{MINUS SIGN}") or not float(text) else f"+{text}"
