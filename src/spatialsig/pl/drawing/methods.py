"""Names of the methods of an evaluation, their order, and the purpose of each.

Floor 7, above evaluation. Used by 7 modules of pl, referee, report.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from spatialsig._checks import check_key
from spatialsig.evaluation.schema import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import pandas as pd

METHODS = {
    "he_only": "H&E only",
    "fused": "H&E + AE",
    "ae_only": "AE only",
    "fused_permuted": "H&E + AE, images permuted",
    "he_only_permuted": "H&E only, images permuted",
    "embedding": "backbone features",
    "hand_features": "simple image features",
    "colour": "colour statistics",
    "density": "nuclear density",
    "coordinates": "coordinates only",
    "neighbours": "labels around the patch",
    "train_mean": "mean of the training slides",
}
_outside: ContextVar[str] = ContextVar("outside", default="outside model")
HEADLINE = "he_only"  # the question of the toolkit: what does the H&E alone tell?
MODEL = frozenset({OUTSIDE, "he_only", "fused", "ae_only"})  # the rest are controls and baselines
MEAN = "mean"  # in the column of signatures of a summary: the mean over all of them
SUMMARY_COLUMNS = ("method", "signature", "pearson", "low", "high", "share_of_ceiling")
COLUMNS = ("method", "signature", "sample", "patient", "n_patches", "pearson", "ceiling", "share_of_ceiling")


def method_order(evaluation: pd.DataFrame) -> list[str]:
    """Methods of an evaluation in display order; unknown ones last, as they come."""
    present = list(dict.fromkeys(evaluation["method"]))
    return [m for m in (OUTSIDE, *METHODS) if m in present] + [m for m in present if m not in METHODS and m != OUTSIDE]


def main_method(methods: Collection[str]) -> str:
    """The method that is in question: the H&E alone where it was judged, else an outside model, else the first of ``methods``."""
    return next((method for method in (HEADLINE, OUTSIDE) if method in methods), next(iter(methods)))


def display_name(method: str) -> str:
    """Name of a method for people; the name itself for one that is not ours."""
    return _outside.get() if method == OUTSIDE else METHODS.get(method, method)


@contextmanager
def outside_called(name: str) -> Iterator[None]:
    """Call the outside model by its name inside the block."""
    before = _outside.set(name)
    try:
        yield
    finally:
        _outside.reset(before)


def slide_means(evaluation: pd.DataFrame, column: str = "pearson") -> pd.DataFrame:
    """Mean of ``column`` over the signatures of each slide: one row per sample, one column per method in order."""
    means = evaluation.groupby(["sample", "method"], observed=True, sort=False)[column].mean().unstack("method")
    return means[method_order(evaluation)]


def signature_means(evaluation: pd.DataFrame, column: str = "pearson") -> pd.DataFrame:
    """Mean of ``column`` over held-out slides: one row per method in order, one column per signature."""
    means = evaluation.groupby(["method", "signature"], observed=True, sort=False)[column].mean().unstack("signature")
    return means.loc[method_order(evaluation), list(dict.fromkeys(evaluation["signature"]))]


def mean_ceiling(evaluation: pd.DataFrame) -> float:
    """Mean ceiling over held-out slides and signatures; it is the same for every method."""
    return float(evaluation.drop_duplicates(["sample", "signature"])["ceiling"].mean())


def worst_slide(evaluation: pd.DataFrame) -> str | None:
    """Held-out slide with the lowest mean r of the model, H&E alone where it was judged; None where no r is known."""
    methods = method_order(evaluation)
    means = slide_means(evaluation)[main_method(methods)].dropna()
    return None if means.empty else str(means.idxmin())


def mean_limits(summary: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Lower and upper limit of the mean r of each method, from the table of ``tl.summarise``; NaN are left out."""
    for column in SUMMARY_COLUMNS:
        fix = "Make the table with `sp.tl.summarise`."
        check_key(list(map(str, summary.columns)), column, name="column", where="the summary table", fix=fix)
    rows = summary[summary["signature"] == MEAN].dropna(subset=["low", "high"])
    return {str(m): (float(a), float(b)) for m, a, b in zip(rows["method"], rows["low"], rows["high"], strict=True)}
