import numpy as np
import pytest
from scipy import stats

from spatialsig.errors import InputError
from spatialsig.stats.bootstrap import cluster_interval


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


@pytest.mark.parametrize("n", [2, 3, 6])
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
