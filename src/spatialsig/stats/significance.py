"""Intervals and p-values where slides are few and neighbouring patches resemble each other.

Patches of a slide are no independent samples, so a p-value from their number is far too small. Shifting one map keeps
how neighbours resemble each other in both and breaks only what links them. All shifts of the grid are taken, none drawn.
Maps do not wrap around: where they do, opposite borders of the tissue become neighbours, and on ragged tissue the pieces
differ in size. Fewer patches overlap under a longer shift, and the correlation spreads more; it is therefore multiplied
by the root of their number (Mrkvička and others 2021).

Floor 1, above the ground floor. Used by 5 modules of evaluation, referee, tl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import fft, stats

from spatialsig._checks import check_choice
from spatialsig.errors import InputError
from spatialsig.stats.agreement import is_constant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

INTERVALS = ("t", "fisher", "bca", "percentile")
N_RESAMPLES = 9999
MIN_OVERLAP = 0.25  # share of the patches that must still lie on each other under a shift
MIN_SHIFTS = 20  # fewer give no p-value worth a number


@dataclass(frozen=True)
class Interval:
    """A mean over clusters, where it may lie, the p-value of a mean of 0, and the number of clusters."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def cluster_interval(
    values: NDArray[Any], clusters: Sequence[Any], *, method: str = "t", level: float = 0.95, seed: int = 0
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


@dataclass(frozen=True)
class Field:
    """A map on a grid, its mask and its square, ready to be shifted; make one with :func:`field`."""

    value: NDArray[np.complex128]
    square: NDArray[np.complex128]
    mask: NDArray[np.complex128]
    shape: tuple[int, int]
    flat: bool


def field(values: NDArray[Any], row: NDArray[np.int64], col: NDArray[np.int64]) -> Field:
    """Lay the values of patches ``(n,)`` on their grid; NaN is off the tissue."""
    seen = np.isfinite(values)
    row, col = row - row.min(), col - col.min()
    size = fft.next_fast_len(2 * int(row.max()) + 1, real=True), fft.next_fast_len(2 * int(col.max()) + 1, real=True)
    flat = not seen.any() or is_constant(values[seen])
    centred = np.where(seen, values - (values[seen].mean() if seen.any() else 0.0), 0.0)
    spread = centred.std()
    maps = np.zeros((3, *size))
    scaled = centred if flat else centred / spread
    for k, layer in enumerate((scaled, scaled**2, seen)):
        maps[k, row, col] = layer
    value, square, mask = fft.rfft2(maps)
    return Field(value, square, mask, shape=size, flat=flat)


def shift_p(measured: Field, predicted: Field, *, min_overlap: float = MIN_OVERLAP) -> float:
    """Share of all shifts under which two maps of one grid agree as well as where they lie (that one included).

    One-sided: only a positive correlation counts as agreement. NaN where a map is constant or the grid has fewer than 20
    shifts that leave ``min_overlap`` of the patches on each other.
    """
    if measured.flat or predicted.flat:
        return np.nan
    n, r = _correlations(measured, predicted)
    usable = (n >= max(3.0, min_overlap * n[0, 0])) & np.isfinite(r)
    if usable.sum() < MIN_SHIFTS or not usable[0, 0]:
        return np.nan
    statistic = r * np.sqrt(n)
    return float((statistic[usable] >= statistic[0, 0] - 1e-9).mean())


def _correlations(a: Field, b: Field) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Number of overlapping patches and their Pearson r under every shift; index [0, 0] is no shift."""
    pairs = np.stack(
        [
            a.mask * b.mask.conj(),
            a.value * b.mask.conj(),
            a.mask * b.value.conj(),
            a.value * b.value.conj(),
            a.square * b.mask.conj(),
            a.mask * b.square.conj(),
        ]
    )
    n, sum_a, sum_b, sum_ab, sum_aa, sum_bb = fft.irfft2(pairs, s=a.shape)
    n = np.rint(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        covariance = sum_ab - sum_a * sum_b / n
        spread = np.sqrt((sum_aa - sum_a**2 / n) * (sum_bb - sum_b**2 / n))
        r = np.where(spread > 1e-6, covariance / spread, np.nan)
    return n, r


def exchange_p(measured: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Chance that exchangeable patches agree as well (one-sided, by Student's t); NaN below three, or where one map is constant."""
    both = np.isfinite(measured) & np.isfinite(predicted)
    x, y = np.asarray(measured, np.float64)[both], np.asarray(predicted, np.float64)[both]
    if len(x) < 3 or is_constant(x) or is_constant(y):
        return np.nan
    return float(stats.pearsonr(x, y, alternative="greater").pvalue)


def most_of(p_values: NDArray[Any]) -> float:
    """One p-value for half of several hypotheses or more: twice the median, valid however they depend (Rüger 1978).

    NaN ones are left out; NaN where none is left. One hypothesis alone can make the least of them small, not this one.
    """
    p = np.asarray(p_values, np.float64)
    p = p[np.isfinite(p)]
    if not len(p):
        return np.nan
    half = (len(p) + 1) // 2  # of K sorted p-values, the k-th times K / k is one
    return min(1.0, float(np.sort(p)[half - 1]) * len(p) / half)


def combine(p_values: NDArray[Any]) -> float:
    """One p-value from those of several slides (Stouffer); NaN ones are left out, NaN where none is left."""
    p = np.asarray(p_values, np.float64)
    p = p[np.isfinite(p)]
    if not len(p):
        return np.nan
    # a share of 1 is no certainty, only the largest that the shifts can say
    return float(stats.combine_pvalues(np.clip(p, 1e-12, 1 - 1e-3), method="stouffer").pvalue)


def benjamini_hochberg(p_values: NDArray[Any]) -> NDArray[np.float64]:
    """False discovery rate at which each p-value ``(n,)`` would be called; NaN stays NaN and does not count."""
    p = np.asarray(p_values, np.float64)
    q, finite = np.full(p.shape, np.nan), np.isfinite(p)
    if finite.any():
        q[finite] = stats.false_discovery_control(p[finite], method="bh")
    return q
