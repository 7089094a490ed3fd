"""p-value of two maps that agree although neighbours resemble each other: one is shifted over the other.

Patches of a slide are no independent samples, so a p-value from their number is far too small. Shifting one map keeps
how neighbours resemble each other in both and breaks only what links them. All shifts of the grid are taken, none drawn.
Maps do not wrap around: where they do, opposite borders of the tissue become neighbours, and on ragged tissue the pieces
differ in size. Fewer patches overlap under a longer shift, and the correlation spreads more; it is therefore multiplied
by the root of their number (Mrkvička and others 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import fft, stats

from spatialsig.stats.agreement import is_constant

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_OVERLAP = 0.25  # share of the patches that must still lie on each other under a shift
MIN_SHIFTS = 20  # fewer give no p-value worth a number


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
