"""How much work each step of a run is, in units that its time is proportional to.

Floor 11, above report. Used by pipeline/estimate.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spatialsig.inference.vit import default_batch_size
from spatialsig.nn.seed_vit import SEED
from spatialsig.pipeline.run_step import (
    CALIBRATE,
    DESIGN,
    EMBED,
    EVALUATE,
    IMPORT,
    LABEL,
    PREDICT,
    TRAIN_AUTOENCODER,
    TRAIN_VIT,
)
from spatialsig.train.autoencoder import fit_autoencoder
from spatialsig.train.recipe import PROTOTYPE, Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spatialsig.pipeline.run_config import RunConfig
    from spatialsig.pipeline.sizes import SlideSize

Units = dict[str, float]


@dataclass(frozen=True)
class Workload:
    """A run on slides of known sizes."""

    config: RunConfig
    slides: Sequence[SlideSize]

    @property
    def stride_mm(self) -> float:
        """Distance between patches."""
        patches = self.config.patches
        return (patches.stride_um or patches.patch_px * patches.um_per_px) / 1000

    @property
    def n_patches(self) -> float:
        """Patches of all slides."""
        return sum(slide.tissue_mm2 for slide in self.slides) / self.stride_mm**2

    @property
    def n_labelled(self) -> float:
        """Patches of the slides with cells."""
        return sum(slide.tissue_mm2 for slide in self.slides if slide.is_measured) / self.stride_mm**2

    @property
    def batch_size(self) -> int:
        """Patches of a step of the image model."""
        given = self.config.vit.get("batch_size")
        if given is None and self.config.vit.get("size") == SEED:
            return 1
        return int(given or default_batch_size(int(self.n_labelled * self.trained_share)))

    @property
    def trained_share(self) -> float:
        """Share of the slides with cells that the image model learns from."""
        n_folds = self.config.split.n_folds
        return (n_folds - 1 - ("validation_fold" in self.config.vit)) / n_folds

    def epochs(self, section: str) -> int:
        """Most epochs of a training: it ends sooner where patience is given."""
        if section == "autoencoder":
            default = inspect.signature(fit_autoencoder).parameters["max_epochs"].default
        else:
            default = (PROTOTYPE if self.config.vit.get("size") == SEED else Recipe()).max_epochs
        return int(getattr(self.config, section).get("max_epochs") or default)

    def steps(self) -> dict[str, Units]:
        """Step -> units -> how many of them: cells and patches in thousands, counts that are not 0 in millions."""
        config, slides = self.config, self.slides
        every = {"run": 1.0, "slides": float(len(slides))}
        cells = sum(slide.n_cells for slide in slides) / 1e3
        values = sum(slide.n_values for slide in slides) / 1e6
        megapixels = sum(slide.megapixels for slide in slides)
        patches, labelled = self.n_patches / 1e3, self.n_labelled / 1e3
        members = (config.ensemble or {}).get("n_members", 5) if config.ensemble is not None else 1
        held_out = labelled / config.split.n_folds * members
        checked = sum(slide.tissue_mm2 for slide in slides if slide.is_measured) if config.check_alignment else 0.0
        steps: dict[str, Units] = {
            IMPORT: every | {"megapixels": megapixels, "values": values, "cells": cells, "checked_mm2": checked},
            DESIGN: every | {"values": values, "cells": cells},
            TRAIN_AUTOENCODER: every | self._autoencoder(cells, values),
            LABEL: every | {"values": values, "cells": cells, "patches": patches, "megapixels": megapixels},
            TRAIN_VIT: every | self._vit(labelled, members),
            PREDICT: every | {"patches": patches * members},
            EVALUATE: every | {"held_out": held_out, "trained": labelled * self.trained_share, "values": values},
        }
        if config.features is not None:
            steps[EMBED] = every | {"patches": patches}
        if config.calibration is not None:
            steps[CALIBRATE] = every | {"held_out": held_out}
        return steps

    def _autoencoder(self, cells: float, values: float) -> Units:
        n_folds = self.config.split.n_folds
        genes = min(self.config.genes.n_top_genes, max((slide.n_features for slide in self.slides), default=0))
        passes = cells * (n_folds - 1) / n_folds * self.epochs("autoencoder")
        return {"cell_epochs": passes, "cell_gene_epochs": passes * genes / 1e3, "cells": cells, "values": values}

    def _vit(self, labelled: float, members: int) -> Units:
        passes = labelled * self.trained_share * self.epochs("vit") * members
        return {"patch_epochs": passes, "steps": 1e3 * passes / self.batch_size}


def seconds(costs: dict[str, dict[str, float]], steps: dict[str, Units]) -> dict[str, float]:
    """Seconds of every step whose cost per unit is known."""
    return {
        step: sum(costs[step].get(unit, 0.0) * n for unit, n in units.items())
        for step, units in steps.items()
        if step in costs
    }
