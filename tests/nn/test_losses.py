import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spatialsig._errors import InputError
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
        ({"target": torch.zeros(2, 2), "weight": torch.ones(3)}, r"weight of shape \(3,\); wanted \(2,\) or \(2, 2\)"),
    ],
)
def test_errors(kwargs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        masked_loss(torch.zeros(2, 2), **kwargs)
