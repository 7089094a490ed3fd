"""The next pyramid level of an image: means of 2 x 2 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of each 2 x 2 block of ``(c, y, x)``, rounded half up; an odd last row or column is left out.

    >>> halve(np.array([[[0, 1, 9], [2, 3, 9]]], np.uint8))
    array([[[2]]], dtype=uint8)
    """
    channels, height, width = pixels.shape
    out = np.empty((channels, height // 2, width // 2), np.uint8)
    _mean_2x2(pixels, out)
    return out


@numba.njit(cache=True, nogil=True)
def _mean_2x2(pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    channels, height, width = out.shape
    for c in range(channels):
        for y in range(height):
            upper, lower, mean = pixels[c, 2 * y], pixels[c, 2 * y + 1], out[c, y]
            for x in range(width):
                total = np.uint16(upper[2 * x]) + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1]
                mean[x] = (total + 2) >> 2
