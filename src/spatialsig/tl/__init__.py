"""Tools: embed cells, score signatures, label patches, train, predict, evaluate."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._aggregate import aggregate_patches
    from ._autoencoder import embed_cells, train_autoencoder
    from ._ceiling import noise_ceiling
    from ._evaluate import evaluate
    from ._predict import predict
    from ._score import score_cells
    from ._vit import train_vit

__all__ = [
    "aggregate_patches",
    "embed_cells",
    "evaluate",
    "noise_ceiling",
    "predict",
    "score_cells",
    "train_autoencoder",
    "train_vit",
]

_HOME = {
    "aggregate_patches": "_aggregate",
    "embed_cells": "_autoencoder",
    "evaluate": "_evaluate",
    "noise_ceiling": "_ceiling",
    "predict": "_predict",
    "score_cells": "_score",
    "train_autoencoder": "_autoencoder",
    "train_vit": "_vit",
}


def __getattr__(name: str) -> Any:
    # each verb brings its own heavy packages, on first use
    if name in _HOME:
        return getattr(importlib.import_module(f"spatialsig.tl.{_HOME[name]}"), name)
    msg = f"module 'spatialsig.tl' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
