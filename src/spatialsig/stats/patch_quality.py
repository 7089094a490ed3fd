"""Faults of H&E patches from their optical density: out of focus, glass, ink, folds, unusual stain.

Optical density (OD) is ``-ln((value + 1) / 256)`` per channel, R, G, B. Stains add up in it, so a fold of tissue doubles
it and glass is a constant.

Floor 1, above the ground floor. Used by pp/_qc_patches, pp/_segmentation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter, median_filter

from spatialsig.stats.stain import optical_density

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

GLASS_CHROMA = 0.08  # glass is grey: its channels differ by less than this
GLASS_DARKEST = 0.45  # and it is pale, however badly the scan is white-balanced
GLASS_SHARE = 0.05  # with less of it on a slide, what looks like glass may be pale tissue ...
PALEST_GLASS = 0.11  # ... and glass is not taken to be darker than this
WHITE = 0.04  # OD above glass under which a block is glass
INK_STRENGTH = 0.15  # OD above glass from which a colour can be judged
INK_RED_SHIFT = 0.15  # blue and green ink absorb more red than green light; the bluest haematoxylin hardly does
INK_RED, INK_RED_OD = 0.445, 1.4  # ink over tissue: this share of red, and redder absorption than any area of nuclei
GREY_CHROMA = 0.1  # dark rims and dirt: channels differ by less than this share of the mean
DARK_CHROMA, DARK = 0.35, 1.2  # black ink over tissue
WARM_BLUE, WARM_RED, WARM = 0.33, 0.2, 1.0  # red ink: as red as blood, and darker than any area of it
FOLD_SMOOTH_UM = 14.0  # nuclei average out
FOLD_WINDOW_UM = 170.0
FOLD_STEP = 0.27  # ln OD above the neighbourhood; a fold adds ln 2 = 0.69, less where it is smoothed
FOLD_SD = 2.2  # and more than places of this slide differ from their neighbourhood anyway
FOLD_DARK = 0.1  # and above the median of the slide: septa in fat are no folds
FOLD_HUE = 0.05  # a fold keeps the hue, an epithelium beside stroma does not
FOLD_FLOOR = 0.02
FOCUS_TILES = 5  # sharpness is judged in tiles of a patch ...
EMPTY_TILE = 0.05  # ... that hold more than this share of the contrast of the fullest
MAD_TO_SD = 1.4826
_SMALL = 1e-6


def glass_density(density: NDArray[Any]) -> NDArray[np.float64]:
    """Optical density of empty glass, ``(3,)``, from that of a slide ``(..., 3)``: the palest grey there is."""
    pixels = np.asarray(density, np.float64).reshape(-1, 3)
    mean, chroma = pixels.mean(axis=1), np.ptp(pixels, axis=1)
    grey = (chroma < GLASS_CHROMA) & (mean < GLASS_DARKEST)
    usable = pixels[grey] if grey.any() else pixels
    level = usable.mean(axis=1)
    glass: NDArray[np.float64] = np.median(usable[level <= np.quantile(level, 0.1)], axis=0)
    if grey.mean() < GLASS_SHARE:
        glass = glass * min(1.0, PALEST_GLASS / max(float(glass.mean()), _SMALL))
    return glass


def not_stain(above: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the colour is neither haematoxylin nor eosin but ink or a dark rim, ``(...)``.

    Parameters
    ----------
    above
        Optical density above glass ``(..., 3)``, averaged over a few micrometres so that no single nucleus decides.
    """
    above = np.maximum(above, 0)
    mean = above.mean(axis=-1)
    red, green, blue = np.moveaxis(above / (3 * mean[..., None] + _SMALL), -1, 0)
    over_tissue = (red > INK_RED) & (above[..., 0] > INK_RED_OD)
    blue_or_green = over_tissue | (red - green > INK_RED_SHIFT)
    red_ink = (blue > WARM_BLUE) & (red < WARM_RED) & (mean > WARM)
    chroma = np.ptp(above, axis=-1)
    grey = (chroma < GREY_CHROMA * mean) | ((chroma < DARK_CHROMA * mean) & (mean > DARK))
    ink: NDArray[np.bool_] = (mean > INK_STRENGTH) & (blue_or_green | red_ink | grey)
    return ink


def density_blocks(images: NDArray[np.uint8], *, n_blocks: int) -> NDArray[np.float32]:
    """Mean optical density of ``n_blocks x n_blocks`` parts of each patch, ``(n, n_blocks, n_blocks, 3)``.

    Parameters
    ----------
    images
        RGB patches ``(n, 3, h, w)``; rows and columns that do not fill a block are left out.
    n_blocks
        Blocks along an edge.
    """
    n, _, h, w = images.shape
    dy, dx = h // n_blocks, w // n_blocks
    density = optical_density(images[:, :, : dy * n_blocks, : dx * n_blocks])
    blocks = density.reshape(n, 3, n_blocks, dy, n_blocks, dx).mean(axis=(3, 5))
    return np.moveaxis(blocks, 1, -1)


def focus(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Sharpness of RGB patches ``(n, 3, h, w)``, ``(n,)``: fine over coarse contrast, in optical density.

    Both rise alike with the amount and the darkness of tissue, so that their ratio falls with blur only. Fine are
    structures of 1 to 2 px, coarse those of 4 to 8 px. The median over a grid of tiles counts, of those that hold
    structure: a patch is as sharp as most of its tissue.
    """
    density = optical_density(images).mean(axis=1)
    one, two, four, eight = (gaussian_filter(density, (0, s, s), truncate=3.0) for s in (1.0, 2.0, 4.0, 8.0))
    fine, coarse = _tile_means((one - two) ** 2), _tile_means((four - eight) ** 2)  # (n, tiles)
    empty = coarse < EMPTY_TILE * coarse.max(axis=1, keepdims=True)
    ratio = np.where(empty, np.nan, np.sqrt(fine / (coarse + _SMALL)))
    sharpness: NDArray[np.float64] = np.nanmedian(ratio, axis=1)
    return sharpness


def _tile_means(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Means over a grid of at most ``FOCUS_TILES x FOCUS_TILES`` tiles, ``(n, tiles)``."""
    n, h, w = values.shape
    tiles = max(1, min(FOCUS_TILES, h // 16, w // 16))
    dy, dx = h // tiles, w // tiles
    grid = values[:, : dy * tiles, : dx * tiles].reshape(n, tiles, dy, tiles, dx)
    means: NDArray[np.float64] = grid.mean(axis=(2, 4), dtype=np.float64).reshape(n, -1)
    return means


def fold_mask(above: NDArray[Any], tissue: NDArray[np.bool_], *, um_per_px: float) -> NDArray[np.bool_]:
    """Where a slide is folded over: strips much darker than the tissue beside them, ``(h, w)``.

    Tissue varies more from place to place than the doubling a fold adds, but slowly; so a place is compared with the
    median of its own neighbourhood. A fold wider than half of that is not seen.

    Parameters
    ----------
    above
        Optical density above glass ``(h, w, 3)`` of the slide, coarse.
    tissue
        Where tissue is, ``(h, w)``.
    um_per_px
        Resolution of both, µm/px.
    """
    if not tissue.any():
        return tissue.copy()
    sigma, window = FOLD_SMOOTH_UM / um_per_px, int(FOLD_WINDOW_UM / um_per_px) | 1
    weight = gaussian_filter(tissue.astype(np.float64), sigma) + _SMALL
    inside = np.where(tissue[..., None], np.maximum(above, 0), 0.0)
    smooth = gaussian_filter(inside, (sigma, sigma, 0)) / weight[..., None]
    darkness = np.log(smooth.mean(axis=-1) + FOLD_FLOOR)
    hue = smooth[..., 0] / (smooth.sum(axis=-1) + _SMALL)
    middle = np.median(darkness[tissue])
    step, shift = (
        value - median_filter(np.where(tissue, value, np.median(value[tissue])), window) for value in (darkness, hue)
    )
    _, spread = robust_spread(step[tissue])
    dark = (step > max(FOLD_STEP, FOLD_SD * float(spread))) & (darkness > middle + FOLD_DARK)
    folded: NDArray[np.bool_] = tissue & dark & (np.abs(shift) < FOLD_HUE)
    return folded


def robust_spread(values: NDArray[Any]) -> tuple[Any, Any]:
    """Median and the standard deviation that the median absolute deviation stands for, over the first axis."""
    middle = np.median(values, axis=0)
    return middle, MAD_TO_SD * np.median(np.abs(values - middle), axis=0)


def stain_distance(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each patch's stain from the usual one, robust standard deviations, ``(n,)``.

    Parameters
    ----------
    colours
        Mean optical density of the tissue of each patch above glass, ``(n, 3)``; NaN rows (no tissue) stay NaN.

    Notes
    -----
    Compared are strength (ln mean OD) and hue (shares of red and of blue); the largest of the three deviations counts.
    """
    result = np.full(len(colours), np.nan)
    known = np.isfinite(colours).all(axis=1) & (colours.sum(axis=1) > 0)
    if not known.any():
        return result
    above = np.maximum(colours[known], _SMALL)
    total = above.sum(axis=1)
    features = np.stack([np.log(total), above[:, 0] / total, above[:, 2] / total], axis=1)
    middle, spread = robust_spread(features)
    floor = np.array([0.1, 0.015, 0.01])  # deviations that no eye sees are no outliers on a very even slide
    result[known] = (np.abs(features - middle) / np.maximum(spread, floor)).max(axis=1)
    return result
