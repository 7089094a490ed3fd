"""What the folds of a cross-validation share, and where each keeps its models and results.

Floor 6, above expression, inference, labels. Used by tl/_cross_validate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from spatialsig._files import DECODING_ERRORS
from spatialsig.errors import InputError
from spatialsig.expression import AutoencoderOptions
from spatialsig.inference.vit import VitOptions

if TYPE_CHECKING:
    from pathlib import Path

    from spatialsig.slide.slides import Data

MANIFEST = "cross_validation.json"
FRAME = "evaluation.parquet"
TRAINING = "training"  # checkpoints of a fold that is not finished


@dataclass(frozen=True)
class FoldPlan:
    """Data, options and keys that all folds share."""

    data: Data
    place: Path
    use_rep: str | None
    refit: bool
    autoencoder: dict[str, Any]
    train: dict[str, Any]
    seed: int
    patches_key: str
    signatures_key: str
    table_key: str
    hash: str = field(default="", compare=False)

    def directory(self, fold: int) -> Path:
        """Where models and results of a fold are kept."""
        return self.place / f"fold-{fold}"

    def autoencoder_options(self, fold: int) -> AutoencoderOptions:
        """Options of the autoencoder that has not seen a fold."""
        options = (
            self._training(fold, "autoencoder") | {"seed": self.seed, "table_key": self.table_key} | self.autoencoder
        )
        return AutoencoderOptions.of(**options | {"test_fold": fold})

    def vit_options(self, fold: int) -> VitOptions:
        """Options of the image model that has not seen a fold."""
        keys = {"patches_key": self.patches_key, "signatures_key": self.signatures_key}
        own = self._training(fold, "vit") | {"seed": self.seed} | keys
        return VitOptions.of(**own | self.train | {"test_fold": fold, "use_rep": self.rep(fold)})

    def _training(self, fold: int, model: str) -> dict[str, Any]:
        """Where a training run leaves its checkpoints until the fold is finished."""
        return {"run_dir": self.directory(fold) / TRAINING / model}

    def rep(self, fold: int) -> str | None:
        """Embedding that the model of a fold is given."""
        return f"{self.use_rep}_fold{fold}" if self.refit and self.use_rep is not None else self.use_rep

    def frame(self, fold: int) -> Path:
        """Where the evaluation of a fold is kept."""
        return self.directory(fold) / FRAME

    def results(self, fold: int) -> pd.DataFrame:
        """Evaluation of a fold that is done.

        Raises
        ------
        InputError
            If the file is missing or damaged.
        """
        try:
            return pd.read_parquet(self.frame(fold))
        except DECODING_ERRORS as error:  # of which those of pyarrow are
            msg = f"{self.frame(fold)} is missing or damaged ({error}). Remove {self.place / MANIFEST} to hold every fold out again."
            raise InputError(msg) from error
