"""A few numbers per H&E patch that need no learning: what colour and nuclear density alone can explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.color import hed_from_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUCLEUS = 0.08  # haematoxylin of stain_amounts above which a pixel counts as nucleus
N_COLOUR, N_DENSITY = 6, 2

_DARKEST = 1e-6  # grey value that stands for black, as in skimage
_LOGGED = (np.log(np.maximum(np.arange(256) / 255, _DARKEST)) / np.log(_DARKEST)).astype(np.float32)


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
    return np.stack([haematoxylin.mean(axis=1), (haematoxylin > NUCLEUS).mean(axis=1)], axis=1).astype(np.float32)
