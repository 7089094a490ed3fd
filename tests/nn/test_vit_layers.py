"""Attention by products equals torch's own kernel and a computation written out."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spatialsig.nn import vit_layers
from spatialsig.nn.vit_layers import attend, attention_weights


def heads(n: int = 7, m: int = 9) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(n)
    return [torch.randn(2, 3, length, 8, generator=draw, requires_grad=True) for length in (n, m, m)]


def written_out(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    scores = np.einsum("bhnd,bhmd->bhnm", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("bhnm,bhmd->bhnd", weights / weights.sum(axis=-1, keepdims=True), v)


@pytest.mark.parametrize("most", [vit_layers.MOST_WEIGHTS, 1])
def test_both_ways_are_the_equations(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit_layers, "MOST_WEIGHTS", most)
    parts = heads()
    wanted = written_out(*(part.detach().double().numpy() for part in parts))
    np.testing.assert_allclose(attend(*parts).detach().numpy(), wanted, atol=1e-6)


def test_gradients_are_those_of_the_kernel() -> None:
    parts = heads()
    found = torch.autograd.grad(attend(*parts).square().sum(), parts)
    wanted = torch.autograd.grad(F.scaled_dot_product_attention(*parts).square().sum(), parts)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_weights_too_many_to_hold_go_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, seen = heads(), []
    monkeypatch.setattr(vit_layers, "MOST_WEIGHTS", 2 * 3 * 7 * 9)
    monkeypatch.setattr(vit_layers, "attention_weights", lambda *given: seen.append(1) or attention_weights(*given))
    attend(*parts)
    assert seen
    monkeypatch.setattr(vit_layers, "MOST_WEIGHTS", 2 * 3 * 7 * 9 - 1)
    attend(*parts)
    assert len(seen) == 1


def test_weights_sum_to_one() -> None:
    torch.testing.assert_close(attention_weights(*heads()[:2]).sum(dim=-1), torch.ones(2, 3, 7))
