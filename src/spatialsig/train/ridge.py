"""Start a signature network as a ridge regression on what its untrained layers see."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import nn

from spatialsig._errors import InputError
from spatialsig.nn.precision import fast_matmul
from spatialsig.nn.signature import SignatureNet
from spatialsig.nn.vit import ViT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from spatialsig.data.loader import Batch, PatchBatches
    from spatialsig.models.vit import SignatureViT

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-4, 5))  # per patch, in units of the features' mean variance
HEAD_START = 0.1  # share of its usual first weights that the network beside the ridge starts with
N_CALIBRATION = 1024  # patches that set the batch norms


@torch.no_grad()
def start_from_ridge(model: SignatureViT, batches: PatchBatches) -> None:
    """Set batch norms, whitening and linear heads of an untrained network from the training patches.

    Random convolutions already tell much about tissue, and a ridge regression finds in one pass what gradient descent
    needs many epochs for; training then starts from there. Expression, where it is used, starts with what the image
    leaves unexplained, so that the image alone stays whole. Unmeasured targets count as their mean.

    Parameters
    ----------
    model
        Model to start; its network is changed.
    batches
        Training patches; one pass, not augmented.
    """
    net = _network(model)
    with fast_matmul():
        batches.set_epoch(0)
        if isinstance(net.backbone, ViT):  # the moments of a pre-trained network belong to its weights
            _calibrate(net.backbone, itertools.islice(batches, max(1, N_CALIBRATION // batches.batch_size)))
        mean, covariance, products = _moments(model, batches)
    n = len(net.whiten.mean)
    along, axes, floor, penalty = _principal(covariance[:n, :n], products[:n], n=batches.n_patches)
    net.whiten.set(mean[:n].float(), (axes / floor).float())
    net.linear.weight.copy_((along * (floor / penalty)[:, None]).T)
    net.linear.bias.zero_()
    if model.uses_expression:
        weights = axes @ (along / penalty[:, None])  # (n, t): features to scores
        left = products[n:] - covariance[n:, :n] @ weights
        ridge = PENALTIES[0] * torch.eye(len(left), dtype=torch.float64)
        net.linear_ae.weight.copy_(torch.linalg.solve(covariance[n:, n:] + ridge, left).T)
    for parameter in net.head[-1].parameters():
        parameter.mul_(HEAD_START)  # not 0: a gate that starts shut behind a head of 0 would never open


def _network(model: SignatureViT) -> SignatureNet:
    if not isinstance(model.net, SignatureNet):
        msg = f"a {type(model.net).__name__} has no linear head on whitened features to start as a ridge regression."
        raise InputError(msg)
    return model.net


def _principal(covariance: Tensor, products: Tensor, *, n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Principal axes of the features ``(d, d)``, the targets along them, and what to divide axes and targets by."""
    scale = covariance.diagonal().clamp_min(1e-12).sqrt()
    eigenvalues, vectors = torch.linalg.eigh(covariance / torch.outer(scale, scale))
    eigenvalues, axes = eigenvalues.clamp_min(0), vectors / scale[:, None]
    along = axes.T @ products
    return along, axes, (eigenvalues + PENALTIES[0]).sqrt(), eigenvalues + best_penalty(eigenvalues, along, n=n)


def best_penalty(eigenvalues: Tensor, along: Tensor, *, n: int) -> float:
    """Ridge penalty of the smallest generalised cross-validation error, averaged over targets.

    Parameters
    ----------
    eigenvalues
        Variances of the principal axes, ``(d,)``.
    along
        Covariance of each axis with each target of unit variance, ``(d, t)``.
    n
        Number of patches.
    """

    def error(penalty: float) -> float:
        weights = along / (eigenvalues + penalty)[:, None]
        residual = 1 - 2 * (weights * along).sum(dim=0) + (weights.square() * eigenvalues[:, None]).sum(dim=0)
        freedom = float((eigenvalues / (eigenvalues + penalty)).sum())
        return float(residual.mean()) / max(1 - freedom / n, 1e-3) ** 2

    return float(min(PENALTIES, key=error))


def _calibrate(backbone: nn.Module, batches: Iterable[Batch]) -> None:
    """Set the running moments of every batch norm to those of some patches."""
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    backbone.train()
    for batch in batches:
        backbone(batch["image"])
    backbone.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _moments(model: SignatureViT, batches: Iterable[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of image features and expression side by side, covariance with the targets; float64."""
    n, zero = 0, torch.zeros((), dtype=torch.float64)
    total, squares, products, targets = zero, zero, zero, zero
    centre, scale = torch.from_numpy(model.target_mean), torch.from_numpy(model.target_std)
    for batch in batches:
        columns = torch.cat(_columns(model, batch), dim=1).double()
        target = torch.where(batch["mask"], (batch["target"] - centre) / scale, 0.0)
        n += len(columns)
        total = total + columns.sum(dim=0)
        squares = squares + columns.T @ columns
        products = products + columns.T @ target
        targets = targets + target.sum(dim=0)
    mean = total / n
    return mean, squares / n - torch.outer(mean, mean), products / n - torch.outer(mean, targets / n)


def _columns(model: SignatureViT, batch: Batch) -> list[Tensor]:
    """Features of the image alone, and the standardised expression, 0 where missing."""
    net = _network(model)
    if not model.uses_expression:
        return [net.backbone(batch["image"])]
    missing = net.fusion.embed(*net.fusion.given(None, None, len(batch["image"])))
    code = (batch["ae"] - torch.from_numpy(model.ae_mean)) / torch.from_numpy(model.ae_std)
    seen = batch["ae_present"][:, None]
    return [net.features(batch["image"], missing), torch.where(seen, code, 0.0)]
