"""Tools: embed cells, score signatures, label patches, train, predict, evaluate.

Floor 7: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels, evaluation.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import lazy_loader

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from spatialsig.models.cell_head import CellHead

    from ._aggregate import aggregate_patches
    from ._attention import attention
    from ._autoencoder import embed_cells, train_autoencoder
    from ._backbone import embed_patches, pretrain_vit
    from ._calibrate import calibrate
    from ._ceiling import noise_ceiling
    from ._cross_validate import cross_validate
    from ._ensemble import train_ensemble
    from ._evaluate import baselines, evaluate, findings
    from ._leak import embedding_leak
    from ._power import power
    from ._predict import predict
    from ._probe import train_probe
    from ._scales import scales
    from ._score import score_cells
    from ._summary import compare_methods, summarise
    from ._triage import triage
    from ._vit import train_vit

    predict_files: Callable[..., pd.DataFrame]
    referee: Callable[..., Any]
    signature_map: Callable[..., pd.DataFrame]
    predict_cells: Callable[..., pd.DataFrame]
    train_cell_head: Callable[..., CellHead]
    evaluate_cells: Callable[..., pd.DataFrame]

__all__ = [
    "aggregate_patches",
    "attention",
    "baselines",
    "calibrate",
    "compare_methods",
    "cross_validate",
    "embed_cells",
    "embed_patches",
    "embedding_leak",
    "evaluate",
    "evaluate_cells",
    "findings",
    "noise_ceiling",
    "power",
    "predict",
    "predict_cells",
    "predict_files",
    "pretrain_vit",
    "referee",
    "scales",
    "score_cells",
    "signature_map",
    "summarise",
    "train_autoencoder",
    "train_cell_head",
    "train_ensemble",
    "train_probe",
    "train_vit",
    "triage",
]

# tools made of functions of `io`, `pp` and `tl` lie above these rooms: name -> the room that holds it
ABOVE = {
    "predict_files": "spatialsig.whole_slides",
    "referee": "spatialsig.referee",
    "evaluate_cells": "spatialsig.maps",
    "predict_cells": "spatialsig.maps",
    "signature_map": "spatialsig.maps",
    "train_cell_head": "spatialsig.maps",
}

# each function brings its own heavy packages, on first use
_of_this_room, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_aggregate": ["aggregate_patches"],
        "_attention": ["attention"],
        "_autoencoder": ["embed_cells", "train_autoencoder"],
        "_backbone": ["embed_patches", "pretrain_vit"],
        "_calibrate": ["calibrate"],
        "_ceiling": ["noise_ceiling"],
        "_cross_validate": ["cross_validate"],
        "_ensemble": ["train_ensemble"],
        "_evaluate": ["baselines", "evaluate", "findings"],
        "_leak": ["embedding_leak"],
        "_power": ["power"],
        "_predict": ["predict"],
        "_probe": ["train_probe"],
        "_scales": ["scales"],
        "_score": ["score_cells"],
        "_summary": ["compare_methods", "summarise"],
        "_triage": ["triage"],
        "_vit": ["train_vit"],
    },
)


def __getattr__(name: str) -> Any:
    if name in ABOVE:
        return getattr(import_module(ABOVE[name]), name)
    return _of_this_room(name)


def __dir__() -> list[str]:
    return sorted(__all__)
