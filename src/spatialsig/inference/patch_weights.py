"""How much each patch counts in training: by its cells, or by the standard errors of its labels.

Floor 5, above slide. Used by inference/training_set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide
    from spatialsig.slide.table_rows import PatchMatrix

WEIGHTS = ("n_cells", "sem", None)
CLIP = 10.0  # largest ratio between the weight of a patch and the median, either way


def patch_weights(
    slide: Slide, matrix: PatchMatrix, chosen: NDArray[np.int64], kind: str | None
) -> NDArray[np.float32]:
    """Weights with mean 1 on the slide; all alike where the table says nothing of cells."""
    if kind == "n_cells" and matrix.n_cells is not None:
        weight = np.nan_to_num(matrix.n_cells[chosen].astype(np.float64))
    elif kind == "sem":
        if matrix.sem is None:
            msg = (
                f"slide {slide.name!r}: `weights='sem'` needs standard errors, and the table of the targets has no layer "
                f"{_keys.SEM!r}; use 'n_cells' or None."
            )
            raise InputError(msg)
        weight = _inverse_variance(matrix.sem[chosen], matrix.values[chosen])
    else:
        weight = np.ones(len(chosen))
    return (weight / weight.mean()).astype(np.float32) if weight.any() else np.ones(len(chosen), np.float32)


def _inverse_variance(sem: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / SE^2 of each patch, averaged over targets in units of their variance, within :data:`CLIP` times the median."""
    variance = np.nanvar(values.astype(np.float64), axis=0)
    relative = sem.astype(np.float64) ** 2 / np.where(variance > 0, variance, np.nan)
    measured = np.isfinite(relative)
    mean = np.where(measured, relative, 0).sum(axis=1) / np.maximum(measured.sum(axis=1), 1)
    mean = np.where(measured.any(axis=1) & (mean > 0), mean, np.nan)
    if not np.isfinite(mean).any():
        return np.ones(len(sem))
    weight = 1 / np.where(np.isfinite(mean), mean, np.nanmedian(mean))
    middle = float(np.median(weight))
    return np.asarray(np.clip(weight, middle / CLIP, middle * CLIP))
