"""Learning curves: an inverse power law over the number of patients, with what is not known about it.

What a model reaches with ``n`` training patients is taken as ``a - b n^-c``: ``a`` is where the curve levels off. Few points on
a short range leave ``a`` and ``c`` open, so all curves that fit are kept, weighted by how well they do (Bayes, on a grid), and
whatever is read from the curve is read from all of them. Two things make the points uncertain: which patients were drawn of the
pool (less so for large subsets, and for the whole pool not at all), and which patients the pool holds (the same for all points).

Floor 1, above the ground floor. Used by evaluation/learning_curves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

N_DRAWS = 4000
EXPONENT, SPREAD = 0.8, 0.6  # median and log deviation of c before anything is seen
EXPONENTS = np.geomspace(0.15, 3.0, 30)
MISFIT = 0.01  # deviation of a point from any power law
LEAST_NOISE = 1e-4  # variance of one patient's worth of training
BELOW = 0.6  # how far below the lowest point a curve may begin


@dataclass(frozen=True)
class Curve:
    """Curves that fit, drawn by how well they do."""

    a: Floats  # (n_draws,)
    b: Floats
    c: Floats
    noise: float  # variance of what another single patient to learn from would give

    def at(self, n: float) -> Floats:
        """Expected value with ``n`` patients, one for each curve."""
        return np.asarray(self.a - self.b * float(n) ** -self.c)

    def of_one_cohort(self, n: float, *, seed: int = 0) -> Floats:
        """Value that one cohort of ``n`` patients may reach: the curves, and the chance of who these are."""
        chance = np.random.default_rng(seed).normal(size=len(self.a)) * np.sqrt(self.noise / n)
        return np.asarray(self.at(n) + chance)

    def needed(self, target: float) -> Floats:
        """Patients that each curve needs for ``target``; infinite where it levels off below."""
        reach = self.a - target
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            n = (self.b / np.where(reach > 0, reach, np.nan)) ** (1 / self.c)
        return np.where(reach > 0, np.maximum(np.ceil(np.nan_to_num(n, nan=1.0) - 1e-9), 1.0), np.inf)


def fit_curve(n_patients: NDArray[np.int64], values: Floats, *, n_pool: int, top: float = 1.0, seed: int = 0) -> Curve:
    """Curves through the values of nested subsets.

    Parameters
    ----------
    n_patients
        Sizes of the subsets, ``(m,)``, at least three different ones.
    values
        What was reached, ``(n_repeats, m)``; NaN where a subset was not tried.
    n_pool
        Patients that the subsets were drawn from.
    top
        Largest value there can be.
    seed
        Of the draws.
    """
    n = np.asarray(n_patients, np.float64)
    repeats = np.isfinite(values).sum(axis=0)
    mean = np.nansum(values, axis=0) / np.maximum(repeats, 1)
    noise = subset_noise(n, values, n_pool)
    covariance = np.diag(noise * (1 / n - 1 / n_pool).clip(0) / np.maximum(repeats, 1) + MISFIT**2) + noise / n_pool
    precision = np.linalg.inv(covariance)
    a = np.linspace(min(mean.max() - 0.1, top - 0.05), max(top, mean.max()), 90)
    start = np.linspace(mean.min() - BELOW, max(top, mean.max()), 90)  # with one patient
    grid_a, grid_start, grid_c = (axis.ravel() for axis in np.meshgrid(a, start, EXPONENTS, indexing="ij"))
    rising = grid_start <= grid_a
    grid_a, grid_start, grid_c = grid_a[rising], grid_start[rising], grid_c[rising]
    off = mean - (grid_a[:, None] - (grid_a - grid_start)[:, None] * n ** -grid_c[:, None])
    fit = -0.5 * np.einsum("ij,jk,ik->i", off, precision, off)
    prior = -0.5 * (np.log(grid_c / EXPONENT) / SPREAD) ** 2
    weight = np.exp(fit + prior - (fit + prior).max())
    drawn = np.random.default_rng(seed).choice(len(weight), N_DRAWS, p=weight / weight.sum())
    return Curve(grid_a[drawn], (grid_a - grid_start)[drawn], grid_c[drawn], noise)


def subset_noise(n: Floats, values: Floats, n_pool: int) -> float:
    """Variance of one patient's worth, from how subsets of one size differ; those of a small pool share patients."""
    estimates = [
        size * column.var(ddof=1) / (1 - size / n_pool)
        for size, column in zip(n, (v[np.isfinite(v)] for v in values.T), strict=True)
        if len(column) > 1 and size < n_pool
    ]
    return max(float(np.mean(estimates)) if estimates else 0.0, LEAST_NOISE)
