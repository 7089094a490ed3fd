import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from spatialsig.errors import InputError
from spatialsig.nn.losses import masked_loss


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
