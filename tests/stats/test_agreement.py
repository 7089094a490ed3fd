import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from spatialsig.stats.agreement import agreement, pearson


def test_metrics_equal_scipy_and_sklearn() -> None:
    rng = np.random.default_rng(0)
    truth, guess = rng.normal(size=200), rng.normal(size=200)
    truth[::7], guess[5] = np.nan, np.nan
    keep = np.isfinite(truth) & np.isfinite(guess)
    result = agreement(truth, guess)
    assert result["n_patches"] == keep.sum()
    assert result["pearson"] == pytest.approx(stats.pearsonr(truth[keep], guess[keep])[0])
    assert result["spearman"] == pytest.approx(stats.spearmanr(truth[keep], guess[keep])[0])
    assert result["r2"] == pytest.approx(metrics.r2_score(truth[keep], guess[keep]))
    assert result["mae"] == pytest.approx(metrics.mean_absolute_error(truth[keep], guess[keep]))


@pytest.mark.parametrize(
    ("truth", "guess"),
    [(np.full(20, np.nan), np.arange(20.0)), (np.full(20, 3.0), np.arange(20.0)), (np.arange(9.0), np.arange(9.0))],
    ids=["nothing measured", "constant labels", "too few patches"],
)
def test_what_cannot_be_judged_is_nan(truth: np.ndarray, guess: np.ndarray) -> None:
    assert np.isnan(agreement(truth, guess)["pearson"])


def test_constant_prediction_scores_zero() -> None:
    assert agreement(np.arange(20.0), np.full(20, 0.3))["pearson"] == 0.0


def test_pearson_by_column() -> None:
    a = np.random.default_rng(0).normal(size=(50, 2))
    b = np.c_[a[:, 0], -a[:, 1]]
    np.testing.assert_allclose(pearson(a, b), [1, -1])
