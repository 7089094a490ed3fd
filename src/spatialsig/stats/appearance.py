"""How patches look, in a few numbers that need no network: their stain, and how sharp they are at each scale.

Floor 1, above the ground floor. Used by inference/domain, pp/_qc_patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

from spatialsig.stats.stain import TISSUE_OD, optical_density

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE = 32  # px; a patch is judged by up to nine squares of this edge, spread evenly over it
MAX_TILES = 3  # along an edge
LEVELS = 4  # halvings: structures of 1, 2, 4 and 8 px
MIN_TISSUE = 0.05  # share of pixels below which a patch has no stain to speak of
COLOUR = ("strength", "red", "blue", "red_sd", "blue_sd", "red_blue", "contrast")
SHARPNESS = ("fine", "middle", "coarse")
N_SUMS = 8  # pixels of tissue, then OD, red and blue share: sums, sums of squares, and of red times blue
_SMALL, _NOISE = 1e-6, 1e-5  # _NOISE: energy of rounded grey values, below which nothing is told


def appearance(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Stain ``(n, 7)`` and sharpness ``(n, 3)`` of RGB patches ``(n, 3, h, w)``; NaN rows where there is next to no tissue.

    Of the optical density (OD) of pixels that are not glass: ``strength`` is the logarithm of its mean, ``red`` and ``blue``
    the mean share of these channels in it (the hue), with their deviations and the correlation of both, and ``contrast`` the
    logarithm of the deviation of the OD. Sharpness is what remains of the contrast from one scale to the next finer one,
    by Haar wavelets: the logarithm of the energy of structures of 1 px over that of 2 px (``fine``), 2 over 4, 4 over 8.
    Blur and a wrong resolution shift these ratios on every tissue, a stronger stain does not.
    """
    n, _, height, width = images.shape
    table = optical_density(np.arange(256, dtype=np.uint8))
    sums = np.zeros((n, N_SUMS))
    energy = np.zeros((n, LEVELS))
    tile = min(TILE, 1 << (max(2, min(height, width)).bit_length() - 1))
    rows, columns = _starts(height, tile), _starts(width, tile)
    _measure(np.ascontiguousarray(images), table, rows, columns, tile, sums, energy)
    n_px = len(rows) * len(columns) * tile * tile
    return _colour(sums, n_px), _sharpness(energy, sums[:, 0] >= MIN_TISSUE * n_px)


def _starts(edge: int, tile: int) -> NDArray[np.int64]:
    """First pixels of tiles spread over an edge; they overlap where it is short."""
    n = min(MAX_TILES, -(-edge // tile))
    return np.round(np.linspace(0, edge - tile, n) if n > 1 else [(edge - tile) / 2]).astype(np.int64)


def _colour(sums: NDArray[np.float64], n_px: int) -> NDArray[np.float64]:
    count = sums[:, 0]
    known = count >= MIN_TISSUE * n_px
    means = sums[:, 1:] / np.maximum(count, 1)[:, None]
    mean, square, red, red2, blue, blue2, both = means.T
    sd, red_sd, blue_sd = (np.sqrt(np.maximum(x2 - x * x, 0)) for x, x2 in ((mean, square), (red, red2), (blue, blue2)))
    together = (both - red * blue) / np.maximum(red_sd * blue_sd, _SMALL)
    found = np.stack([np.log(mean + _SMALL), red, blue, red_sd, blue_sd, together, np.log(sd + 1e-3)], axis=1)
    found[~known] = np.nan
    return found


def _sharpness(energy: NDArray[np.float64], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    logged = np.log(energy + _NOISE)
    found = logged[:, :-1] - logged[:, 1:]
    found[~known] = np.nan
    return found


@numba.njit(cache=True, nogil=True)
def _measure(
    images: NDArray[np.uint8], table: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64],
    tile: int, sums: NDArray[np.float64], energy: NDArray[np.float64],
) -> None:  # fmt: skip
    """Add up the pixels of each patch's tiles into ``sums``, and the energy of their wavelets into ``energy``."""
    grey = np.empty((tile, tile), np.float32)
    for k in range(images.shape[0]):
        for y0 in rows:
            for x0 in columns:
                for y in range(tile):
                    for x in range(tile):
                        r = table[images[k, 0, y0 + y, x0 + x]]
                        g = table[images[k, 1, y0 + y, x0 + x]]
                        b = table[images[k, 2, y0 + y, x0 + x]]
                        m = (r + g + b) / np.float32(3)
                        grey[y, x] = m
                        if m > TISSUE_OD:
                            scale = np.float32(1) / (r + g + b)
                            red, blue = r * scale, b * scale
                            sums[k, 0] += 1
                            sums[k, 1] += m
                            sums[k, 2] += m * m
                            sums[k, 3] += red
                            sums[k, 4] += red * red
                            sums[k, 5] += blue
                            sums[k, 6] += blue * blue
                            sums[k, 7] += red * blue
                _haar(grey, tile, energy[k])
        energy[k] /= len(rows) * len(columns)


@numba.njit(cache=True, nogil=True)
def _haar(grey: NDArray[np.float32], edge: int, energy: NDArray[np.float64]) -> None:
    """Add the mean energy of the details of each level of a square to ``energy``; the square is overwritten."""
    for level in range(len(energy)):
        edge //= 2
        if edge < 1:
            return
        found = 0.0
        for y in range(edge):
            for x in range(edge):
                a, b = grey[2 * y, 2 * x], grey[2 * y, 2 * x + 1]
                c, d = grey[2 * y + 1, 2 * x], grey[2 * y + 1, 2 * x + 1]
                across, down, oblique = a + b - c - d, a - b + c - d, a - b - c + d
                found += across * across + down * down + oblique * oblique
                grey[y, x] = (a + b + c + d) / np.float32(4)  # read before: the place of a smaller square
        energy[level] += found / (edge * edge)
