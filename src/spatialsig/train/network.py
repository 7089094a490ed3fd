"""The untrained model for a set of patches: its network, and the scales of its scores and embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.errors import InputError
from spatialsig.models.vit import SignatureViT
from spatialsig.nn.seed_net import SeedNet
from spatialsig.nn.seed_vit import SEED
from spatialsig.nn.signature import VIT, SignatureConfig, SignatureNet
from spatialsig.nn.vit import ViT, ViTConfig, vit_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from spatialsig.data.loader import PatchBatches
    from spatialsig.train.recipe import Recipe


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


def _moments(target: NDArray[np.float32], names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    measured = np.isfinite(target).sum(axis=0)
    empty = [name for name, n in zip(names, measured, strict=True) if n < 2]
    if empty:
        msg = f"signatures without at least 2 measured training patches: {empty}; leave them out."
        raise InputError(msg)
    mean, std = _mean_std(target)
    constant = [name for name, m, s in zip(names, mean, std, strict=True) if s <= 1e-6 * max(abs(m), 1e-6)]
    if constant:
        msg = f"signatures with one value on all training patches: {constant}; leave them out."
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
