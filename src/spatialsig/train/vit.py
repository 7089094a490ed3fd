"""Fit a signature model to the patches of several slides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._checks import check_fraction, check_positive
from spatialsig._errors import InputError
from spatialsig._progress import progress_bar
from spatialsig.models.vit import SignatureViT
from spatialsig.nn.augment import Augment, AugmentConfig
from spatialsig.nn.signature import VIT, SignatureConfig, SignatureNet
from spatialsig.nn.vit import ViT, ViTConfig, vit_config
from spatialsig.train.autoencoder import history_file
from spatialsig.train.loop import History, fit, reproducible, resumes
from spatialsig.train.ridge import start_from_ridge
from spatialsig.train.vit_module import VitModule

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from torch import nn

    from spatialsig.data.loader import PatchBatches
    from spatialsig.train.loop import TrainerConfig


def fit_vit(
    batches: PatchBatches,
    *,
    signatures: Sequence[str],
    um_per_px: float,
    validation: PatchBatches | None = None,
    size: str | ViTConfig = "tiny",
    backbone: str | nn.Module = VIT,
    fusion: str | None = None,
    modality_dropout: float = 0.3,
    augment: AugmentConfig | None = None,
    max_epochs: int = 24,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.05,
    warmup: float = 0.1,
    clip: float = 1.0,
    ema_decay: float = 0.995,
    loss: str = "huber",
    patience: int | None = None,
    seed: int = 0,
    run_dir: str | os.PathLike[str] | None = None,
    run: dict[str, Any] | None = None,
    trainer: TrainerConfig | None = None,
) -> tuple[SignatureViT, pd.DataFrame]:
    """Train a signature model on H&E patches, and on expression embeddings where the batches have them.

    Parameters
    ----------
    batches
        Training patches.
    signatures
        Names of the targets.
    um_per_px
        Resolution of the patches.
    validation
        Patches to choose the best epoch by; None keeps the last.
    size
        ``"tiny"``, ``"small"``, ``"base"``, or a configuration. With another ``backbone``, only its ``dim`` counts.
    backbone
        Name of an image network to take, with its published weights, in place of the one of ``size``; or a module to go
        on from: a :class:`spatialsig.nn.vit.ViT`, or any that carries its name as ``spec``.
    fusion
        ``"none"``, ``"add"``, ``"token"``, ``"film"`` or ``"gated"``; None takes ``"gated"`` with expression and
        ``"none"`` without.
    modality_dropout
        Share of training samples whose embedding is withheld, so that H&E alone stays enough.
    augment
        Changes of the training patches; None takes the default.
    max_epochs, learning_rate, weight_decay, warmup, clip, ema_decay, loss
        Training settings: passes over the patches, peak learning rate, decay of matrices, share of steps with a rising
        rate, largest gradient norm, decay of the running average of weights per step, ``"huber"`` or ``"mse"``.
    patience
        Epochs without a better validation correlation after which training stops; None never stops, since the last,
        small learning rates gain most.
    seed
        Seed of weights, augmentation and dropout (the order has the seed of ``batches``).
    run_dir
        Directory for ``history.csv``, written after every epoch, and for checkpoints, from which the same call goes on
        after it was stopped; None writes nothing.
    run
        Provenance to keep in the model.
    trainer
        Resuming, devices, precision; None takes the default.

    Returns
    -------
    The model, and a frame with one row per epoch: ``epoch``, ``train_loss``, ``val_loss``, ``val_pearson`` (mean over
    slides and scores of the correlation within a slide), ``seconds``, ``lr``, ``busy`` (share of the epoch not spent
    waiting for patches).

    Raises
    ------
    InputError
        If sizes do not match, a target is constant or never measured, the loss becomes NaN
        (:class:`~spatialsig._errors.TrainingError`), or ``run_dir`` holds a checkpoint of another training.
    """
    check_positive(max_epochs=max_epochs, learning_rate=learning_rate, clip=clip)
    check_fraction(warmup=warmup, ema_decay=ema_decay, modality_dropout=modality_dropout)
    _check_validation(batches, validation)
    n_steps = max_epochs * len(batches)
    with reproducible(seed), progress_bar("Training on H&E", total=n_steps, unit="batch") as bar:
        model = _new_model(batches, signatures, um_per_px, size, backbone, fusion, modality_dropout, run)
        if not resumes(run_dir, trainer):
            start_from_ridge(model, batches)
        module = VitModule(
            model,
            Augment(AugmentConfig() if augment is None else augment, seed=seed),
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=warmup,
            n_steps=n_steps,
            ema_decay=ema_decay,
            loss=loss,
        )
        history = History(bar, best_of="val_pearson", patience=patience, csv=history_file(run_dir))
        options: dict[str, Any] = {"trainer": trainer, "identity": {"signatures": list(signatures)}}
        fit(module, batches, validation=validation, history=history, max_epochs=max_epochs, clip=clip, **options)
        model.net.load_state_dict(module.average.state_dict())
    model.net.cpu().eval()
    return model, history.frame


def _new_model(
    batches: PatchBatches,
    signatures: Sequence[str],
    um_per_px: float,
    size: str | ViTConfig,
    backbone: str | nn.Module,
    fusion: str | None,
    modality_dropout: float,
    run: dict[str, Any] | None,
) -> SignatureViT:
    vit = size if isinstance(size, ViTConfig) else vit_config(size)
    spec, module = _named_backbone(backbone)
    vit = module.config if isinstance(module, ViT) else vit
    fusion = ("none" if batches.ae is None else "gated") if fusion is None else fusion
    if fusion != "none" and batches.ae is None:
        msg = f"`fusion={fusion!r}` needs expression embeddings, but the batches hold none. Embed the cells first."
        raise InputError(msg)
    if batches.target.shape[1] != len(signatures):
        msg = f"{len(signatures)} signatures for targets of {batches.target.shape[1]} columns."
        raise InputError(msg)
    n_latent = 0 if fusion == "none" or batches.ae is None else batches.ae.shape[1]
    config = SignatureConfig(vit, len(signatures), n_latent, fusion, modality_dropout, backbone=spec)
    target_mean, target_std = _moments(batches.target, signatures)
    ae_mean, ae_std = (None, None) if n_latent == 0 else _ae_moments(batches.ae)
    return SignatureViT(
        config,
        signatures,
        target_mean=target_mean,
        target_std=target_std,
        ae_mean=ae_mean,
        ae_std=ae_std,
        patch_px=batches.out_px,
        um_per_px=um_per_px,
        run=run,
        net=SignatureNet(config, module),
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

    return backbone, build_backbone(backbone, pretrained=True)


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


def _check_validation(batches: PatchBatches, validation: PatchBatches | None) -> None:
    if validation is None:
        return
    same = (batches.out_px, batches.target.shape[1]) == (validation.out_px, validation.target.shape[1])
    if not same or (batches.ae is None) != (validation.ae is None):
        msg = (
            f"validation patches of {validation.out_px} px with {validation.target.shape[1]} targets do not match "
            f"training patches of {batches.out_px} px with {batches.target.shape[1]}, or only one has expression."
        )
        raise InputError(msg)
