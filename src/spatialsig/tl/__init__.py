"""Tools: embed cells, score signatures, label patches, train, predict, evaluate.

Floor 7: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels, evaluation.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
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
    from ._predict import predict
    from ._score import score_cells
    from ._summary import compare_methods, summarise
    from ._vit import train_vit

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
    "findings",
    "noise_ceiling",
    "predict",
    "pretrain_vit",
    "score_cells",
    "summarise",
    "train_autoencoder",
    "train_ensemble",
    "train_vit",
]

# each function brings its own heavy packages, on first use
__getattr__, __dir__, _ = lazy_loader.attach(
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
        "_predict": ["predict"],
        "_score": ["score_cells"],
        "_summary": ["compare_methods", "summarise"],
        "_vit": ["train_vit"],
    },
)
