import numpy as np
import pytest
import torch
from scipy import sparse, stats
from sklearn import linear_model, metrics
from torchmetrics.functional import concordance_corrcoef

from spatialsig.stats.agreement import METRICS, agreement, ceiling_from_halves, partial_pearson, pearson, split_counts


def test_metrics_equal_scipy_sklearn_and_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=200)
    guess = 0.5 * truth + rng.normal(size=200) + 3
    truth[::7], guess[5] = np.nan, np.nan
    keep = np.isfinite(truth) & np.isfinite(guess)
    result = agreement(truth, guess)
    assert result["n_patches"] == keep.sum()
    assert result["pearson"] == pytest.approx(stats.pearsonr(truth[keep], guess[keep])[0])
    assert result["spearman"] == pytest.approx(stats.spearmanr(truth[keep], guess[keep])[0])
    assert result["r2"] == pytest.approx(metrics.r2_score(truth[keep], guess[keep]))
    assert result["mae"] == pytest.approx(metrics.mean_absolute_error(truth[keep], guess[keep]))
    line = linear_model.LinearRegression().fit(guess[keep, None], truth[keep])
    assert result["calibration_slope"] == pytest.approx(line.coef_[0])
    assert result["calibration_intercept"] == pytest.approx(line.intercept_)
    # torchmetrics divides by n - 1, Lin's definition by n: the offset between means weighs a little less there
    n = keep.sum()
    oracle = float(concordance_corrcoef(torch.tensor(guess[keep]), torch.tensor(truth[keep])))
    assert result["ccc"] == pytest.approx(oracle, rel=2 / n)
    a, b = truth[keep], guess[keep]
    lin = 2 * np.cov(a, b, ddof=0)[0, 1] / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
    assert result["ccc"] == pytest.approx(lin)


def test_calibration_undoes_a_known_scale() -> None:
    truth = np.random.default_rng(1).normal(size=50)
    result = agreement(truth, (truth - 0.5) / 2)
    assert (result["calibration_slope"], result["calibration_intercept"]) == (pytest.approx(2), pytest.approx(0.5))
    assert result["ccc"] < result["pearson"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("truth", "guess"),
    [
        (np.full(20, np.nan), np.arange(20.0)),
        (np.arange(20.0), np.full(20, np.nan)),
        (np.full(20, 3.0), np.arange(20.0)),
        (np.arange(9.0), np.arange(9.0)),
    ],
    ids=["nothing measured", "nothing predicted", "constant labels", "too few patches"],
)
def test_what_cannot_be_judged_is_nan(truth: np.ndarray, guess: np.ndarray) -> None:
    result = agreement(truth, guess)
    assert all(np.isnan(result[name]) for name in METRICS)


def test_constant_prediction_scores_zero_and_has_no_calibration() -> None:
    result = agreement(np.arange(20.0), np.full(20, 0.3))
    assert result["pearson"] == result["ccc"] == 0.0
    assert np.isnan(result["calibration_slope"])


def test_pearson_by_column() -> None:
    a = np.random.default_rng(0).normal(size=(50, 2))
    b = np.c_[a[:, 0], -a[:, 1]]
    np.testing.assert_allclose(pearson(a, b), [1, -1])


def test_partial_r_equals_the_inverse_of_the_correlation_matrix() -> None:
    rng = np.random.default_rng(2)
    given = rng.normal(size=(300, 2)) * [1, 1000]
    truth = given[:, 0] + 0.002 * given[:, 1] + rng.normal(size=300)
    guess = given[:, 0] + 0.5 * truth + rng.normal(size=300)
    precision = np.linalg.inv(np.corrcoef(np.c_[truth, guess, given].T))
    oracle = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
    assert partial_pearson(truth, guess, given) == pytest.approx(oracle)
    guess[:3], given[5, 1] = np.nan, np.nan
    assert np.isfinite(partial_pearson(truth, guess, given))


def test_partial_r_of_density_itself_is_nothing() -> None:
    rng = np.random.default_rng(3)
    density = rng.normal(size=(100, 1))
    truth = density[:, 0] + rng.normal(size=100)
    assert partial_pearson(truth, 3 * density[:, 0] + 1, density) == 0.0
    assert partial_pearson(truth, np.full(100, 7.3), density) == 0.0
    assert np.isnan(partial_pearson(density[:, 0], truth, density))
    assert np.isnan(partial_pearson(truth[:10], truth[:10], density[:10]))


def test_halves_add_up_and_are_independent_thinnings() -> None:
    counts = sparse.random(400, 50, density=0.4, random_state=0, format="csr")
    counts.data = np.random.default_rng(0).poisson(20, counts.nnz).astype(np.float32)
    one, two = split_counts(counts, seed=1)
    np.testing.assert_array_equal((one + two).toarray(), counts.toarray())
    assert abs(one.sum() / counts.sum() - 0.5) < 0.01
    # thinning a Poisson count gives independent halves
    assert abs(np.corrcoef(one.data, two.data)[0, 1]) < 0.05


def test_ceiling_equals_the_correlation_with_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=100_000)
    halves = [truth + rng.normal(scale=1.2, size=truth.size) for _ in range(2)]
    whole = (halves[0] + halves[1]) / 2
    estimate = ceiling_from_halves(np.array([np.corrcoef(*halves)[0, 1]]))[0]
    assert abs(estimate - np.corrcoef(truth, whole)[0, 1]) < 0.01


def test_ceiling_keeps_nan_and_never_exceeds_one() -> None:
    np.testing.assert_array_equal(ceiling_from_halves(np.array([np.nan, -0.2, 1.0])), [np.nan, 0, 1])
