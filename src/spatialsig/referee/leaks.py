"""Predictions that agree with the noise of the measurement, which no image shows.

A prediction made without the counts of a slide can at best be the truth behind them, and misses their noise. What is left of
the labels after the best line on it is therefore at least that noise, ``1 - r^2 >= 1 - ceiling^2``. One that was fitted to
these labels falls below. Thinned counts say how large the noise is, and no more than that: given all counts the halves are a
draw that no model has seen, so that a leaked prediction agrees with either half exactly as well as an honest one of the same r.

Floor 11, above report. Used by referee/doubts, referee/verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

MARGIN = 0.8  # part of the noise below which the rest must lie: the ceiling itself is an estimate
LEVEL = 0.01  # one-sided, of the limit; divided among signatures where each is asked
MIN_NOISE = 1e-4  # share of the variance below which noise cannot be told from rounding


@dataclass(frozen=True)
class Excess:
    """What is left of the labels beside a prediction, as a share of their noise, and the upper limit of it."""

    what: str
    ratio: float
    high: float
    r: float
    ceiling: float

    @property
    def is_leak(self) -> bool:
        """Whether the rest is smaller than the noise beyond doubt."""
        return self.high < MARGIN


def excess_over_ceiling(table: pd.DataFrame, steps: Mapping[str, int]) -> list[Excess]:
    """Excess over all signatures, then of each, from rows of an evaluation; ``steps`` is patches per non-overlapping one by slide."""
    judged = table[
        (table["ceiling"] > 0)
        & (1 - table["ceiling"] ** 2 > MIN_NOISE)
        & table["pearson"].notna()
        & (table["pearson"] > 0)
    ]
    if judged.empty:
        return []
    step = np.array([steps[str(sample)] for sample in judged["sample"]], np.float64)
    n = np.maximum(judged["n_patches"].to_numpy(float) / step**2, 4.0)
    r, ceiling = judged["pearson"].to_numpy(float), judged["ceiling"].to_numpy(float)
    rest, noise = np.maximum(1 - r**2, 1e-9), 1 - ceiling**2
    # both are estimates: of log(1 - r^2) from n patches, and of log(1 - reliability) from as many pairs of halves
    judged = judged.assign(log=np.log(rest / noise), variance=4 * r**2 / n + 4 / n)
    names = list(dict.fromkeys(judged["signature"]))
    found = [_excess("all signatures", [part for _, part in judged.groupby("sample")], judged, LEVEL)]
    for name in names:
        own = judged[judged["signature"] == name]
        found.append(_excess(str(name), [part for _, part in own.groupby("sample")], own, LEVEL / len(names)))
    return found


def _excess(what: str, slides: Sequence[pd.DataFrame], rows: pd.DataFrame, level: float) -> Excess:
    """Mean over slides; signatures of one slide are taken as one measurement, since they share its cells."""
    mean = float(np.mean([part["log"].mean() for part in slides]))
    error = float(np.sqrt(np.sum([part["variance"].mean() for part in slides])) / len(slides))
    high = mean + float(stats.norm.isf(level)) * error
    return Excess(
        what, float(np.exp(mean)), float(np.exp(high)), float(rows["pearson"].mean()), float(rows["ceiling"].mean())
    )
