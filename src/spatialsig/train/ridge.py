"""Start a signature network as a ridge regression on what its untrained layers see."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import nn

from spatialsig.nn.precision import fast_matmul

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from spatialsig.data.loader import Batch, PatchBatches
    from spatialsig.models.vit import SignatureViT
    from spatialsig.nn.signature import SignatureNet

RIDGE = 1e-2  # penalty per patch, in units of the features' mean variance
N_CALIBRATION = 1024  # patches that set the batch norms


@torch.no_grad()
def start_from_ridge(model: SignatureViT, batches: PatchBatches) -> None:
    """Set batch norms, whitening and linear head of an untrained network from the training patches.

    Random convolutions already tell much about tissue, and a ridge regression finds in one pass what gradient descent
    needs many epochs for; training then starts from there. Unmeasured targets count as their mean.

    Parameters
    ----------
    model
        Model to start; its network is changed.
    batches
        Training patches; one pass, not augmented.
    """
    net = model.net
    mean, std = (torch.from_numpy(scale).float() for scale in (model.target_mean, model.target_std))
    with fast_matmul():
        batches.set_epoch(0)
        _calibrate(net.backbone, itertools.islice(batches, max(1, N_CALIBRATION // batches.batch_size)))
        feature_mean, covariance, products = _moments(net, batches, mean, std)
    scale = covariance.diagonal().clamp_min(1e-12).sqrt()
    eigenvalues, vectors = torch.linalg.eigh(covariance / torch.outer(scale, scale))
    whitening = (vectors / (eigenvalues.clamp_min(0) + RIDGE).sqrt()) / scale[:, None]
    net.whiten.set(feature_mean.float(), whitening.float())
    net.linear.weight.copy_((whitening.T @ products).T)
    net.linear.bias.zero_()
    nn.init.zeros_(net.head[-1].weight)
    nn.init.zeros_(net.head[-1].bias)


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


def _moments(
    net: SignatureNet, batches: Iterable[Batch], target_mean: Tensor, target_std: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of the features, and their covariance with the standardised targets, float64."""
    n, total, squares, products = 0, torch.zeros(1).double(), torch.zeros(1).double(), torch.zeros(1).double()
    for batch in batches:
        missing = net.fusion.tokens(net.fusion.embed(None, None, len(batch["image"])))
        features = net.backbone(batch["image"], missing).double()
        target = torch.where(batch["mask"], (batch["target"] - target_mean) / target_std, 0.0).double()
        n += len(features)
        total = total + features.sum(dim=0)
        squares = squares + features.T @ features
        products = products + features.T @ target
    mean = total / n
    return mean, squares / n - torch.outer(mean, mean), products / n
