"""Losses over targets, genes or counts of which some are not measured.

Floor 1, above the ground floor. Used by models/autoencoder, nn/autoencoder, train/recipe, train/vit_module.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spatialsig._checks import check_choice
from spatialsig.errors import InputError

LOSSES = ("huber", "mse", "gaussian")


def masked_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    kind: str = "huber",
    delta: float = 1.0,
    log_variance: Tensor | None = None,
    beta: float = 0.5,
) -> Tensor:
    """Weighted mean loss over the measured entries.

    Parameters
    ----------
    prediction, target
        ``(b, t)``, standardised. Targets that are NaN count as not measured.
    mask
        ``(b, t)`` bool, True where measured; None uses the NaN of ``target`` alone.
    weight
        ``(b,)`` or ``(b, t)``, at least 0; None weighs all alike.
    kind
        ``"huber"`` (quadratic below ``delta``, linear above), ``"mse"`` (half the squared error) or ``"gaussian"`` (minus
        the logarithm of a normal density, less its constant).
    delta
        Where the Huber loss turns linear, in standard deviations of the target.
    log_variance
        For ``"gaussian"``: logarithm of the variance around ``prediction``, ``(b, t)``.
    beta
        For ``"gaussian"``: each entry also weighs by its variance to this power, which is not learned from. At 0 a target
        that the network fits badly is soon called noise and then hardly learned from; at 1 the mean learns as under
        ``"mse"`` (Seitzer et al. 2022).

    Returns
    -------
    Scalar ``sum(w * loss) / sum(w)``; 0 with gradients of 0 where nothing is measured.
    """
    check_choice(kind, LOSSES, name="kind")
    _check_shapes(prediction, target, log_variance, kind)
    measured = ~torch.isnan(target) if mask is None else mask & ~torch.isnan(target)
    weights = _entry_weights(weight, measured, prediction.dtype)
    target = torch.where(measured, target, prediction.detach())  # NaN out before any arithmetic
    error = (prediction - target).abs()
    if log_variance is not None and kind == "gaussian":
        loss = _gaussian(error, log_variance, beta)
    else:
        within = error <= (delta if kind == "huber" else float("inf"))
        loss = torch.where(within, 0.5 * error**2, delta * (error - 0.5 * delta))
    return (weights * loss).sum() / weights.sum().clamp_min(torch.finfo(loss.dtype).tiny)


def _gaussian(error: Tensor, log_variance: Tensor, beta: float) -> Tensor:
    loss = 0.5 * (error**2 * torch.exp(-log_variance) + log_variance)
    return torch.exp(beta * log_variance.detach()) * loss


def _check_shapes(prediction: Tensor, target: Tensor, log_variance: Tensor | None, kind: str) -> None:
    if prediction.shape != target.shape or prediction.ndim != 2:
        msg = f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must both be (b, n_targets)."
        raise InputError(msg)
    if kind == "gaussian" and (log_variance is None or log_variance.shape != prediction.shape):
        found = None if log_variance is None else tuple(log_variance.shape)
        msg = f"`log_variance` of shape {found}; `kind='gaussian'` needs one of {tuple(prediction.shape)}."
        raise InputError(msg)


def _entry_weights(weight: Tensor | None, measured: Tensor, dtype: torch.dtype) -> Tensor:
    if weight is None:
        return measured.to(dtype)
    if weight.shape not in (measured.shape, measured.shape[:1]):
        msg = f"weight of shape {tuple(weight.shape)}; wanted {tuple(measured.shape[:1])} or {tuple(measured.shape)}."
        raise InputError(msg)
    weight = weight[:, None] if weight.ndim == 1 else weight
    return torch.where(measured, weight.to(dtype), torch.zeros((), dtype=dtype, device=weight.device))


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
