"""Statements about patients from slides: intervals, p-values, and which method is better.

Floor 7, above evaluation. Called as sp.tl.compare_methods, sp.tl.summarise; used by 4 modules of 4 rooms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from spatialsig._arguments import Seed, Share, checked
from spatialsig._checks import check_choice, check_key
from spatialsig.evaluation.schema import OUTSIDE, check_judged_once, slide_rows
from spatialsig.stats.significance import benjamini_hochberg, cluster_interval, combine

if TYPE_CHECKING:
    from collections.abc import Iterator

MEAN = "mean"  # in the column of signatures: the mean over all of them
UNITS = ("patient", "sample")
# does the first say more than the second?
QUESTIONS = (
    ("fused", "he_only"),  # does expression help the image
    ("fused", "ae_only"),  # does the image help expression
    ("fused", "fused_permuted"),
    ("he_only", "density"),  # does H&E help beyond density
    ("he_only", "colour"),
    ("he_only", "hand_features"),
    ("he_only", "embedding"),
    ("he_only", "train_mean"),
    ("he_only", "neighbours"),
    (OUTSIDE, "density"),
    (OUTSIDE, "colour"),
    (OUTSIDE, "hand_features"),
)


@checked
def summarise(
    evaluation: pd.DataFrame,
    *,
    by: str = "patient",
    interval: Literal["t", "fisher", "bca", "percentile"] = "fisher",
    level: Share = 0.95,
    seed: Seed = 0,
) -> pd.DataFrame:
    """Average the correlation of every method over patients, with an interval that knows how few they are.

    Parameters
    ----------
    evaluation
        Table of :func:`evaluate` (of several folds, put together: every slide held out once).
    by
        Unit of replication: ``"patient"``, or ``"sample"`` where every slide is a patient of its own.
    interval
        ``"fisher"`` [1]_ (default), ``"t"``, ``"bca"`` [2]_ or ``"percentile"``; see
        :func:`spatialsig.stats.significance.cluster_interval`.
    level
        Coverage of the interval.
    seed
        Of the bootstrap.

    Returns
    -------
    One row per method and signature, and one per method whose ``signature`` is ``"mean"``: ``pearson``
    (mean over patients of the mean over their slides), ``low`` and ``high`` (NaN with one patient),
    ``share_of_ceiling``, ``p`` (that predictions agree with labels beyond chance within slides: shifts, combined over
    slides by Stouffer's method), ``q`` (false discovery rate [3]_ over the signatures of the method), ``n_slides``,
    ``n_patients``.

    Raises
    ------
    KeyMissingError
        If a column is missing.
    InputError
        If a method was judged twice on one slide.

    References
    ----------
    .. [1] Fisher RA. On the "probable error" of a coefficient of correlation deduced from a small sample. Metron 1, 3-32
       (1921). https://hdl.handle.net/2440/15169
    .. [2] Efron B. Better bootstrap confidence intervals. Journal of the American Statistical Association 82, 171-185
       (1987). https://doi.org/10.1080/01621459.1987.10478410
    .. [3] Benjamini Y, Hochberg Y. Controlling the false discovery rate: a practical and powerful approach to multiple
       testing. Journal of the Royal Statistical Society B 57, 289-300 (1995).
       https://doi.org/10.1111/j.2517-6161.1995.tb02031.x

    Examples
    --------
    >>> import pandas as pd
    >>> import spatialsig as sp
    >>> r = {"he_only": [0.4, 0.5, 0.6], "density": [0.3, 0.3, 0.4]}
    >>> table = pd.DataFrame([
    ...     {"method": method, "signature": "Immune_T", "sample": f"S{k}", "patient": f"P{k}", "pearson": value,
    ...      "share_of_ceiling": value / 0.8}
    ...     for method, values in r.items() for k, value in enumerate(values)
    ... ])
    >>> sp.tl.summarise(table).query("signature == 'mean'")[["method", "pearson", "n_patients"]].round(2).values.tolist()
    [['he_only', 0.5, 3], ['density', 0.33, 3]]
    """
    check_choice(by, UNITS, name="by")
    table = _checked(evaluation)
    rows = []
    for method, of_method in table.groupby("method", sort=False):
        for signature, part in _each_signature(of_method):
            judged = part.dropna(subset=["pearson"])
            estimate = cluster_interval(
                judged["pearson"].to_numpy(), judged[by].tolist(), method=interval, level=level, seed=seed
            )
            share = cluster_interval(judged["share_of_ceiling"].to_numpy(), judged[by].tolist()).mean
            rows.append(
                {
                    "method": method, "signature": signature, "pearson": estimate.mean,
                    "low": np.maximum(estimate.low, -1.0), "high": np.minimum(estimate.high, 1.0), "share_of_ceiling": share,
                    "p": combine(part["p"].to_numpy()) if signature != MEAN else np.nan,
                    "n_slides": judged["sample"].nunique(), "n_patients": judged["patient"].nunique(),
                }
            )  # fmt: skip
    result = pd.DataFrame(rows)
    result.insert(
        7, "q", result.groupby("method", sort=False)["p"].transform(lambda p: benjamini_hochberg(p.to_numpy()))
    )
    return result


@checked
def compare_methods(
    evaluation: pd.DataFrame,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    by: str = "patient",
    level: Share = 0.95,
) -> pd.DataFrame:
    """Compare methods in pairs on the same patients: does fusion help, does the H&E help beyond density?

    Parameters
    ----------
    evaluation
        Table of :func:`evaluate`.
    pairs
        ``(better, than)`` methods; by default the questions that the methods present can answer.
    by, level
        As in :func:`summarise`.

    Returns
    -------
    One row per pair and signature, and one per pair whose ``signature`` is ``"mean"``: ``better``,
    ``than``, ``difference`` of Pearson r (mean over patients), ``low``, ``high``, ``p`` (two-sided, paired t over
    patients), ``q`` (false discovery rate as in :func:`summarise`, over the signatures of the pair), ``n_slides``,
    ``n_patients``. Interval and p-values are NaN with one patient.

    Raises
    ------
    KeyMissingError
        If a column or a method is missing.

    Examples
    --------
    >>> import spatialsig as sp
    >>> table = sp.tl.baselines(sp.datasets.toy_study())
    >>> result = sp.tl.compare_methods(table, pairs=[("hand_features", "train_mean")])
    >>> result.query("signature == 'mean'")[["better", "than", "n_slides"]].values.tolist()
    [['hand_features', 'train_mean', 1]]
    """
    check_choice(by, UNITS, name="by")
    table = _checked(evaluation)
    methods = list(dict.fromkeys(table["method"]))
    if pairs is None:
        pairs = [pair for pair in QUESTIONS if set(pair) <= set(methods)]
    wide = table.pivot(index=["signature", "sample", "patient"], columns="method", values="pearson")
    rows = []
    for better, than in pairs:
        for method in (better, than):
            check_key(methods, method, name="pairs", where="the methods of the evaluation")
        difference = (wide[better] - wide[than]).rename("difference").reset_index()
        for signature, part in _each_signature(difference):
            judged = part.dropna(subset=["difference"])
            estimate = cluster_interval(judged["difference"].to_numpy(), judged[by].tolist(), level=level)
            rows.append(
                {
                    "better": better, "than": than, "signature": signature, "difference": estimate.mean,
                    "low": estimate.low, "high": estimate.high, "p": estimate.p,
                    "n_slides": judged["sample"].nunique(), "n_patients": judged["patient"].nunique(),
                }
            )  # fmt: skip
    columns = ["better", "than", "signature", "difference", "low", "high", "p", "n_slides", "n_patients"]
    result = pd.DataFrame(rows, columns=columns)
    # the mean over signatures is no further test among them
    tested = result["p"].where(result["signature"] != MEAN)
    q = tested.groupby([result["better"], result["than"]], sort=False).transform(
        lambda p: benjamini_hochberg(p.to_numpy())
    )
    result.insert(7, "q", q)
    return result


def _each_signature(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of each signature, then the mean over signatures of each slide; numbers that are NaN are left out."""
    for signature, part in table.groupby("signature", sort=False):
        yield str(signature), part
    numbers = [name for name in table.select_dtypes("number") if name not in {"sample", "patient"}]
    yield MEAN, table.groupby(["sample", "patient"], sort=False)[numbers].mean().reset_index()


def _checked(evaluation: pd.DataFrame) -> pd.DataFrame:
    table = slide_rows(evaluation, ("patient", "share_of_ceiling"))
    check_judged_once(table, ("method", "signature", "sample"))
    return table if "p" in table else table.assign(p=np.nan)
