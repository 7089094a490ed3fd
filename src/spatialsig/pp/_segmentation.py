"""Tissue against glass, ink and dark rims, on a coarse level of the H&E: the one engine of this package.

Floor 7, above evaluation. Used by 7 modules of maps, pp.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from spatialsig.data.pyramid import level_factor
from spatialsig.slide.coordinates import full_resolution
from spatialsig.stats.patch_quality import glass_density, not_stain
from spatialsig.stats.stain import optical_density
from spatialsig.store.chunk_files import check_whole
from spatialsig.store.layout import levels_of
from spatialsig.store.stored.damage import computed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from xarray import DataArray, DataTree

MASK_UM_PER_PX = 8.0
SMOOTH_UM = 8.0  # joins nuclei and the pale stroma between them; gaps wider than about 30 um stay gaps
TEXTURE_UM = 16.0
ABOVE_GLASS = (0.025, 0.06)  # Otsu's threshold is kept between these: alone it takes pale stroma for glass
TEXTURE = 0.02  # spilled stain and uneven light are smooth, tissue is not ...
DARK = 0.3  # ... unless it is as dark as this
BLUE_EXCESS = 0.15  # optical density; haematoxylin takes up red, so the darkest places of an H&E do so too
INK_REACH_UM = 24.0  # the rim of a pen stroke is a mixture that looks like stain


@dataclass(frozen=True)
class TissueMask:
    """Tissue of an H&E as a coarse mask."""

    mask: NDArray[np.bool_]  # (h, w) bool
    scale: tuple[float, float]  # level-0 px per px of the mask, along y and x


def coarse_pixels(
    image: DataArray | DataTree, *, um_per_px: float, target_um_per_px: float
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """RGB ``(h, w, 3)`` at about ``target_um_per_px``, never coarser, and level-0 px per px along y and x.

    Only the coarsest level that is fine enough is read; its pixels are averaged down to the target.
    """
    check_whole(image)
    full = full_resolution(image)
    level = levels_of(image)[coarse_level(image, um_per_px=um_per_px, target_um_per_px=target_um_per_px)]
    scale = [level_factor(full.sizes[a], level.sizes[a]) for a in ("y", "x")]
    step = max(1, int(target_um_per_px * 1.01 / (um_per_px * max(scale))))
    step = min(step, *(level.sizes[a] for a in ("y", "x")))
    pixels = da.asarray(level.transpose("y", "x", "c").data)[..., :3]  # type: ignore[no-untyped-call]
    small = da.coarsen(np.mean, pixels, {0: step, 1: step}, trim_excess=True)
    return computed(small).astype(np.float32, copy=False), (scale[0] * step, scale[1] * step)


def coarse_level(image: DataArray | DataTree, *, um_per_px: float, target_um_per_px: float) -> int:
    """Number of the coarsest level that is fine enough, of the finest where none is."""
    widths = [level.sizes["x"] for level in levels_of(image)]
    fine = [i for i, width in enumerate(widths) if widths[0] / width * um_per_px <= target_um_per_px * 1.01]
    return min(fine, key=lambda i: widths[i], default=0)


def segment(pixels: NDArray[np.float32], *, um_per_px: float, sensitivity: float = 1.0) -> NDArray[np.bool_]:
    """Tissue mask ``(h, w)`` of RGB ``(h, w, 3)``; a ``sensitivity`` above 1 takes paler tissue for tissue too.

    Tissue is darker than glass, rough on the scale of cells (or very dark), and has the colours of haematoxylin and
    eosin. Nothing is relative to how much tissue there is, so a slide full of it and one without any both come out.
    """
    raw = optical_density(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    sigma = SMOOTH_UM / um_per_px
    density = ndimage.gaussian_filter(raw, (sigma, sigma, 0))
    above = density - glass_density(density)
    mean = above.mean(axis=-1)
    texture = _local_sd(raw.mean(axis=-1), TEXTURE_UM / um_per_px)
    low, high = ABOVE_GLASS
    pale = np.clip(mean, 0, 2 * high)
    otsu = float(threshold_otsu(pale)) if np.ptp(pale) > 0 else high  # type: ignore[no-untyped-call]
    threshold = min(max(otsu, low), (low + high) / 2) / sensitivity
    ink = ndimage.binary_dilation(not_stain(above), iterations=max(1, round(INK_REACH_UM / um_per_px)))
    mask: NDArray[np.bool_] = (mean > threshold) & ((texture > TEXTURE / sensitivity) | (mean > DARK)) & ~ink
    return mask


def blue_before_red(tissue: NDArray[np.float32]) -> bool:
    """Whether the darkest tenth of tissue ``(n, 3)`` RGB absorbs blue more than red, as no H&E does but one full of blood."""
    if not len(tissue):
        return False
    stained = optical_density(np.clip(np.rint(tissue), 0, 255).astype(np.uint8))
    mean = stained.mean(axis=-1)
    darkest = stained[mean >= np.quantile(mean, 0.9)]
    return bool(np.median(darkest[:, 0] - darkest[:, 2]) < -BLUE_EXCESS)


def tidy(mask: NDArray[np.bool_], *, px_area_um2: float, min_area_um2: float, max_hole_um2: float) -> NDArray[np.bool_]:
    """Fill holes up to ``max_hole_um2``, then drop pieces under ``min_area_um2``."""
    filled = mask | ~_at_least(~mask, max_hole_um2 / px_area_um2, touching_counts=True)
    return _at_least(filled, min_area_um2 / px_area_um2, touching_counts=False)


def tissue_fraction(tissue: TissueMask, origins: NDArray[np.int64], *, size: int) -> NDArray[np.float64]:
    """Share of tissue in each square patch, ``(n_patches,)``; ``origins`` and ``size`` in level-0 px.

    Exact for the mask as it is: pixels of the mask that a patch cuts count with the part inside.
    """
    h, w = tissue.mask.shape
    table = np.zeros((h + 1, w + 1))
    table[1:, 1:] = tissue.mask.cumsum(axis=0).cumsum(axis=1)
    y0, x0 = (np.clip(origins[:, k] / tissue.scale[k], 0, n) for k, n in enumerate((h, w)))
    y1, x1 = (np.clip((origins[:, k] + size) / tissue.scale[k], 0, n) for k, n in enumerate((h, w)))
    inside = _at(table, y1, x1) - _at(table, y0, x1) - _at(table, y1, x0) + _at(table, y0, x0)
    area = (y1 - y0) * (x1 - x0)
    share: NDArray[np.float64] = np.clip(inside / np.maximum(area, 1e-9), 0, 1)
    return share


def _at(table: NDArray[np.float64], y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Summed-area table between its nodes: it is bilinear inside a pixel."""
    value: NDArray[np.float64] = ndimage.map_coordinates(table, [y, x], order=1, mode="nearest")
    return value


def _local_sd(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    mean = ndimage.gaussian_filter(values, sigma)
    square = ndimage.gaussian_filter(values**2, sigma)
    sd: NDArray[np.float32] = np.sqrt(np.maximum(square - mean**2, 0))
    return sd


def _at_least(mask: NDArray[np.bool_], n_px: float, *, touching_counts: bool) -> NDArray[np.bool_]:
    """Pieces of at least ``n_px``; with ``touching_counts`` also any that reaches the border of the image."""
    pieces, n = ndimage.label(mask)
    keep = np.bincount(pieces.ravel(), minlength=n + 1) >= n_px
    if touching_counts:
        rims = (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1])
        keep[np.unique(np.concatenate(rims))] = True
    keep[0] = False
    kept: NDArray[np.bool_] = keep[pieces]
    return kept
