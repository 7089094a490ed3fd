"""How a signature model is fitted: its settings, its untrained network, and the scales of scores and embeddings.

Floor 3, above data, models. Used by inference/probe, pipeline/workload, train/vit, train/vit_module.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._arguments import Count, Fraction, NotNegative, Positive, checked_class
from spatialsig._checks import check_choice
from spatialsig.errors import InputError
from spatialsig.models.vit import SignatureViT
from spatialsig.nn.losses import LOSSES
from spatialsig.nn.seed_vit import SEED
from spatialsig.nn.signature import VIT, SeedNet, SignatureConfig, SignatureNet
from spatialsig.nn.vit import ViT, ViTConfig, vit_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from spatialsig.data.loader import PatchBatches

SCHEDULES = ("cycle", "constant")
ONE_PASS = ("gated", "film", "add")  # fusions after the backbone: with and without expression at the cost of one pass
MIN_WARMUP = 40  # steps: Adam's estimates of the gradients' size are noise before
FULL_RATE = 400  # steps from which the whole learning rate is used


@checked_class
@dataclass(frozen=True)
class Recipe:
    """Settings of a training run.

    Parameters
    ----------
    max_epochs
        Passes over the patches.
    learning_rate
        Highest rate; runs of fewer than :data:`FULL_RATE` steps use less of it in proportion.
    weight_decay
        Decay of matrices.
    warmup
        Share of the steps with a rising rate; at least :data:`MIN_WARMUP` steps where these are not more than half.
    clip
        Largest norm of the gradient; None does not clip.
    ema_decay
        Decay of the running average of the weights per step; 0 keeps the weights themselves.
    loss
        One of :data:`spatialsig.nn.losses.LOSSES`.
    beta
        Of the ``"gaussian"`` loss, see :func:`spatialsig.nn.losses.masked_loss`.
    auxiliary
        Weight of the loss of guessing the expression embedding from the image.
    distil
        Weight of the loss of the image alone against what the network says with expression.
    schedule
        ``"cycle"``, or ``"constant"`` for one rate throughout.
    ridge
        Start from a ridge regression.
    """

    max_epochs: Count = 24
    learning_rate: Positive = 2e-3
    weight_decay: NotNegative = 0.05
    warmup: Fraction = 0.1
    clip: Positive | None = 1.0
    ema_decay: Fraction = 0.995
    loss: str = "huber"
    beta: Fraction = 0.5
    auxiliary: Fraction = 0.0
    distil: Fraction = 0.0
    schedule: str = "cycle"
    ridge: bool = True

    def __post_init__(self) -> None:
        check_choice(self.loss, LOSSES, name="loss")
        check_choice(self.schedule, SCHEDULES, name="schedule")

    def peak_rate(self, n_steps: int) -> float:
        """Highest learning rate of a run of ``n_steps``."""
        return self.learning_rate * min(1.0, n_steps / FULL_RATE) if self.schedule == "cycle" else self.learning_rate

    def rising_share(self, n_steps: int) -> float:
        """Share of ``n_steps`` in which the rate rises."""
        return max(self.warmup, min(0.5, MIN_WARMUP / n_steps))


PROTOTYPE = Recipe(
    max_epochs=10,
    learning_rate=2e-4,
    warmup=0.0,
    clip=None,
    ema_decay=0.0,
    loss="mse",
    schedule="constant",
    ridge=False,
)


def usual_distillation(fusion: str, modality_dropout: float) -> float:
    """Weight of ``distil`` where none is chosen: 1 where it costs no second pass and the image alone is to be of use."""
    return 1.0 if fusion in ONE_PASS and modality_dropout > 0 else 0.0


def chosen_recipe(base: Recipe, **changes: Any) -> Recipe:
    """``base`` with those of ``changes`` that are not None."""
    return replace(base, **{name: value for name, value in changes.items() if value is not None})


def new_network(
    batches: PatchBatches,
    n_targets: int,
    size: str | ViTConfig,
    backbone: str | nn.Module,
    fusion: str,
    modality_dropout: float,
    recipe: Recipe,
) -> SignatureNet:
    """Network of a size, or around a backbone, with the heads that the losses need; arguments as in ``fit_vit``."""
    vit = size if isinstance(size, ViTConfig) else vit_config(size)
    spec, module = _named_backbone(backbone)
    config = SignatureConfig(
        vit=module.config if isinstance(module, ViT) else vit,
        n_targets=n_targets,
        n_latent=_n_latent(batches, fusion),
        fusion=fusion,
        modality_dropout=modality_dropout,
        backbone=spec,
        gaussian=recipe.loss == "gaussian",
        guess_code=recipe.auxiliary > 0,
    )
    if recipe.distil > 0 and fusion == "none":
        msg = f"`distil={recipe.distil}` needs a model with expression to learn from; leave it out with fusion='none'."
        raise InputError(msg)
    return SignatureNet(config, module)


def seed_network(
    batches: PatchBatches, n_targets: int, backbone: str | nn.Module, fusion: str, recipe: Recipe
) -> SeedNet:
    """The prototype's network for patches of this size."""
    if backbone != VIT:
        msg = f"`size='seed'` is a whole network; it cannot be combined with `backbone={backbone!r}`."
        raise InputError(msg)
    if recipe.auxiliary > 0 or recipe.distil > 0:
        msg = f"the prototype learns from labels only; got `auxiliary={recipe.auxiliary}`, `distil={recipe.distil}`."
        raise InputError(msg)
    config = SignatureConfig(
        n_targets=n_targets,
        n_latent=_n_latent(batches, fusion),
        fusion=fusion,
        modality_dropout=0.0,
        backbone=SEED,
        gaussian=recipe.loss == "gaussian",
        image_px=batches.out_px,
    )
    return SeedNet(config)


def model_around(
    network: SignatureNet | SeedNet,
    batches: PatchBatches,
    signatures: Sequence[str],
    *,
    um_per_px: float,
    run: dict[str, Any] | None,
) -> SignatureViT:
    """Model that holds ``network`` and the scales of the training patches; the prototype takes values as they are."""
    if batches.target.shape[1] != len(signatures):
        msg = f"{len(signatures)} signatures for targets of {batches.target.shape[1]} columns."
        raise InputError(msg)
    target_mean, target_std = _moments(batches.target, signatures)
    ae_mean, ae_std = _ae_moments(batches.ae) if network.config.n_latent else (None, None)
    if isinstance(network, SeedNet):
        target_mean, target_std = np.zeros_like(target_mean), np.ones_like(target_std)
        ae_mean, ae_std = None, None
    return SignatureViT(
        network.config,
        signatures,
        target_mean=target_mean,
        target_std=target_std,
        ae_mean=ae_mean,
        ae_std=ae_std,
        patch_px=batches.out_px,
        um_per_px=um_per_px,
        run=run,
        net=network,
    )


def _named_backbone(backbone: str | nn.Module) -> tuple[str, nn.Module | None]:
    """Name under which a backbone can be built again, and the module to use; None for a new one of our own."""
    if isinstance(backbone, ViT):
        return VIT, backbone
    if not isinstance(backbone, str):
        spec = getattr(backbone, "spec", None)
        if not isinstance(spec, str):
            msg = f"a {type(backbone).__name__} without the name `spec` by which to build it again when it is loaded."
            raise InputError(msg)
        return spec, backbone
    if backbone == VIT:
        return VIT, None
    from spatialsig.nn.backbones import build_backbone  # loads libraries that only foreign networks need

    module = build_backbone(backbone, pretrained=True)
    return str(module.spec), module


def checked_fusion(batches: PatchBatches, fusion: str | None, *, usual: str) -> str:
    """``fusion``, or where it is None what is usual for patches with expression, ``"none"`` for those without."""
    if fusion is None:
        return "none" if batches.ae is None else usual
    if fusion != "none" and batches.ae is None:
        msg = f"`fusion={fusion!r}` needs expression embeddings, but the batches hold none. Embed the cells first."
        raise InputError(msg)
    return fusion


def _n_latent(batches: PatchBatches, fusion: str) -> int:
    return 0 if fusion == "none" or batches.ae is None else int(batches.ae.shape[1])


_LEAVE_OUT = (
    "Leave them out: call `sp.tl.score_cells` with the other signatures, and `sp.tl.aggregate_patches` again. "
    "`sp.pl.coverage` shows what a panel measures."
)


def _moments(target: NDArray[np.float32], names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    measured = np.isfinite(target).sum(axis=0)
    empty = [name for name, n in zip(names, measured, strict=True) if n < 2]
    if empty:
        msg = f"signatures without at least 2 measured training patches: {empty}. {_LEAVE_OUT}"
        raise InputError(msg)
    mean, std = _mean_std(target)
    constant = [name for name, m, s in zip(names, mean, std, strict=True) if s <= 1e-6 * max(abs(m), 1e-6)]
    if constant:
        msg = f"signatures with one value on all training patches: {constant}. {_LEAVE_OUT}"
        raise InputError(msg)
    return mean, std


def _ae_moments(ae: NDArray[np.float32] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if ae is None or not np.isfinite(ae).all(axis=1).any():
        msg = "no training patch has an expression embedding; embed the cells first, or use fusion='none'."
        raise InputError(msg)
    mean, std = _mean_std(ae)
    return mean, np.where(std > 1e-6, std, 1.0)  # a dead unit says nothing and is left as it is


def _mean_std(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of every column over its finite rows."""
    wide = values.astype(np.float64)
    return np.asarray(np.nanmean(wide, axis=0)), np.asarray(np.nanstd(wide, axis=0))
