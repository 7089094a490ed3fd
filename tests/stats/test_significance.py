import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats

from spatialsig.errors import InputError
from spatialsig.stats.significance import benjamini_hochberg, cluster_interval, combine, field, shift_p


def test_equals_scipys_interval_over_the_means_of_clusters() -> None:
    values, clusters = np.array([0.1, 0.3, 0.6, 0.5, np.nan, 0.9]), ["a", "a", "b", "c", "c", "d"]
    means = np.array([0.2, 0.6, 0.5, 0.9])
    found = cluster_interval(values, clusters)
    low, high = stats.t.interval(0.95, 3, loc=means.mean(), scale=stats.sem(means))
    assert (found.mean, found.low, found.high) == pytest.approx((means.mean(), low, high))
    assert found.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    assert found.n == 4


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_bootstraps_equal_scipys(method: str) -> None:
    values = np.random.default_rng(0).exponential(size=40)
    found = cluster_interval(values, range(40), method=method, seed=1)
    oracle = stats.bootstrap(
        (values,),
        np.mean,
        method="BCa" if method == "bca" else method,
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((oracle.low, oracle.high), abs=0.06)
    assert found == cluster_interval(values, range(40), method=method, seed=1)


def test_fishers_interval_is_students_on_the_scale_of_z() -> None:
    r = np.array([0.2, 0.6, 0.5, 0.9])
    found = cluster_interval(r, range(4), method="fisher")
    centre = np.arctanh(r.mean())
    bounds = stats.t.interval(0.95, 3, loc=centre, scale=stats.sem(np.arctanh(r)))
    assert (found.mean, found.low, found.high) == pytest.approx((r.mean(), *np.tanh(bounds)))


def test_fishers_interval_of_perfect_correlations_is_finite_and_other_numbers_are_refused() -> None:
    found = cluster_interval(np.array([1.0, 1.0, 0.9]), range(3), method="fisher")
    assert -1 < found.low < found.mean < found.high <= 1
    with pytest.raises(InputError, match=r"lie between -1 and 1; got 1\.5"):
        cluster_interval(np.array([1.5, 0.2]), range(2), method="fisher")


@pytest.mark.parametrize("n", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 6))])
def test_that_of_correlations_holds_the_truth_as_often_as_it_says(n: int) -> None:
    """Skewed correlations of few patients; the plain bootstrap of two holds it in half of the cases."""
    rng = np.random.default_rng(n)
    truth = np.tanh(rng.normal(0.8, 0.35, 200_000)).mean()
    held = []
    for _ in range(2000):
        found = cluster_interval(np.tanh(rng.normal(0.8, 0.35, n)), range(n), method="fisher")
        held.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_one_patient_has_no_interval() -> None:
    found = cluster_interval(np.array([0.5, 0.7]), ["a", "a"])
    assert found.mean == pytest.approx(0.6)
    assert np.isnan([found.low, found.high, found.p]).all()
    assert np.isnan(cluster_interval(np.array([np.nan]), ["a"]).mean)


def test_errors() -> None:
    with pytest.raises(
        InputError, match=r"`method='normal'` is not known; choose one of \['t', 'fisher', 'bca', 'percentile'\]"
    ):
        cluster_interval(np.ones(3), range(3), method="normal")
    with pytest.raises(InputError, match="`level` must lie between 0 and 1; got 95"):
        cluster_interval(np.ones(3), range(3), level=95)


def smooth(rng: np.random.Generator, side: int, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(rng.normal(size=(3 * side, 3 * side)), sigma)[side:-side, side:-side]


def brute_force(a: np.ndarray, b: np.ndarray, min_overlap: float) -> float:
    """All shifts of two maps ``(rows, cols)`` with NaN off the tissue, one by one."""
    rows, cols = a.shape
    found = {}
    for dy in range(-rows + 1, rows):
        for dx in range(-cols + 1, cols):
            moved = np.full(a.shape, np.nan)
            moved[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : cols + min(dx, 0)] = b[
                max(-dy, 0) : rows + min(-dy, 0), max(-dx, 0) : cols + min(-dx, 0)
            ]
            both = np.isfinite(a) & np.isfinite(moved)
            if both.sum() >= 3:
                found[dy, dx] = both.sum(), np.corrcoef(a[both], moved[both])[0, 1]
    n0 = found[0, 0][0]
    statistic = {k: r * np.sqrt(n) for k, (n, r) in found.items() if n >= min_overlap * n0}
    return float(np.mean(np.array(list(statistic.values())) >= statistic[0, 0] - 1e-9))


@pytest.mark.parametrize("seed", range(3))
def test_equals_shifting_one_by_one_on_ragged_tissue(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 8, 11))
    a[rng.random(a.shape) < 0.3] = np.nan
    b[np.isnan(a)] = np.nan
    row, col = np.indices(a.shape).reshape(2, -1) + 5
    keep = rng.permutation(a.size)  # the order of patches does not matter
    p = shift_p(*(field(m.ravel()[keep], row[keep], col[keep]) for m in (a, 3 * b + 100)))
    assert p == pytest.approx(brute_force(a, b, 0.25))


def test_uniform_when_smooth_maps_have_nothing_in_common() -> None:
    """... where the p-value of independent patches calls every third pair significant."""
    rng = np.random.default_rng(0)
    shifted, naive = [], []
    for _ in range(250):
        tissue = smooth(rng, 18, 4.0)
        row, col = np.nonzero(tissue > np.quantile(tissue, 0.4))
        maps = [smooth(rng, 18, 2.0)[row, col] for _ in range(2)]
        shifted.append(shift_p(*(field(m, row, col) for m in maps)))
        naive.append(stats.pearsonr(*maps, alternative="greater").pvalue)
    assert stats.kstest(shifted, "uniform").pvalue > 0.01
    assert stats.kstest(naive, "uniform").pvalue < 1e-6
    assert np.mean(np.array(naive) < 0.05) > 0.2


def test_a_real_link_is_found_and_its_opposite_is_not() -> None:
    rng = np.random.default_rng(1)
    truth = smooth(rng, 24, 1.5)
    row, col = np.indices(truth.shape).reshape(2, -1)
    guess = truth / truth.std() + smooth(rng, 24, 1.5) / truth.std()
    a, b = field(truth.ravel(), row, col), field(guess.ravel(), row, col)
    assert shift_p(a, b) < 0.01
    assert shift_p(a, field(-guess.ravel(), row, col)) > 0.9


def test_without_data_there_is_no_p() -> None:
    row, col = np.indices((6, 6)).reshape(2, -1)
    some = field(np.random.default_rng(0).normal(size=36), row, col)
    assert np.isnan(shift_p(some, field(np.full(36, 2.0), row, col)))
    assert np.isnan(shift_p(field(np.full(36, np.nan), row, col), some))
    line = np.arange(4), np.zeros(4, int)  # seven shifts are too few
    assert np.isnan(shift_p(field(np.arange(4.0), *line), field(np.arange(4.0) ** 2, *line)))


def test_combined_p_is_stouffers() -> None:
    p = np.array([0.03, np.nan, 0.2, 0.5])
    assert combine(p) == pytest.approx(stats.combine_pvalues([0.03, 0.2, 0.5], method="stouffer").pvalue)
    assert np.isnan(combine(np.array([np.nan])))
    assert 0 < combine(np.array([1.0, 0.01])) < 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 3))
def test_fdr_equals_its_definition(p: list[float], n_missing: int) -> None:
    q = benjamini_hochberg(np.array([*p, *[np.nan] * n_missing]))
    expected = [min(min(len(p) * other / sum(x <= other for x in p) for other in p if other >= one), 1) for one in p]
    np.testing.assert_allclose(q[: len(p)], expected, atol=1e-12)
    assert np.isnan(q[len(p) :]).all()
