"""Fit a signature model to the patches of several slides.

Floor 3, above data, models. Used by 5 modules of cli, inference, pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import nn

from spatialsig._arguments import AnyPath, Count, Fraction, NotNegative, Positive, Seed, UmPerPx, checked
from spatialsig._progress import progress_bar
from spatialsig.data.features import FeatureBatches
from spatialsig.data.loader import PatchBatches
from spatialsig.errors import InputError
from spatialsig.models.vit import SignatureViT
from spatialsig.nn.augment import Augment, AugmentConfig
from spatialsig.nn.device import kept_memory, own_threads
from spatialsig.nn.seed_vit import SEED
from spatialsig.nn.signature import VIT
from spatialsig.nn.vit import ViTConfig
from spatialsig.train.autoencoder import history_file
from spatialsig.train.loop import History, TrainerConfig, fit, reproducible, resumes
from spatialsig.train.recipe import (
    PROTOTYPE,
    Recipe,
    checked_fusion,
    chosen_recipe,
    model_around,
    new_network,
    seed_network,
    usual_distillation,
)
from spatialsig.train.ridge import start_from_ridge
from spatialsig.train.vit_module import VitModule


@checked
def fit_vit(
    batches: PatchBatches,
    *,
    signatures: Sequence[str],
    um_per_px: UmPerPx,
    validation: PatchBatches | None = None,
    size: str | ViTConfig = "tiny",
    backbone: str | nn.Module = VIT,
    fusion: str | None = None,
    modality_dropout: Fraction = 0.3,
    augment: AugmentConfig | None = None,
    max_epochs: Count | None = None,
    learning_rate: Positive | None = None,
    weight_decay: NotNegative | None = None,
    warmup: Fraction | None = None,
    clip: Positive | None = None,
    ema_decay: Fraction | None = None,
    loss: str | None = None,
    beta: Fraction | None = None,
    auxiliary: Fraction | None = None,
    distil: Fraction | None = None,
    layer_decay: Positive = 1.0,
    patience: Count | None = None,
    seed: Seed = 0,
    run_dir: AnyPath | None = None,
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
        ``"tiny"``, ``"small"``, ``"base"``, or a configuration (with another ``backbone``, only its ``dim`` counts); or
        ``"seed"``, the prototype: its network, trained its way (AdamW at 2e-4 on the squared error of the scores as they
        are, 10 epochs, no augmentation; give it batches of one patch), for comparison.
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
    max_epochs, learning_rate, weight_decay, warmup, clip, ema_decay
        Passes over the patches, peak learning rate, decay of matrices, share of steps with a rising rate, largest norm of
        the gradient, decay of the running average of weights per step. None takes what
        :class:`spatialsig.train.recipe.Recipe` says.
    loss, beta
        ``"huber"`` (the default), ``"mse"``, or ``"gaussian"``, with which the model also predicts its uncertainty;
        ``beta`` is described in :func:`spatialsig.nn.losses.masked_loss`.
    auxiliary
        Weight, 0 to 1, of a loss that makes the image's features guess the expression embedding; 0 by default.
    distil
        Weight, 0 to 1, of a loss that makes the model say from the image alone what it says with expression. None takes
        what :func:`spatialsig.train.recipe.usual_distillation` says: 1, but 0 for fusion ``"token"``, where it doubles the
        time, for ``modality_dropout=0``, and for the prototype.
    layer_decay
        Factor between the learning rates of one layer of the backbone and the next, for backbones trained before.
    patience
        Epochs without a better validation correlation after which training stops; None never stops, since the last,
        small learning rates gain most.
    seed
        Seed of weights, augmentation and dropout (the order has the seed of ``batches``).
    run_dir
        Directory for ``history.csv``, written after every epoch, and for checkpoints, from which the same call resumes
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
        (:class:`~spatialsig.errors.TrainingError`), or ``run_dir`` holds a checkpoint of another run.
    """
    prototype = size == SEED
    fusion = checked_fusion(batches, fusion, usual="add" if prototype else "gated")
    if distil is None and not prototype:
        distil = usual_distillation(fusion, modality_dropout)
    recipe = chosen_recipe(
        PROTOTYPE if prototype else Recipe(),
        max_epochs=max_epochs,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        clip=clip,
        ema_decay=ema_decay,
        loss=loss,
        beta=beta,
        auxiliary=auxiliary,
        distil=distil,
    )
    _check_validation(batches, validation)
    n_steps = recipe.max_epochs * len(batches)
    with (
        reproducible(seed),
        own_threads(),
        kept_memory(),
        progress_bar("Training on H&E", total=n_steps, unit="batch") as bar,
    ):
        network = (
            seed_network(batches, len(signatures), backbone, fusion, recipe)
            if prototype
            else new_network(batches, len(signatures), size, backbone, fusion, modality_dropout, recipe)
        )
        model = model_around(
            network, batches, signatures, um_per_px=um_per_px, run={**(run or {}), "distil": recipe.distil}
        )
        if recipe.ridge and not resumes(run_dir, trainer):
            start_from_ridge(model, batches)
        if augment is None and not prototype and not isinstance(batches, FeatureBatches):
            augment = AugmentConfig()
        changes = None if augment is None else Augment(augment, seed=seed)
        module = VitModule(model, changes, recipe, n_steps=n_steps, layer_decay=layer_decay)
        history = History(bar, best_of="val_pearson", patience=patience, csv=history_file(run_dir))
        options: dict[str, Any] = {"trainer": trainer, "identity": {"signatures": list(signatures)}}
        epochs, clip = recipe.max_epochs, recipe.clip
        fit(module, batches, validation=validation, history=history, max_epochs=epochs, clip=clip, **options)
        model.net.load_state_dict(module.average.state_dict())
    model.net.cpu().eval()
    return model, history.frame


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
