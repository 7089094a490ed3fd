"""Tissue against glass, on a coarse level of the H&E."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.filters import threshold_otsu
from xarray import DataArray, DataTree

from spatialsig.data.frames import full_resolution

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASK_PX = 1024  # the mask is made on a level of about this size
MIN_OPTICAL_DENSITY = 0.05  # paler than this is glass, whatever the histogram says


def tissue_integral(image: DataArray | DataTree) -> tuple[NDArray[np.float64], float]:
    """Summed-area table of the tissue mask, ``(h + 1, w + 1)``, and level-0 pixels per mask pixel."""
    full = full_resolution(image)
    level = _coarse_level(image)
    scale = full.sizes["x"] / level.sizes["x"]
    step = max(1, level.sizes["x"] // (2 * MASK_PX))  # a single-scale image: look at every n-th pixel
    pixels = np.asarray(level[:, ::step, ::step].data)
    density = -np.log((np.moveaxis(pixels, 0, -1).astype(np.float32) + 1) / 256).mean(axis=-1)
    mask = density > max(MIN_OPTICAL_DENSITY, _otsu(density))
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


def _otsu(density: NDArray[np.float32]) -> float:
    # Otsu divides tissue into dark and pale where there is hardly any glass: half of its threshold is safe on both
    return 0.5 * float(threshold_otsu(density)) if np.ptp(density) > 0 else 0.0  # type: ignore[no-untyped-call]
