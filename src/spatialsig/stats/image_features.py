"""A few numbers per H&E patch that need no learning: what colour and nuclear density alone can explain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.color import rgb2hed

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUCLEUS = 0.08  # haematoxylin of skimage.color.rgb2hed above which a pixel counts as nucleus
N_COLOUR, N_DENSITY = 6, 2


def colour_statistics(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean and standard deviation of each channel, ``(n, 6)``, of RGB patches ``(n, 3, h, w)``."""
    pixels = images.reshape(len(images), 3, -1).astype(np.float32)
    return np.concatenate([pixels.mean(axis=-1), pixels.std(axis=-1)], axis=1)


def nuclear_density(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean haematoxylin and share of nuclear pixels, ``(n, 2)``, of RGB patches ``(n, 3, h, w)``."""
    haematoxylin = rgb2hed(images, channel_axis=1)[:, 0].reshape(len(images), -1)
    return np.stack([haematoxylin.mean(axis=1), (haematoxylin > NUCLEUS).mean(axis=1)], axis=1).astype(np.float32)
