"""Learning curves against planted ones."""

import numpy as np
import pytest

from spatialsig.stats.learning_curve import Curve, fit_curve, subset_noise

SIZES = np.array([1, 2, 3, 4, 6])


def planted(
    rng: np.random.Generator, *, a: float, b: float, c: float, noise: float, n_pool: int = 6, n_more: int = 12
) -> tuple[np.ndarray, float]:
    """Points of nested subsets of a pool, and what the pool with further patients reaches: each patient has a worth of its own."""
    worth = rng.normal(size=n_more) * np.sqrt(noise)
    values = np.full((10, len(SIZES)), np.nan)
    for repeat in range(10):
        order = rng.permutation(n_pool)
        for k, n in enumerate(SIZES):
            if n < n_pool or repeat == 0:
                values[repeat, k] = a - b * n**-c + worth[order[:n]].mean()
    return values, a - b * n_more**-c + worth.mean()


@pytest.mark.parametrize(("a", "b", "c"), [(0.9, 0.5, 1.0), (0.7, 0.4, 0.5), (0.95, 0.3, 1.5)])
def test_the_interval_holds_the_truth(a: float, b: float, c: float) -> None:
    rng, inside = np.random.default_rng(0), []
    for _ in range(40):
        values, truth = planted(rng, a=a, b=b, c=c, noise=0.003)
        low, high = np.quantile(fit_curve(SIZES, values, n_pool=6).of_one_cohort(12), [0.025, 0.975])
        inside.append(low <= truth <= high)
    assert np.mean(inside) >= 0.9


def test_without_noise_on_a_long_curve_the_curve_is_found() -> None:
    n = np.array([1, 2, 4, 8, 16, 32, 64, 128])
    values = (0.8 - 0.6 * n**-0.7)[None].repeat(2, axis=0)
    curve = fit_curve(n, values, n_pool=128)
    assert np.median(curve.a) == pytest.approx(0.8, abs=0.03)
    assert np.median(curve.at(256)) == pytest.approx(0.8 - 0.6 * 256**-0.7, abs=0.01)
    needed = (0.6 / 0.2) ** (1 / 0.7)
    low, high = np.quantile(curve.needed(0.6), [0.025, 0.975])
    assert low <= np.ceil(needed) <= high
    assert high <= 8


def test_what_is_needed_is_where_the_curve_passes() -> None:
    curve = Curve(np.array([0.9, 0.7, 0.9]), np.array([0.5, 0.2, 0.0]), np.array([1.0, 1.0, 1.0]), 0.0)
    assert curve.needed(0.8).tolist() == [5.0, np.inf, 1.0]
    assert curve.at(5)[0] == pytest.approx(0.8)


def test_noise_of_subsets_is_that_of_patients() -> None:
    rng = np.random.default_rng(1)
    worth = rng.normal(size=40) * 0.1
    n = np.array([1.0, 2.0, 10.0, 40.0])
    values = np.array([[worth[(order := rng.permutation(40))[: int(k)]].mean() for k in n] for _ in range(400)])
    del order
    assert subset_noise(n, values, 40) == pytest.approx(worth.var(ddof=1), rel=0.15)


def test_a_flat_curve_reaches_nothing_above_it() -> None:
    n = np.array([1, 2, 4, 8, 16, 32])
    curve = fit_curve(n, np.full((3, 6), 0.3), n_pool=32)
    assert (curve.needed(0.8) <= 1000).mean() < 0.1
