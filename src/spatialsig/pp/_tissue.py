"""Tissue against glass, on a coarse level of the H&E."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter
from xarray import DataArray, DataTree

from spatialsig.data.frames import full_resolution

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASK_PX = 1024  # the mask is made on a level of about this size
SMOOTH_UM = 8.0  # joins nuclei and the pale stroma between them; gaps wider than about 30 um stay gaps
PALEST_GLASS = 0.11  # mean optical density: a scan without any glass must not lose its palest tissue
ABOVE_GLASS = 0.025  # tissue is darker than glass by this much


def tissue_integral(image: DataArray | DataTree, *, um_per_px: float) -> tuple[NDArray[np.float64], float]:
    """Summed-area table of the tissue mask, ``(h + 1, w + 1)``, and level-0 pixels per mask pixel.

    Tissue is what is darker than glass after smoothing; glass is the palest part of the slide.
    """
    full = full_resolution(image)
    level = _coarse_level(image)
    scale = full.sizes["x"] / level.sizes["x"]
    step = max(1, level.sizes["x"] // (2 * MASK_PX))  # a single-scale image: look at every n-th pixel
    pixels = np.asarray(level[:, ::step, ::step].data)
    density = -np.log((np.moveaxis(pixels, 0, -1).astype(np.float32) + 1) / 256).mean(axis=-1)
    smooth = gaussian_filter(density, SMOOTH_UM / (um_per_px * scale * step))
    glass = min(float(np.quantile(smooth, 0.01)), PALEST_GLASS)
    mask = smooth > glass + ABOVE_GLASS
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    table[1:, 1:] = mask.cumsum(axis=0).cumsum(axis=1)
    return table, scale * step


def tissue_fraction(
    integral: NDArray[np.float64], scale: float, origins: NDArray[np.int64], *, size: int
) -> NDArray[np.float64]:
    """Share of tissue in each square patch, ``(n_patches,)``; ``origins`` and ``size`` in level-0 px."""
    h, w = (n - 1 for n in integral.shape)
    y0, x0 = (np.floor(origins / scale).astype(np.int64)).T
    y1, x1 = np.ceil((origins + size) / scale).astype(np.int64).T
    y0, y1, x0, x1 = np.clip(y0, 0, h - 1), np.clip(y1, 1, h), np.clip(x0, 0, w - 1), np.clip(x1, 1, w)
    tissue = integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]
    share: NDArray[np.float64] = tissue / ((y1 - y0) * (x1 - x0))
    return share


def _coarse_level(image: DataArray | DataTree) -> DataArray:
    if not isinstance(image, DataTree):
        return image
    levels = [image[name]["image"] for name in image.children]
    enough = [level for level in levels if max(level.sizes["x"], level.sizes["y"]) >= MASK_PX]
    return min(enough or levels, key=lambda level: level.sizes["x"])  # type: ignore[return-value]
