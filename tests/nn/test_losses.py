"""Likelihoods against scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import norm

from spatialsig.errors import InputError
from spatialsig.nn.losses import gene_rates, masked_loss, negative_binomial_loss, poisson_loss, squared_error


def oracle(prediction, target, mask, weight, kind: str, delta: float) -> float:
    total = weights = 0.0
    for i in range(len(target)):
        for j in range(target.shape[1]):
            if mask[i, j]:
                error = abs(prediction[i, j] - target[i, j])
                quadratic = kind == "mse" or error <= delta
                total += weight[i] * (error**2 / 2 if quadratic else delta * (error - delta / 2))
                weights += weight[i]
    return total / weights if weights else 0.0


@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["huber", "mse"]), delta=st.floats(0.1, 3))
def test_equals_a_loop_over_the_measured_entries(seed: int, kind: str, delta: float) -> None:
    rng = np.random.default_rng(seed)
    prediction, target = rng.normal(size=(2, 6, 3)) * 2
    mask, weight = rng.random((6, 3)) < 0.6, rng.random(6) * 5
    target[~mask] = np.nan
    tensors = [torch.from_numpy(array) for array in (prediction, target, weight, mask)]
    found = masked_loss(tensors[0], tensors[1], weight=tensors[2], kind=kind, delta=delta)
    assert float(found) == pytest.approx(oracle(prediction, target, mask, weight, kind, delta), rel=1e-9)
    filled = torch.nan_to_num(tensors[1])
    again = masked_loss(tensors[0], filled, mask=tensors[3], weight=tensors[2], kind=kind, delta=delta)
    assert float(again) == pytest.approx(float(found), rel=1e-12)


def test_nothing_measured_gives_zero_and_gradients_of_zero() -> None:
    prediction = torch.randn(4, 2, requires_grad=True)
    loss = masked_loss(prediction, torch.full((4, 2), torch.nan))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(prediction.grad, torch.zeros(4, 2))


def test_unmeasured_entries_get_no_gradient() -> None:
    prediction = torch.zeros(2, 2, requires_grad=True)
    masked_loss(prediction, torch.tensor([[1.0, torch.nan], [torch.nan, 3.0]])).backward()
    assert torch.equal(prediction.grad != 0, torch.tensor([[True, False], [False, True]]))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"target": torch.zeros(2, 3)}, r"prediction \(2, 2\) and target \(2, 3\) must both be"),
        ({"target": torch.zeros(2, 2), "kind": "mae"}, "`kind='mae'` is not known"),
        ({"target": torch.zeros(2, 2), "kind": "gaussian"}, r"`log_variance` of shape None; .* needs one of \(2, 2\)"),
        ({"target": torch.zeros(2, 2), "weight": torch.ones(3)}, r"weight of shape \(3,\); wanted \(2,\) or \(2, 2\)"),
    ],
)
def test_errors(kwargs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        masked_loss(torch.zeros(2, 2), **kwargs)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_gaussian_is_minus_the_log_of_a_normal_density(beta: float) -> None:
    rng = np.random.default_rng(0)
    prediction, target = rng.normal(size=(2, 8, 3))
    log_variance, weight = rng.normal(size=(8, 3)), rng.random((8, 3))
    target[2, 1] = np.nan
    tensors = [torch.from_numpy(array) for array in (prediction, target, log_variance, weight)]
    found = masked_loss(*tensors[:2], log_variance=tensors[2], weight=tensors[3], kind="gaussian", beta=beta)
    density = -norm.logpdf(target, prediction, np.exp(log_variance / 2)) - np.log(2 * np.pi) / 2
    seen = ~np.isnan(target)
    weighed = (np.exp(beta * log_variance) * density * weight)[seen].sum() / weight[seen].sum()
    assert float(found) == pytest.approx(weighed)


def test_mean_learns_from_the_gaussian_as_from_the_squared_error_at_beta_1() -> None:
    prediction = torch.zeros(2, 2, requires_grad=True)
    target, log_variance = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([[2.0, -1.0], [0.0, 1.0]])
    masked_loss(prediction, target, kind="gaussian", log_variance=log_variance, beta=1.0).backward()
    gaussian, prediction.grad = prediction.grad, None
    masked_loss(prediction, target, kind="mse").backward()
    torch.testing.assert_close(gaussian, prediction.grad)


def test_variance_settles_at_the_mean_squared_error() -> None:
    target = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)) * 0.5
    slopes = []
    for factor in (0.5, 1.0, 2.0):
        log_variance = (factor * target.square().mean()).log().requires_grad_()
        spread = log_variance.expand(500, 1)
        masked_loss(torch.zeros(500, 1), target, kind="gaussian", log_variance=spread, beta=0.0).backward()
        slopes.append(float(log_variance.grad))
    assert slopes[0] < -0.1 < 0.1 < slopes[2]
    assert slopes[1] == pytest.approx(0, abs=1e-5)


def test_weight_of_each_entry_counts() -> None:
    prediction, target = torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    weight = torch.tensor([[0.0, 1.0], [3.0, 0.0]])
    found = masked_loss(prediction, target, weight=weight, kind="mse")
    assert float(found) == pytest.approx((1 * 2.0 + 3 * 4.5) / 4)


@pytest.fixture
def draw() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    mean = rng.gamma(1.0, 2.0, (30, 7)) + 1e-3
    return {
        "counts": torch.from_numpy(rng.poisson(mean).astype(np.float64)),
        "mean": torch.from_numpy(mean),
        "dispersion": torch.from_numpy(rng.gamma(2.0, 1.0, 7) + 0.1),
        "measured": torch.from_numpy(rng.random((30, 7)) < 0.7),
    }


@pytest.mark.parametrize("masked", [False, True])
def test_losses_are_scipys(draw: dict[str, torch.Tensor], masked: bool) -> None:
    measured = draw["measured"] if masked else None
    chosen = draw["measured"].numpy() if masked else np.ones((30, 7), bool)
    counts, mean, theta = (draw[name].numpy() for name in ("counts", "mean", "dispersion"))
    expected = -stats.poisson.logpmf(counts, mean)[chosen].mean()
    assert float(poisson_loss(draw["counts"], draw["mean"], measured)) == pytest.approx(expected, rel=1e-10)
    expected = -stats.nbinom.logpmf(counts, theta, theta / (theta + mean))[chosen].mean()
    found = negative_binomial_loss(draw["counts"], draw["mean"], draw["dispersion"], measured)
    assert float(found) == pytest.approx(expected, rel=1e-10)
    expected = ((counts - mean) ** 2)[chosen].mean()
    assert float(squared_error(draw["mean"], draw["counts"], measured)) == pytest.approx(expected, rel=1e-10)


def test_rates_are_shares_of_the_measured_genes(draw: dict[str, torch.Tensor]) -> None:
    rates = gene_rates(draw["mean"], draw["measured"])
    assert torch.allclose(rates.sum(dim=1), torch.ones(30, dtype=torch.float64))
    assert (rates[~draw["measured"]] == 0).all()
    chosen = draw["measured"][0]
    expected = draw["mean"][0][chosen].exp()
    assert torch.allclose(rates[0][chosen], expected / expected.sum())


def test_masked_entries_send_no_gradient(draw: dict[str, torch.Tensor]) -> None:
    logits = draw["mean"].clone().requires_grad_()
    mean = gene_rates(logits, draw["measured"]) * 10
    negative_binomial_loss(draw["counts"], mean, draw["dispersion"], draw["measured"]).backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[~draw["measured"]] == 0).all()
    assert (logits.grad[draw["measured"]] != 0).any()
