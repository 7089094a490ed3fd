"""Losses of counts under a rate, over the genes that a slide measures."""

from __future__ import annotations

import torch
from torch import Tensor


def gene_rates(logits: Tensor, measured: Tensor | None = None) -> Tensor:
    """Share of each gene in the library, ``(b, n_genes)``, rows sum to 1; 0 for genes that are not measured."""
    if measured is not None:
        logits = logits.masked_fill(~measured, float("-inf"))
    return torch.softmax(logits, dim=-1)


def poisson_loss(counts: Tensor, mean: Tensor, measured: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood per measured entry of ``counts`` under ``Poisson(mean)``, each ``(b, n_genes)``."""
    mean = mean.clamp_min(torch.finfo(mean.dtype).tiny)
    return _mean(mean - counts * mean.log() + torch.lgamma(counts + 1), measured)


def negative_binomial_loss(counts: Tensor, mean: Tensor, dispersion: Tensor, measured: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood per measured entry under a negative binomial.

    Parameters
    ----------
    counts, mean
        ``(b, n_genes)``.
    dispersion
        Inverse dispersion ``theta`` per gene, ``(n_genes,)``; the variance is ``mean + mean**2 / theta``.
    measured
        ``(b, n_genes)`` bool; None where all are.
    """
    mean = mean.clamp_min(torch.finfo(mean.dtype).tiny)
    total = torch.log(dispersion + mean)
    likelihood = torch.lgamma(counts + dispersion) - torch.lgamma(dispersion) - torch.lgamma(counts + 1)
    likelihood = likelihood + dispersion * (dispersion.log() - total) + counts * (mean.log() - total)
    return _mean(-likelihood, measured)


def squared_error(prediction: Tensor, target: Tensor, measured: Tensor | None = None) -> Tensor:
    """Mean squared error over the measured entries, ``(b, n_genes)`` each."""
    return _mean((prediction - target) ** 2, measured)


def _mean(loss: Tensor, measured: Tensor | None) -> Tensor:
    if measured is None:
        return loss.mean()
    return torch.where(measured, loss, torch.zeros((), dtype=loss.dtype, device=loss.device)).sum() / measured.sum()
