"""Conformal risk control: a threshold on a score such that a new patient's loss is, on average, no larger than stated.

Angelopoulos, Bates, Fisch, Lei and Schuster, Conformal risk control, ICLR 2024, https://doi.org/10.48550/arXiv.2208.02814:
of losses between 0 and 1 that only grow with the threshold, the largest threshold at which ``(sum of n losses + 1) / (n + 1)``
stays within the rate keeps the expected loss of one more exchangeable draw within it too.

Floor 1, above the ground floor. Used by inference/triage.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDING = 1e-12


def patients_needed(rate: float) -> int:
    """Fewest patients whose losses can keep a further one within ``rate``: ``1 / (n + 1) <= rate``."""
    return max(1, math.ceil(1 / rate - 1 - 1e-9))


def risk_threshold(
    scores: NDArray[np.floating], wrong: NDArray[np.bool_], patients: NDArray[np.str_], *, rate: float
) -> float:
    """Threshold below which slides may be taken: of the slides of a new patient, at most ``rate`` are taken and wrong.

    Parameters
    ----------
    scores
        Of each slide, ``(n,)``; infinite for one that is never taken.
    wrong
        Whether taking it is an error, ``(n,)``.
    patients
        Of each slide: they are the draws, and the loss of one is the share of its slides that are taken and wrong.
    rate
        Expected loss that is allowed.

    Returns
    -------
    Slides of a smaller score are taken: infinite where all may be, minus infinite where none.
    """
    _, member, size = np.unique(patients, return_inverse=True, return_counts=True)
    n = len(size)
    if n < patients_needed(rate):
        return -math.inf
    allowed = rate * (n + 1) - 1 + _ROUNDING
    losses = wrong / size[member]  # of each slide, once it is taken
    order = np.argsort(scores, kind="stable")
    values = np.asarray(scores, np.float64)[order]
    total = np.cumsum(losses[order])
    beyond = np.flatnonzero((total > allowed) & np.isfinite(values))
    # slides of the same score are taken together or not at all: below the value of the first that is too much
    return float(values[beyond[0]]) if len(beyond) else math.inf


def left_out_risk(
    scores: NDArray[np.floating], wrong: NDArray[np.bool_], patients: NDArray[np.str_], *, rate: float
) -> tuple[float, float]:
    """What thresholds from the other patients do on each: mean share of slides taken and wrong, and taken; NaN for too few."""
    names = sorted(set(patients.tolist()))
    if len(names) - 1 < patients_needed(rate):
        return math.nan, math.nan
    risks, shares = [], []
    for name in names:
        own = patients == name
        taken = scores[own] < risk_threshold(scores[~own], wrong[~own], patients[~own], rate=rate)
        risks.append(float((taken & wrong[own]).mean()))
        shares.append(float(taken.mean()))
    return float(np.mean(risks)), float(np.mean(shares))
