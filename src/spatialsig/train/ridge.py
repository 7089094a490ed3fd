"""Start a signature network as a ridge regression on what its untrained layers see.

Floor 3, above data, models. Used by maps/train_cell_head, train/expression_ridge, train/vit.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from spatialsig.errors import InputError
from spatialsig.nn.device import fast_matmul
from spatialsig.nn.signature import SignatureNet
from spatialsig.nn.vit import ViT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from spatialsig.data.loader import Batch, PatchBatches
    from spatialsig.models.vit import SignatureViT

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-4, 5))  # per patch, in units of the features' mean variance
N_FOLDS = 4  # parts of the training patches, each held out once to choose the penalty
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
        folds = _folds(model, batches)
    n = len(net.whiten.mean)
    penalty = best_penalty([fold.columns(n) for fold in folds])
    moments = Moments.of(folds)
    eigenvalues, axes, along = principal(moments.columns(n))
    floor = (eigenvalues + penalty).sqrt()  # directions that the ridge does not trust stay small
    net.whiten.set(moments.mean[:n].float(), (axes / floor).float())
    net.linear.weight.copy_((along / floor[:, None]).T)
    net.linear.bias.zero_()
    if model.uses_expression:
        weights = axes @ (along / (eigenvalues + penalty)[:, None])  # (n, t): features to scores
        left = moments.products[n:] - moments.covariance[n:, :n] @ weights
        ridge = PENALTIES[0] * torch.eye(len(left), dtype=torch.float64)
        net.linear_ae.weight.copy_(torch.linalg.solve(moments.covariance[n:, n:] + ridge, left).T)
    for parameter in net.head[-1].parameters():
        parameter.mul_(HEAD_START)  # not 0: a gate that starts shut behind a head of 0 would never open


def _network(model: SignatureViT) -> SignatureNet:
    if not isinstance(model.net, SignatureNet):
        msg = f"a {type(model.net).__name__} has no linear head on whitened features to start as a ridge regression."
        raise InputError(msg)
    return model.net


@dataclass(frozen=True)
class Moments:
    """Sums over patches; ``d`` features, ``t`` standardised targets."""

    n: int  # number of patches
    total: Tensor  # total, targets: sum of the features ``(d,)`` and of the targets ``(t,)``
    targets: Tensor
    # squares, cross: sum of the products of features ``(d, d)``, and of features with targets ``(d, t)``
    squares: Tensor
    cross: Tensor

    @classmethod
    def of(cls, parts: Sequence[Moments]) -> Moments:
        """Moments of several sets of patches together."""
        first, *others = parts
        for part in others:
            sums = (
                getattr(first, name) + getattr(part, name) for name in ("n", "total", "targets", "squares", "cross")
            )
            first = cls(*sums)
        return first

    def columns(self, n: int) -> Moments:
        """Moments of the first ``n`` features alone."""
        return Moments(self.n, self.total[:n], self.targets, self.squares[:n, :n], self.cross[:n])

    @property
    def mean(self) -> Tensor:
        """Mean of the features, ``(d,)``."""
        return self.total / self.n

    @property
    def covariance(self) -> Tensor:
        """Covariance of the features, ``(d, d)``."""
        return self.squares / self.n - torch.outer(self.mean, self.mean)

    @property
    def products(self) -> Tensor:
        """Covariance of features and targets, ``(d, t)``."""
        return self.cross / self.n - torch.outer(self.mean, self.targets / self.n)

    def about(self, mean: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Mean products of the features less ``mean``, with themselves and with the targets less ``target``."""
        shift, off = self.mean - mean, self.targets / self.n - target
        return self.covariance + torch.outer(shift, shift), self.products + torch.outer(shift, off)


def principal(moments: Moments, *, scaled: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Variances along the principal axes of the features ``(d,)``, the axes ``(d, d)``, the targets along them ``(d, t)``.

    Features are scaled to unit variance first, or taken as they are.
    """
    covariance = moments.covariance
    variance = covariance.diagonal()
    scale = variance.clamp_min(1e-12).sqrt() if scaled else torch.ones_like(variance)
    eigenvalues, vectors = torch.linalg.eigh(covariance / torch.outer(scale, scale))
    axes = vectors / scale[:, None]
    return eigenvalues.clamp_min(0), axes, axes.T @ moments.products


def best_penalty(folds: Sequence[Moments]) -> float:
    """Ridge penalty of the smallest squared error on folds held out in turn, over all targets.

    With more features than patches, and neighbours that are nearly the same patch, measures that hold nothing out
    (generalised cross-validation among them) choose ten to a hundred times too little.
    """
    if len(folds) < 2:
        return 1.0
    return float(PENALTIES[int(penalty_errors(folds, PENALTIES).sum(dim=(0, 2)).argmin())])


def penalty_errors(folds: Sequence[Moments], penalties: Sequence[float], *, scaled: bool = True) -> Tensor:
    """Sums of squared errors on each fold held out, ``(len(folds), len(penalties), t)``, less a part that no penalty changes."""
    errors = torch.zeros(len(folds), len(penalties), len(folds[0].targets), dtype=torch.float64)
    for k, held_out in enumerate(folds):
        rest = Moments.of([fold for i, fold in enumerate(folds) if i != k])
        eigenvalues, axes, along = principal(rest, scaled=scaled)
        squares, cross = held_out.about(rest.mean, rest.targets / rest.n)
        squares, cross = axes.T @ squares @ axes, axes.T @ cross
        for i, penalty in enumerate(penalties):
            weights = along / (eigenvalues + penalty)[:, None]
            errors[k, i] = held_out.n * ((squares @ weights - 2 * cross) * weights).sum(dim=0)
    return errors


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


def _folds(model: SignatureViT, batches: PatchBatches) -> list[Moments]:
    """Moments of image features and expression side by side, of each fold that has patches."""
    fold = fold_of(batches.slide, batches.row)
    found: dict[int, Moments] = {}
    centre, scale = torch.from_numpy(model.target_mean), torch.from_numpy(model.target_std)
    for batch in batches:
        columns = torch.cat(_columns(model, batch), dim=1).double()
        target = torch.where(batch["mask"], (batch["target"] - centre) / scale, 0.0)
        own = fold[batch["id"].numpy()]
        for k in np.unique(own).tolist():
            x, y = columns[own == k], target[own == k]
            part = Moments(len(x), x.sum(dim=0), y.sum(dim=0), x.T @ x, x.T @ y)
            found[k] = Moments.of([found[k], part]) if k in found else part
    return [found[k] for k in sorted(found)]


def fold_of(slide: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fold of every patch: whole slides where there are enough of them, else runs of neighbouring rows of each slide."""
    n_slides = int(slide.max()) + 1
    if n_slides >= N_FOLDS:
        return slide % N_FOLDS
    length = np.bincount(slide)[slide]
    return row * N_FOLDS // length


def _columns(model: SignatureViT, batch: Batch) -> list[Tensor]:
    """Features of the image alone, and the standardised expression, 0 where missing."""
    net = _network(model)
    if not model.uses_expression:
        return [net.backbone(batch["image"])]
    missing = net.fusion.embed(*net.fusion.given(None, None, len(batch["image"])))
    code = (batch["ae"] - torch.from_numpy(model.ae_mean)) / torch.from_numpy(model.ae_std)
    seen = batch["ae_present"][:, None]
    return [net.features(batch["image"], missing), torch.where(seen, code, 0.0)]
