"""Tuning of an image network: its head alone, low-rank additions, or all of it.

Floor 5, above slide. Used by inference/probe, inference/vit, tl/_probe.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig._checks import check_choice, check_options, option_names, warn
from spatialsig.data.features import FeatureSource, compute_features
from spatialsig.errors import InputError
from spatialsig.inference.training_set import batches
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.nn.backbones import build_backbone, is_own, table_backbone, table_key, warn_of_scale
from spatialsig.nn.fine_tuning import add_lora, merge_lora
from spatialsig.nn.signature import VIT
from spatialsig.nn.vit import ViT, ViTConfig, vit_config
from spatialsig.slide.seen import seen_by
from spatialsig.train import fit_vit

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from torch import nn

    from spatialsig.inference.training_set import LabelledPatches, TrainingSet
    from spatialsig.models import SignatureViT
    from spatialsig.nn.external import TableBackbone

FROZEN, LORA, FULL = "frozen", "lora", "full"
TUNES = (FROZEN, LORA, FULL)
LAYER_DECAY = 0.75  # between layers of a network that was trained before
_CACHED = "(computed once)"  # in place of the key of a table, while a frozen network's head learns


@dataclass(frozen=True)
class Tuning:
    """A network, and which part of it learns."""

    network: nn.Module | None  # None makes a new one of our own, or one that reads the features of a table
    size: str | ViTConfig  # of our own, and of the head
    tune: str  # one of :data:`TUNES`
    layer_decay: float  # factor between the learning rates of its layers
    lora: Mapping[str, Any]  # arguments of :func:`spatialsig.nn.fine_tuning.add_lora`
    table: str | None = None  # table whose features take the place of an image network; None where there are images
    um_per_px: float | None = None  # resolution a pre-trained network of our own has seen; None for any other
    seen: Mapping[str, list[str]] = field(default_factory=dict)  # what a pre-trained network has learned from


def plan_tuning(
    backbone: str | nn.Module | Callable[..., Any],
    *,
    options: Mapping[str, Any] | None,
    pretrained: PretrainedViT | str | os.PathLike[str] | None,
    size: str | ViTConfig,
    tune: str | None,
    lora: Mapping[str, Any] | None,
    layer_decay: float | None,
) -> Tuning:
    """Build the network that ``train_vit`` was asked for, before any slide is opened.

    Raises
    ------
    InputError
        If the arguments exclude each other, or the network cannot be built.
    """
    check_choice(tune, (*TUNES, None), name="tune")
    if options and backbone == VIT:
        msg = f"`backbone_options={dict(options)}` belong to a `backbone` of others; `size` is what shapes our own network."
        raise InputError(msg)
    network: nn.Module | None = None
    um_per_px: float | None = None
    seen: dict[str, list[str]] = {}
    table = table_key(backbone) if isinstance(backbone, str) else None
    if pretrained is not None:
        if backbone != VIT:
            msg = f"`pretrained` is a network of our own; it cannot be combined with `backbone={backbone!r}`."
            raise InputError(msg)
        model = _pretrained(pretrained, size)
        size, network, um_per_px = model.config, copy.deepcopy(model.net), model.um_per_px
        seen = seen_by(model.run)
    elif table is not None:
        if tune not in (None, FROZEN):
            msg = f"`tune={tune!r}`: `backbone={backbone!r}` is a table of features, not a network that could learn."
            raise InputError(msg)
        tune = FULL  # there is nothing before the head
    elif backbone != VIT:
        check_options(options or {}, option_names(build_backbone), function="build_backbone")
        network = build_backbone(backbone, **dict(options or {}))
        if tune is None and is_own(backbone):
            warn(
                f"`backbone={backbone if isinstance(backbone, str) else type(backbone).__name__!r}` keeps the weights it has, "
                "and only a head learns from its features. Pass `tune='full'` to train it too, or `tune='frozen'` if that is meant."
            )
        tune = FROZEN if tune is None else tune
    tune = FULL if tune is None else tune
    trained_before = network is not None or table is not None
    if not trained_before and tune != FULL:
        msg = f"`tune={tune!r}` needs a network that was trained before: pass `backbone` or `pretrained`."
        raise InputError(msg)
    usual_decay = LAYER_DECAY if trained_before and tune == FULL else 1.0
    return Tuning(
        network,
        size,
        tune,
        usual_decay if layer_decay is None else layer_decay,
        dict(lora or {}),
        table,
        um_per_px,
        seen,
    )


def as_seen(tuning: Tuning, training_set: TrainingSet) -> TrainingSet:
    """Training set as what learns sees it: of a frozen network, its features in place of pixels, computed once."""
    network = _network_for(tuning, training_set)
    if tuning.tune != FROZEN or network is None:
        return training_set
    train, held_out = (_by_features(patches, network) for patches in (training_set.train, training_set.held_out))
    return replace(training_set, train=train, held_out=held_out)


def fit_tuned(
    tuning: Tuning, training_set: TrainingSet, *, batch_size: int, seed: int, whole: bool = True, **options: Any
) -> tuple[SignatureViT, pd.DataFrame]:
    """Train on what :func:`as_seen` gives.

    With ``whole``, the model returned sees pixels, whatever part of it has learned; else what the training set holds.
    """
    train, held_out = training_set.train, training_set.held_out
    # another fit may start from the same network
    network: nn.Module | None = reader_of(tuning, train)
    if network is None:
        network = copy.deepcopy(tuning.network)
    if tuning.tune == LORA and network is not None:
        add_lora(network, **tuning.lora)
    if network is not None:
        options["backbone"] = network
    options |= {"size": tuning.size, "signatures": training_set.names, "um_per_px": training_set.spec.um_per_px}
    model, history = fit_vit(
        batches(train, batch_size=batch_size, seed=seed, shuffle=True),
        validation=batches(held_out, batch_size=batch_size, seed=seed, shuffle=False) if held_out else None,
        layer_decay=tuning.layer_decay,
        seed=seed,
        **options,
    )
    if tuning.tune == LORA:
        merge_lora(model.net)
    if whole and tuning.tune == FROZEN and tuning.network is not None:
        put_in_front(model, tuning.network)
    return model, history


def reader_of(tuning: Tuning, train: Sequence[LabelledPatches]) -> TableBackbone | None:
    """What takes the place of the network while a head learns from features; None where pixels are read."""
    if tuning.table is None and (tuning.tune != FROZEN or tuning.network is None):
        return None
    width = train[0].source.features.shape[1]  # type: ignore[union-attr]
    return table_backbone(_CACHED if tuning.table is None else tuning.table, width)


def _network_for(tuning: Tuning, training_set: TrainingSet) -> nn.Module | None:
    """The network that sees pixels, once it is known to fit the patches; None where there is none yet."""
    spec = training_set.spec
    if tuning.um_per_px is None:
        if tuning.network is not None:
            warn_of_scale(tuning.network, patch_px=spec.patch_px, um_per_px=spec.um_per_px)
    elif tuning.um_per_px != spec.um_per_px:
        msg = (
            f"the pretrained network has seen patches at {tuning.um_per_px} µm/px; these are at {spec.um_per_px}. Cut "
            f"them with `sp.pp.make_patches(..., um_per_px={tuning.um_per_px})`."
        )
        raise InputError(msg)
    return tuning.network


def _pretrained(pretrained: PretrainedViT | str | os.PathLike[str], size: str | ViTConfig) -> PretrainedViT:
    """A pre-trained model that has the shape asked for."""
    model = pretrained if isinstance(pretrained, PretrainedViT) else PretrainedViT.load(Path(pretrained))
    asked = size if isinstance(size, ViTConfig) else vit_config(size)
    differing = [
        f"{f.name} {getattr(model.config, f.name)!r}, asked for {getattr(asked, f.name)!r}"
        for f in fields(ViTConfig)
        if getattr(model.config, f.name) != getattr(asked, f.name)
    ]
    if differing:
        msg = (
            f"the pretrained network has another shape than `size={size!r}`: {'; '.join(differing)}. Pass the `size` it was "
            "pre-trained with, or its configuration, `size=pretrained.config`."
        )
        raise InputError(msg)
    return model


def _by_features(patches: list[LabelledPatches], network: nn.Module) -> list[LabelledPatches]:
    return [
        p if isinstance(p.source, FeatureSource) else replace(p, source=compute_features(p.source, network))
        for p in patches
    ]


def put_in_front(model: SignatureViT, network: nn.Module) -> None:
    """Put the network whose features the head has learned from in front of it."""
    spec = VIT if isinstance(network, ViT) else str(network.spec)
    model.config = model.net.config = replace(model.config, backbone=spec)
    model.net.backbone = network
    model.net.eval()
