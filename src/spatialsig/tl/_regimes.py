"""How much of an image network learns: its head alone, low-rank additions, or all of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig._checks import check_choice
from spatialsig._errors import InputError
from spatialsig.data.features import FeatureSource, compute_features
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.nn.backbones import build_backbone, table_backbone, table_key, warn_of_scale
from spatialsig.nn.lora import add_lora, merge_lora
from spatialsig.nn.signature import VIT
from spatialsig.nn.vit import ViT, ViTConfig, vit_config
from spatialsig.tl._training_data import batches
from spatialsig.train import fit_vit

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    import pandas as pd
    from torch import nn

    from spatialsig.models import SignatureViT
    from spatialsig.tl._training_data import LabelledPatches, TrainingData

FROZEN, LORA, FULL = "frozen", "lora", "full"
TUNES = (FROZEN, LORA, FULL)
LAYER_DECAY = 0.75  # between layers of a network that was trained before
_CACHED = "(computed once)"  # in place of the key of a table, while a frozen network's head learns


@dataclass(frozen=True)
class Regime:
    """A network and how it learns.

    Parameters
    ----------
    network
        None makes a new one of our own.
    size
        Of our own, and of the head.
    tune
        One of :data:`TUNES`.
    layer_decay
        Factor between the learning rates of its layers.
    lora
        Arguments of :func:`spatialsig.nn.lora.add_lora`.
    """

    network: nn.Module | None
    size: str | ViTConfig
    tune: str
    layer_decay: float
    lora: Mapping[str, Any]


def regime(
    backbone: str | nn.Module | Callable[..., Any],
    *,
    options: Mapping[str, Any] | None,
    pretrained: PretrainedViT | str | os.PathLike[str] | None,
    size: str | ViTConfig,
    tune: str | None,
    lora: Mapping[str, Any] | None,
    layer_decay: float | None,
    found: TrainingData,
) -> Regime:
    """Build what ``train_vit`` was asked for.

    Raises
    ------
    InputError
        If the arguments exclude each other, or the network does not fit the patches.
    """
    known: nn.Module | None = None
    if pretrained is not None:
        if backbone != VIT:
            msg = f"`pretrained` is a network of our own; it cannot be combined with `backbone={backbone!r}`."
            raise InputError(msg)
        size, known = _pretrained(pretrained, size, found)
    elif isinstance(backbone, str) and table_key(backbone) is not None:
        known = _of_table(backbone, tune, found)
        tune = FULL  # there is nothing before the head
    elif backbone != VIT:
        known = build_backbone(backbone, **dict(options or {}))
        warn_of_scale(known, patch_px=found.spec.patch_px, um_per_px=found.spec.um_per_px)
        tune = FROZEN if tune is None else tune
    tune = FULL if tune is None else tune
    check_choice(tune, TUNES, name="tune")
    if known is None and tune != FULL:
        msg = f"`tune={tune!r}` needs a network that was trained before: pass `backbone` or `pretrained`."
        raise InputError(msg)
    trained_before = known is not None and tune == FULL
    decay = (LAYER_DECAY if trained_before else 1.0) if layer_decay is None else layer_decay
    return Regime(known, size, tune, decay, dict(lora or {}))


def fit_regime(
    how: Regime, found: TrainingData, *, batch_size: int, seed: int, **options: Any
) -> tuple[SignatureViT, pd.DataFrame]:
    """Train; the model returned is whole, whatever part of it has learned."""
    train, held_out, network = found.train, found.held_out, how.network
    if how.tune == FROZEN and network is not None:
        if options.get("augment") is not None:
            msg = "`tune='frozen'` computes the features of every patch once; leave `augment` out, or use 'lora' or 'full'."
            raise InputError(msg)
        train, held_out = _by_features(train, network), _by_features(held_out, network)
        network = table_backbone(_CACHED, int(how.network.num_features))  # type: ignore[arg-type,union-attr]
    elif how.tune == LORA and network is not None:
        add_lora(network, **how.lora)
    if network is not None:
        options["backbone"] = network
    options |= {"size": how.size, "signatures": found.names, "um_per_px": found.spec.um_per_px, "seed": seed}
    model, history = fit_vit(
        batches(train, batch_size=batch_size, seed=seed, shuffle=True),
        validation=batches(held_out, batch_size=batch_size, seed=seed, shuffle=False) if held_out else None,
        layer_decay=how.layer_decay,
        **options,
    )
    if how.tune == LORA:
        merge_lora(model.net)
    if how.tune == FROZEN and how.network is not None:
        _around(model, how.network)
    return model, history


def _pretrained(
    pretrained: PretrainedViT | str | os.PathLike[str], size: str | ViTConfig, found: TrainingData
) -> tuple[ViTConfig, ViT]:
    model = pretrained if isinstance(pretrained, PretrainedViT) else PretrainedViT.load(Path(pretrained))
    wanted = size if isinstance(size, ViTConfig) else vit_config(size)
    differing = [
        f"{f.name} {getattr(model.config, f.name)!r}, asked for {getattr(wanted, f.name)!r}"
        for f in fields(ViTConfig)
        if getattr(model.config, f.name) != getattr(wanted, f.name)
    ]
    if differing:
        msg = (
            f"the pretrained network has another shape than `size={size!r}`: {'; '.join(differing)}. Pass the `size` it was "
            "pre-trained with, or its configuration, `size=pretrained.config`."
        )
        raise InputError(msg)
    if model.um_per_px != found.spec.um_per_px:
        msg = (
            f"the pretrained network has seen patches at {model.um_per_px} µm/px; these are at {found.spec.um_per_px}. Cut "
            f"them with `sp.pp.make_patches(..., um_per_px={model.um_per_px})`."
        )
        raise InputError(msg)
    return model.config, copy.deepcopy(model.net)


def _of_table(backbone: str, tune: str | None, found: TrainingData) -> nn.Module:
    if tune not in (None, FROZEN):
        msg = f"`tune={tune!r}`: `backbone={backbone!r}` is a table of features, not a network that could learn."
        raise InputError(msg)
    (width,) = {p.source.features.shape[1] for p in found.train[:1] if isinstance(p.source, FeatureSource)}
    key = table_key(backbone)
    return table_backbone(str(key), width)


def _by_features(patches: list[LabelledPatches], network: nn.Module) -> list[LabelledPatches]:
    return [
        p if isinstance(p.source, FeatureSource) else replace(p, source=compute_features(p.source, network))
        for p in patches
    ]


def _around(model: SignatureViT, network: nn.Module) -> None:
    """Put the network whose features the head has learned from in front of it."""
    spec = VIT if isinstance(network, ViT) else str(network.spec)
    model.config = model.net.config = replace(model.config, backbone=spec)
    model.net.backbone = network
    model.net.eval()
