"""Masks of glass, lumens, fat, folds, pen and blur in the frame of the H&E, and their share of every patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import tifffile

from spatialsig.datasets.synthetic.image.artefacts import BLURRED
from spatialsig.datasets.synthetic.image.draw_artefacts import stroke_place
from spatialsig.geometry.affine import apply

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.slide import SyntheticSlide

MASKS = ("white", "lumen", "fat", "fold", "pen", "defocus")
MASK_PX = 4  # H&E px per side of a mask pixel
_BAND = 256


@numba.njit(cache=True, nogil=True)
def _within(xy_um: NDArray[np.float64], strokes: NDArray[np.float64], out: NDArray[np.bool_]) -> None:
    for index in range(xy_um.shape[0]):
        for stroke in strokes:
            _, across, half = stroke_place(stroke, xy_um[index, 0], xy_um[index, 1])
            if abs(across) < half:
                out[index] = True


def _in_strokes(xy_um: NDArray[np.float64], strokes: NDArray[np.float64]) -> NDArray[np.bool_]:
    inside = np.zeros(len(xy_um), dtype=np.bool_)
    _within(xy_um, strokes, inside)
    return inside


def _at(slide: SyntheticSlide, xy_um: NDArray[np.float64]) -> list[NDArray[Any]]:
    """Every mask at points ``(n, 2)`` um, in the order of :data:`MASKS`."""
    structures, spoiled = slide.tissue.structures, slide.artefacts
    nowhere = np.zeros(len(xy_um), dtype=np.bool_)
    white = slide.tissue.outline.at(xy_um) <= 0
    return [
        white,
        structures.lumen.at(xy_um) < 0 if structures else nowhere,
        structures.fat.at(xy_um) < 0 if structures else nowhere,
        ~white & _in_strokes(xy_um, spoiled.folds),
        _in_strokes(xy_um, spoiled.pens),
        ~white & (spoiled.defocus.at(xy_um) > BLURRED) if spoiled.defocus else nowhere,
    ]


def true_masks(slide: SyntheticSlide) -> NDArray[np.uint8]:
    """Masks ``(len(MASKS), rows, columns)``, 0 or 1; a pixel is :data:`MASK_PX` H&E px wide and tells of its centre.

    ``white`` is glass without tissue: around it, in its gaps and lumens, and in the fat cells. Folds and blur are
    marked on tissue only, for glass shows neither.
    """
    shape = tuple(-(-side // MASK_PX) for side in slide.frames.he_shape)
    masks = np.empty((len(MASKS), *shape), dtype=np.uint8)
    for row0 in range(0, shape[0], _BAND):
        n_rows = min(_BAND, shape[0] - row0)
        rows, columns = np.mgrid[row0 : row0 + n_rows, : shape[1]]
        he_px = (np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) * MASK_PX
        values = _at(slide, apply(slide.frames.he_to_um, he_px))
        masks[:, row0 : row0 + n_rows] = np.reshape(values, (len(MASKS), n_rows, shape[1]))
    return masks


def patch_shares(masks: NDArray[np.uint8], patch_px: int, n_rows: int, n_cols: int) -> NDArray[np.float64]:
    """Share of each mask in a grid of patches, by the mask pixels whose centre each holds.

    Returns
    -------
    ``(n_rows * n_cols, len(MASKS))``, patches in row-major order.
    """
    edges = [np.ceil(np.arange(n + 1) * patch_px / MASK_PX - 0.5).astype(np.int64) for n in (n_rows, n_cols)]
    used = masks[:, : edges[0][-1], : edges[1][-1]]
    total = np.add.reduceat(used, edges[0][:-1], axis=1, dtype=np.int64)
    total = np.add.reduceat(total, edges[1][:-1], axis=2)
    area = np.outer(np.diff(edges[0]), np.diff(edges[1]))
    shares: NDArray[np.float64] = (total / area).reshape(len(masks), -1).T
    return shares


def write_masks(path: Path, masks: NDArray[np.uint8], *, um_per_px: float) -> None:
    """Write the masks as one TIFF, a page per mask, their names in its description."""
    tifffile.imwrite(
        path, masks, photometric="minisblack", compression="zlib", predictor=False,
        metadata={"axes": "CYX", "masks": list(MASKS), "he_px_per_px": MASK_PX, "um_per_px": MASK_PX * um_per_px},
    )  # fmt: skip
