"""Split conformal prediction: how wide an interval must be to hold the truth as often as promised.

Errors are measured on patches that the model has not learned from. Their ``coverage`` quantile, a little raised because
they are finitely many, is the half-width of the interval. Three ways to raise it, from what is assumed:

- patches are exchangeable: the ``ceil((n + 1) coverage)``-th smallest error; coverage of a new patch is then at least
  ``coverage`` and at most ``1 / (n + 1)`` more (Vovk et al. 2005; Lei et al. 2018).
- slides weigh the same, ``guarantee="patches"``: a slide with more patches does not count for more; the correction is
  that of as many patches as the weights are worth. Nothing is promised about the slides, which are taken as they are.
- slides are exchangeable, ``guarantee="slides"``: a new slide is one more draw, and a share ``1 / (K + 1)`` of the
  probability lies beyond all that was seen (Dunn et al. 2023; Lee et al. 2023). The only one of the three that holds for
  a patch of a new slide; it needs at least ``coverage / (1 - coverage)`` slides.

Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024, https://doi.org/10.48550/arXiv.2208.02814): of
losses between 0 and 1 that only grow with a threshold, the largest threshold at which ``(sum of n losses + 1) / (n + 1)`` stays
within a rate keeps the expected loss of one more exchangeable draw within it too.

Floor 1, above the ground floor. Used by inference/decisions, tl/_calibrate.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._checks import check_choice
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

GUARANTEES = ("patches", "slides")
_ROUNDING = 1e-12
_ROUNDING = 1e-12  # of sums of weights, relative to 1


def conformal_quantile(
    errors: NDArray[Any], *, coverage: float, groups: NDArray[Any] | None = None, guarantee: str = "patches"
) -> float:
    """Half-width that holds the truth of a new patch with probability ``coverage``.

    Parameters
    ----------
    errors
        Absolute errors ``(n,)`` at least 0, NaN where the truth is not known.
    coverage
        Share of new patches to hold, between 0 and 1.
    groups
        Slide of each error, ``(n,)``: slides then weigh the same. None takes all patches as exchangeable.
    guarantee
        ``"patches"`` or ``"slides"``, see the module; only matters with ``groups``.

    Returns
    -------
    The half-width, infinite where there are too few patches (or slides) for the promise.

    Raises
    ------
    InputError
        If ``coverage`` is not between 0 and 1 or an error is negative.
    """
    check_coverage(coverage)
    check_choice(guarantee, GUARANTEES, name="guarantee")
    values = np.asarray(errors, np.float64)
    known = ~np.isnan(values)
    if (values[known] < 0).any():
        msg = f"errors must be at least 0; got {values[known].min()}."
        raise InputError(msg)
    if not known.any():
        return math.inf
    if groups is None:
        weight, beyond = np.ones(int(known.sum())), 1.0
    else:
        weight, beyond = _weights(np.asarray(groups)[known], guarantee)
    return _weighted_quantile(values[known], weight, coverage * (weight.sum() + beyond))


def slides_needed(coverage: float) -> int:
    """Fewest slides for which ``guarantee="slides"`` gives a finite interval."""
    check_coverage(coverage)
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def left_out_coverage(errors: NDArray[Any], groups: NDArray[Any], *, coverage: float) -> dict[str, float]:
    """Share of each slide's patches that intervals from the other slides hold; empty for fewer than two slides.

    How far these lie apart is how much the coverage of a new slide may differ from the promise.
    """
    groups, known = np.asarray(groups), ~np.isnan(errors)
    names = [name for name in dict.fromkeys(groups.tolist()) if known[groups == name].any()]
    if len(names) < 2:
        return {}
    held = {}
    for name in names:
        mine = groups == name
        width = conformal_quantile(errors[~mine], coverage=coverage, groups=groups[~mine])
        held[str(name)] = float((errors[mine & known] <= width).mean())
    return held


def check_coverage(coverage: float) -> None:
    """Raise :class:`InputError` unless ``coverage`` lies between 0 and 1, both excluded."""
    if not 0 < coverage < 1:
        msg = f"`coverage` must lie between 0 and 1, both excluded; got {coverage!r}."
        raise InputError(msg)


def _weights(groups: NDArray[Any], guarantee: str) -> tuple[NDArray[np.float64], float]:
    """Weight of each patch, every slide the same in all, and of the new one, which may lie anywhere."""
    _, member, size = np.unique(groups, return_inverse=True, return_counts=True)
    weight = 1.0 / size[member]  # every slide: 1 in all
    if guarantee == "slides":
        return weight, 1.0
    # as many equal patches as have the same variance of a mean (Kish)
    return weight, float((weight**2).sum() / weight.sum())


def _weighted_quantile(values: NDArray[np.float64], weight: NDArray[np.float64], wanted: float) -> float:
    """Smallest value at and below which there is at least ``wanted`` weight; infinite where there is not so much."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    index = int(np.searchsorted(reached, wanted * (1 - _ROUNDING)))
    return float(values[order[index]]) if index < len(values) else math.inf


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
    taken = left_out_taken(scores, wrong, patients, rate=rate)
    if taken is None:
        return math.nan, math.nan
    of_each = [patients == name for name in sorted(set(patients.tolist()))]
    risks, shares = zip(*(((taken & wrong)[own].mean(), taken[own].mean()) for own in of_each), strict=True)
    return float(np.mean(risks)), float(np.mean(shares))


def left_out_taken(
    scores: NDArray[np.floating], wrong: NDArray[np.bool_], patients: NDArray[np.str_], *, rate: float
) -> NDArray[np.bool_] | None:
    """Whether each slide is taken by the threshold from the other patients, ``(n,)``; None for too few of them."""
    names = sorted(set(patients.tolist()))
    if len(names) - 1 < patients_needed(rate):
        return None
    taken = np.zeros(len(scores), bool)
    for name in names:
        own = patients == name
        taken[own] = scores[own] < risk_threshold(scores[~own], wrong[~own], patients[~own], rate=rate)
    return taken
