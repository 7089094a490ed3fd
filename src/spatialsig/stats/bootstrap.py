"""Intervals when the unit of replication is a slide or a patient, of which there are few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from spatialsig._checks import check_choice
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

INTERVALS = ("t", "fisher", "bca", "percentile")
N_RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """A mean over clusters, where it may lie, the p-value of a mean of 0, and the number of clusters."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def cluster_interval(
    values: NDArray[Any],
    clusters: Sequence[Any],
    *,
    method: str = "t",
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean over clusters of the mean of their values ``(n,)``, with a confidence interval.

    Parameters
    ----------
    values
        One number per slide (a correlation, a difference); NaN is left out.
    clusters
        Slide or patient of each value.
    method
        ``"t"``: Student's t over the means of the clusters, right from two clusters on. ``"fisher"``: the same on Fisher's
        z (artanh), around the z of the mean: for correlations, whose skewness makes ``"t"`` too narrow. ``"bca"``, ``"percentile"``:
        bootstrap of the clusters (bias-corrected and accelerated; plain), too narrow below about fifteen.
    level
        Coverage wanted, between 0 and 1.
    seed
        Of the bootstrap.

    Returns
    -------
    Interval; ``low``, ``high`` and ``p`` (two-sided, Student's t) are NaN with fewer than two clusters.

    Raises
    ------
    InputError
        If the method is not known, ``level`` is no share, or values beyond -1 and 1 are to be turned into Fisher's z.
    """
    check_choice(method, INTERVALS, name="method")
    if not 0 < level < 1:
        msg = f"`level` must lie between 0 and 1; got {level!r}."
        raise InputError(msg)
    by_cluster = pd.Series(np.asarray(values, np.float64)).groupby(list(map(str, clusters)))
    means: NDArray[np.floating] = by_cluster.mean().dropna().to_numpy(np.float64)
    if len(means) < 2:
        return Interval(float(means[0]) if len(means) else np.nan, np.nan, np.nan, np.nan, len(means))
    mean, error = float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))
    low, high = _bounds(means, method, level, seed)
    p = 2 * float(stats.t.sf(abs(mean) / error, len(means) - 1)) if error > 0 else float(mean == 0)
    return Interval(mean, low, high, p, len(means))


def _bounds(means: NDArray[np.floating], method: str, level: float, seed: int) -> tuple[float, float]:
    mean = means.mean()
    if np.ptp(means) == 0:
        return float(mean), float(mean)
    if method == "t":
        reach = _reach(means, level)
        return float(mean - reach), float(mean + reach)
    if method == "fisher":
        centre, reach = fisher_z(mean), _reach(fisher_z(means), level)
        return float(np.tanh(centre - reach)), float(np.tanh(centre + reach))
    drawn = stats.bootstrap(
        (means,),
        np.mean,
        n_resamples=N_RESAMPLES,
        confidence_level=level,
        method="BCa" if method == "bca" else method,
        rng=np.random.default_rng(seed),
    )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def _reach(means: NDArray[np.floating], level: float) -> float:
    """Half the width of Student's interval."""
    return float(stats.t.ppf((1 + level) / 2, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)))


def fisher_z(r: NDArray[np.floating] | np.floating) -> NDArray[np.floating]:
    """Artanh of correlations, finite also where one is 1."""
    if np.abs(r).max() > 1 + 1e-9:
        msg = f"interval 'fisher' is for correlations, which lie between -1 and 1; got {np.abs(r).max():.3g}."
        raise InputError(msg)
    z: NDArray[np.floating] = np.arctanh(np.clip(r, -1 + 1e-9, 1 - 1e-9))
    return z
