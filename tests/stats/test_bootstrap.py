import numpy as np
import pytest
from scipy import stats

from spatialsig._errors import InputError
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


@pytest.mark.parametrize("n", [2, 3, 6])
def test_the_default_holds_the_truth_as_often_as_it_says(n: int) -> None:
    """Skewed correlations of few patients; the plain bootstrap of two holds it in half of the cases."""
    rng = np.random.default_rng(n)
    truth = np.tanh(rng.normal(0.8, 0.35, 200_000)).mean()
    held = []
    for _ in range(600):
        found = cluster_interval(np.tanh(rng.normal(0.8, 0.35, n)), range(n))
        held.append(found.low <= truth <= found.high)
    assert 0.92 <= np.mean(held) <= 0.98


def test_one_patient_has_no_interval() -> None:
    found = cluster_interval(np.array([0.5, 0.7]), ["a", "a"])
    assert found.mean == pytest.approx(0.6)
    assert np.isnan([found.low, found.high, found.p]).all()
    assert np.isnan(cluster_interval(np.array([np.nan]), ["a"]).mean)


def test_errors() -> None:
    with pytest.raises(InputError, match=r"`method='normal'` is not known; choose one of \['t', 'bca', 'percentile'\]"):
        cluster_interval(np.ones(3), range(3), method="normal")
    with pytest.raises(InputError, match="`level` must lie between 0 and 1; got 95"):
        cluster_interval(np.ones(3), range(3), level=95)
