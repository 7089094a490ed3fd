"""Colours of H&E: how strong its two stains are, and pixels painted anew as if other stains had been used.

Optical density (OD) is ``-ln((value + 1) / 256)`` per channel, R, G, B; amounts of stain add up in it.

Floor 1, above the ground floor. Used by 7 modules of data, pp, stats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TISSUE_OD = 0.15  # mean over the channels above which a pixel is not glass
STRENGTH_PERCENTILE = 99.0  # amount of a stain that says how strong the slide was stained
_STEPS, _DARKEST = 1024, 6  # steps per unit of OD: rounding moves a grey value by an eighth of a step at most
_OD = (-np.log((np.arange(256) + 1) / 256)).astype(np.float32)
_GREY = np.clip(np.rint(256 * np.exp(-np.arange(_STEPS * _DARKEST) / _STEPS) - 1), 0, 255).astype(np.uint8)


def optical_density(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Optical density of pixels of any shape, float32."""
    density: NDArray[np.float32] = _OD[pixels]
    return density


def stain_strength(od: NDArray[Any], vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Amounts ``(2,)`` of haematoxylin and eosin that all but a hundredth of the pixels stay below.

    Parameters
    ----------
    od
        Pixels of tissue, ``(n, 3)``.
    vectors
        Unit OD of haematoxylin, of eosin, and of what is neither, ``(3, 3)``, a row each.
    """
    amounts = od @ np.linalg.inv(vectors)
    strength: NDArray[np.float64] = np.percentile(amounts[:, :2], STRENGTH_PERCENTILE, axis=0)
    return strength


def recolouring(
    vectors: NDArray[Any], strength: NDArray[Any], to_vectors: NDArray[Any], to_strength: NDArray[Any]
) -> NDArray[np.float64]:
    """Matrix ``(3, 3)`` that, multiplied to rows of OD, gives each stain another colour and strength.

    Parameters
    ----------
    vectors, to_vectors
        Unit OD of haematoxylin, eosin and the rest, ``(3, 3)``, as they are and as wanted; the rest keeps its amount.
    strength, to_strength
        Amounts of haematoxylin and eosin, ``(2,)``, as they are and as wanted.
    """
    scale = np.append(np.asarray(to_strength) / np.asarray(strength), 1.0)
    matrix: NDArray[np.float64] = np.linalg.inv(vectors) @ (scale[:, None] * to_vectors)
    return matrix


def recolour(image: NDArray[np.uint8], matrix: NDArray[Any]) -> None:
    """Multiply the OD of an image ``(3, h, w)`` by a matrix of :func:`recolouring`, in place."""
    _recolour(image, np.asarray(matrix, np.float32), _OD, _GREY)


@numba.njit(cache=True, nogil=True)
def _recolour(
    image: NDArray[np.uint8], matrix: NDArray[np.float32], density: NDArray[np.float32], grey: NDArray[np.uint8]
) -> None:
    darkest = len(grey) - 1
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            red = density[image[0, row, column]]
            green = density[image[1, row, column]]
            blue = density[image[2, row, column]]
            for channel in range(3):
                found = red * matrix[0, channel] + green * matrix[1, channel] + blue * matrix[2, channel]
                step = int(found * _STEPS + np.float32(0.5))
                image[channel, row, column] = grey[min(max(step, 0), darkest)]
