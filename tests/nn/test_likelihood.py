"""Likelihoods against scipy."""

import numpy as np
import pytest
import torch
from scipy import stats

from spatialsig.nn.likelihood import gene_rates, negative_binomial_loss, poisson_loss, squared_error


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
