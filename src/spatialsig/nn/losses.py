"""Losses over several targets of which some are not measured."""

from __future__ import annotations

import torch
from torch import Tensor

from spatialsig._checks import check_choice
from spatialsig._errors import InputError

LOSSES = ("huber", "mse")


def masked_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    kind: str = "huber",
    delta: float = 1.0,
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
        ``"huber"`` (quadratic below ``delta``, linear above) or ``"mse"`` (half the squared error).
    delta
        Where the Huber loss turns linear, in standard deviations of the target.

    Returns
    -------
    Scalar ``sum(w * loss) / sum(w)``; 0 with gradients of 0 where nothing is measured.
    """
    check_choice(kind, LOSSES, name="kind")
    if prediction.shape != target.shape or prediction.ndim != 2:
        msg = f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must both be (b, n_targets)."
        raise InputError(msg)
    measured = ~torch.isnan(target) if mask is None else mask & ~torch.isnan(target)
    weights = _entry_weights(weight, measured, prediction.dtype)
    target = torch.where(measured, target, prediction.detach())  # NaN out before any arithmetic
    beta = delta if kind == "huber" else float("inf")
    error = (prediction - target).abs()
    loss = torch.where(error <= beta, 0.5 * error**2, delta * (error - 0.5 * delta))
    return (weights * loss).sum() / weights.sum().clamp_min(torch.finfo(loss.dtype).tiny)


def _entry_weights(weight: Tensor | None, measured: Tensor, dtype: torch.dtype) -> Tensor:
    if weight is None:
        return measured.to(dtype)
    if weight.shape not in (measured.shape, measured.shape[:1]):
        msg = f"weight of shape {tuple(weight.shape)}; wanted {tuple(measured.shape[:1])} or {tuple(measured.shape)}."
        raise InputError(msg)
    weight = weight[:, None] if weight.ndim == 1 else weight
    return torch.where(measured, weight.to(dtype), torch.zeros((), dtype=dtype, device=weight.device))
