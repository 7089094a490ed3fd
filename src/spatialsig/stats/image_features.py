"""Numbers that describe an H&E patch without learning: colour, texture at several scales, nuclei.

Floor 1, above the ground floor. Used by evaluation/rows, evaluation/squares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.color import hed_from_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUCLEAR_PIXEL = 0.08  # haematoxylin of stain_amounts above which a pixel counts as nucleus
N_COLOUR, N_DENSITY = 6, 2

_DARKEST = 1e-6  # grey value that stands for black, as in skimage
_LOGGED = (np.log(np.maximum(np.arange(256) / 255, _DARKEST)) / np.log(_DARKEST)).astype(np.float32)
SCALES = (1, 2, 4, 8)  # px over which the picture is averaged before its texture is measured: doublings
SHARES = (0.05, 0.5, 0.95)
MIN_NUCLEUS_UM2, LARGE_NUCLEUS_UM2 = 8.0, 60.0
NUCLEUS = 0.04  # haematoxylin, averaged over 3 px, that outlines a nucleus
WHITE = 0.008  # amounts of both stains below which a pixel is empty

NAMES = (
    *(f"{stain}_{moment}" for stain in "HER" for moment in ("mean", "sd", "skew")),
    *(f"{stain}_p{round(100 * share)}" for stain in "HE" for share in SHARES),
    "HE_correlation",
    "white_share",
    *(f"{stain}_{kind}_{scale}" for stain in "HE" for scale in SCALES for kind in ("sd", "edge")),
    "nuclei_per_mm2",
    "nucleus_area_mean",
    "nucleus_area_sd",
    "large_nucleus_share",
    "nucleus_elongation",
    "nucleus_H_mean",
    "nucleus_H_sd",
    "nucleus_E_mean",
    "cytoplasm_E_mean",
)


def stain_amounts(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Haematoxylin, eosin and what is left, ``(n, 3, h, w)``, of RGB patches ``(n, 3, h, w)``.

    The numbers of :func:`skimage.color.rgb2hed`, from a table of logarithms, which is several times as fast.
    """
    logged = _LOGGED[images].reshape(len(images), 3, -1)
    amounts = np.matmul(hed_from_rgb.T.astype(np.float32), logged)
    return np.asarray(np.maximum(amounts, 0, out=amounts).reshape(images.shape))


def colour_statistics(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean and standard deviation of each channel, ``(n, 6)``, of RGB patches ``(n, 3, h, w)``."""
    pixels = images.reshape(len(images), 3, -1).astype(np.float32)
    return np.concatenate([pixels.mean(axis=-1), pixels.std(axis=-1)], axis=1)


def nuclear_density(stains: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean haematoxylin and share of nuclear pixels, ``(n, 2)``, of the amounts of :func:`stain_amounts`."""
    haematoxylin = stains[:, 0].reshape(len(stains), -1)
    return np.stack([haematoxylin.mean(axis=1), (haematoxylin > NUCLEAR_PIXEL).mean(axis=1)], axis=1).astype(np.float32)


def hand_features(stains: NDArray[np.float32], *, um_per_px: float) -> NDArray[np.float32]:
    """Features ``(n, 42)``, named in :data:`NAMES`, of the stain amounts ``(n, 3, h, w)`` of patches.

    ``um_per_px`` is the resolution of the patches. Where a patch holds no nucleus, what describes one is 0.
    """
    blocks = (_moments(stains), _quantiles(stains), _mixture(stains), _texture(stains), _nuclei(stains, um_per_px))
    return np.concatenate(blocks, axis=1).astype(np.float32)


def _moments(stains: NDArray[np.float32]) -> NDArray[np.floating]:
    """Mean, deviation and skewness of each stain, ``(n, 9)``."""
    flat = stains.reshape(len(stains), 3, -1)
    mean, sd = flat.mean(axis=2), flat.std(axis=2)
    off = flat - mean[:, :, None]
    skew = (off * off * off).mean(axis=2) / np.maximum(sd, 1e-6) ** 3
    return np.stack([mean, sd, skew], axis=2).reshape(len(stains), -1)


def _quantiles(stains: NDArray[np.float32]) -> NDArray[np.floating]:
    """5 %, 50 % and 95 % of haematoxylin and eosin over every second pixel either way, ``(n, 6)``."""
    flat = stains[:, :2, ::2, ::2].reshape(len(stains), 2, -1)
    at = [round(share * (flat.shape[2] - 1)) for share in SHARES]
    return np.partition(flat, at, axis=2)[:, :, at].reshape(len(stains), -1)


def _mixture(stains: NDArray[np.float32]) -> NDArray[np.floating]:
    """Correlation of the two stains, and the share of the patch that is empty, ``(n, 2)``."""
    flat = stains[:, :2].reshape(len(stains), 2, -1)
    off = flat - flat.mean(axis=2, keepdims=True)
    together = (off[:, 0] * off[:, 1]).mean(axis=1) / np.maximum(off.std(axis=2).prod(axis=1), 1e-9)
    return np.stack([together, (flat < WHITE).all(axis=1).mean(axis=1)], axis=1)


def _texture(stains: NDArray[np.float32]) -> NDArray[np.floating]:
    """Spread, and mean step between neighbours, of haematoxylin and eosin averaged over growing squares, ``(n, 16)``."""
    found, picture = [], stains[:, :2]
    for scale in SCALES:
        picture = picture if scale == SCALES[0] else _halved(picture)
        steps = [np.abs(np.diff(picture, axis=axis)).mean(axis=(2, 3)) for axis in (2, 3)]
        found.append(np.stack([picture.std(axis=(2, 3)), (steps[0] + steps[1]) / 2], axis=2))
    return np.stack(found, axis=2).reshape(len(stains), -1)


def _halved(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of every four pixels; an odd last row or column is left out, and a picture of 3 px stays."""
    height, width = pictures.shape[2:]
    if min(height, width) < 4:
        return pictures
    even = pictures[:, :, : height // 2 * 2, : width // 2 * 2]
    total = even[:, :, ::2, ::2] + even[:, :, 1::2, ::2] + even[:, :, ::2, 1::2] + even[:, :, 1::2, 1::2]
    return np.asarray(total / 4, np.float32)


def _nuclei(stains: NDArray[np.float32], um_per_px: float) -> NDArray[np.floating]:
    """Number, size, shape and colour of the nuclei, ``(n, 9)``: connected areas of haematoxylin."""
    n, _, height, width = stains.shape
    smooth = ndimage.uniform_filter(stains[:, 0], size=(0, 3, 3))
    inside = smooth > NUCLEUS
    flat = np.zeros((3, 3, 3), bool)  # pixels of two patches never touch
    flat[1] = ndimage.generate_binary_structure(2, 1)
    labels, n_areas = ndimage.label(inside, structure=flat)
    patch, y, x = np.nonzero(inside)
    area_of = labels[patch, y, x] - 1
    size = np.bincount(area_of, minlength=n_areas).astype(np.float64)
    owner = np.zeros(n_areas, np.int64)
    owner[area_of] = patch
    um2 = size * um_per_px**2
    real = um2 >= MIN_NUCLEUS_UM2
    count = np.bincount(owner[real], minlength=n).astype(np.float64)

    def per_patch(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return _ratio(np.bincount(owner[real], values[real], minlength=n), count)

    mean = per_patch(um2)
    variance = per_patch(um2**2) - mean**2
    large, elongation = per_patch((um2 > LARGE_NUCLEUS_UM2).astype(float)), per_patch(_elongation(area_of, y, x, size))
    pixels, out = inside.sum(axis=(1, 2)).astype(np.float64), (~inside).sum(axis=(1, 2)).astype(np.float64)
    h_mean = _ratio((stains[:, 0] * inside).sum(axis=(1, 2)), pixels)
    h_square = _ratio((stains[:, 0] ** 2 * inside).sum(axis=(1, 2)), pixels)
    e_in = _ratio((stains[:, 1] * inside).sum(axis=(1, 2)), pixels)
    e_out = _ratio((stains[:, 1] * ~inside).sum(axis=(1, 2)), out)
    per_mm2 = count / (height * width * um_per_px**2 * 1e-6)
    spread = np.sqrt(np.maximum(variance, 0)), np.sqrt(np.maximum(h_square - h_mean**2, 0))
    return np.stack([per_mm2, mean, spread[0], large, elongation, h_mean, spread[1], e_in, e_out], axis=1)


def _elongation(
    area_of: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64], size: NDArray[np.float64]
) -> NDArray[np.float64]:
    """1 minus the ratio of the axes of the ellipse with the second moments of each area, 0 for a disc."""

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(area_of, values, minlength=len(size)) / size)

    my, mx = mean(y.astype(float)), mean(x.astype(float))
    yy = mean((y - my[area_of]) ** 2) + 1 / 12  # a pixel is a square, not a point
    xx = mean((x - mx[area_of]) ** 2) + 1 / 12
    xy = mean((y - my[area_of]) * (x - mx[area_of]))
    root = np.sqrt((yy - xx) ** 2 / 4 + xy**2)
    middle = (yy + xx) / 2
    return np.asarray(1 - np.sqrt(np.maximum(middle - root, 0) / (middle + root)))


def _ratio(total: NDArray[Any], n: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.divide(total, n, out=np.zeros(len(n)), where=n > 0))
