"""What is wrong with H&E patches: out of focus, glass, ink, folds, unusual stain. Plain arrays of optical density.

Optical density (OD) is ``-ln((value + 1) / 256)`` per channel, R, G, B. Stains add up in it, so a fold of tissue doubles
it and glass is a constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

_OD = (-np.log((np.arange(256) + 1) / 256)).astype(np.float32)

GLASS_CHROMA = 0.08  # glass is grey: its channels differ by less than this
GLASS_DARKEST = 0.45  # and it is pale, however badly the scan is white-balanced
GLASS_SHARE = 0.05  # with less of it on a slide, what looks like glass may be pale tissue ...
PALEST_GLASS = 0.11  # ... and glass is not taken to be darker than this
WHITE = 0.04  # OD above glass under which a block is glass
INK_STRENGTH = 0.15  # OD above glass from which a colour can be judged
INK_RED_SHIFT = 0.10  # blue and green ink absorb more red than green light; haematoxylin and eosin never do
INK_BLUE, INK_RED = 0.42, 0.15  # red ink: more blue and less red absorbed than by eosin or blood
GREY_CHROMA = 0.2  # black ink, dirt, dark rims: channels differ by less than this share of the mean
FOLD_BINS = 6  # tissue is compared with tissue of like hue
FOLD_STEP = 0.47  # ln OD above the usual of that hue; a fold adds ln 2 = 0.69
MAD_TO_SD = 1.4826
_SMALL = 1e-6


def optical_density(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Optical density of 8-bit values, same shape."""
    density: NDArray[np.float32] = _OD[images]
    return density


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
    blue_or_green = red - green > INK_RED_SHIFT
    red_ink = (blue > INK_BLUE) & (red < INK_RED)
    grey = np.ptp(above, axis=-1) < GREY_CHROMA * mean
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
    structures of 1 to 2 px, coarse those of 4 to 8 px.
    """
    density = optical_density(images).mean(axis=1)
    one, two, four, eight = (gaussian_filter(density, (0, s, s), truncate=3.0) for s in (1.0, 2.0, 4.0, 8.0))
    fine, coarse = (one - two).std(axis=(1, 2)), (four - eight).std(axis=(1, 2))
    ratio: NDArray[np.float64] = np.asarray(fine / (coarse + _SMALL), np.float64)
    return ratio


def fold_blocks(above: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Blocks much darker than tissue of the same hue on the same slide, ``(...)``.

    Tissue is dark where nuclei are dense, and bluer there; a fold is darker without a change of hue.

    Parameters
    ----------
    above
        Optical density above glass ``(..., 3)`` of the blocks of one slide.
    usable
        Blocks of tissue ``(...)``: no glass, no ink.
    """
    folded = np.zeros(usable.shape, bool)
    if usable.sum() < 2 * FOLD_BINS:
        return folded
    tissue = np.maximum(np.asarray(above, np.float64)[usable], _SMALL)
    log_mean = np.log(tissue.mean(axis=1))
    hue = tissue[:, 0] / tissue.sum(axis=1)
    edges = np.quantile(hue, np.linspace(0, 1, FOLD_BINS + 1)[1:-1])
    which = np.searchsorted(edges, hue)
    excess = np.empty(len(hue))
    for index in np.unique(which):
        mine = which == index
        middle, spread = robust_spread(log_mean[mine])
        excess[mine] = log_mean[mine] - middle - max(FOLD_STEP, float(2.5 * spread))
    folded[usable] = excess > 0
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
