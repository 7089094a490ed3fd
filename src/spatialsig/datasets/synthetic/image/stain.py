"""Stain and scanner of one slide drawn at random: optical-density vectors, strength, white point, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialsig._stains import STAINS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WHITE = np.array([242.0, 240.0, 243.0])
_REFERENCE_SD = 0.12  # the stain_sd at which the vectors turn by about 3 %


@dataclass(frozen=True)
class Stain:
    """Numbers that turn stain amounts into colours.

    Attributes
    ----------
    vectors
        Optical density per unit of haematoxylin and of eosin, ``(2, 3)``: unit vectors times the slide's strength.
    white
        Colour of empty glass, ``(3,)``, 0-255.
    noise
        Standard deviation of the sensor noise, grey levels.
    blur_um
        Standard deviation of the optical blur.
    """

    vectors: NDArray[np.float32]
    white: NDArray[np.float32]
    noise: float = 2.0
    blur_um: float = 0.38


def draw_stain(rng: np.random.Generator, *, stain_sd: float) -> Stain:
    """Draw one slide's colours; ``stain_sd`` is the sd of the log strength of each stain."""
    vectors = np.array(STAINS) + rng.normal(0, 1, (2, 3)) * 0.03 * stain_sd / _REFERENCE_SD
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strength = np.exp(rng.normal(0, 1, 2) * stain_sd)
    white = _WHITE + rng.normal(0, 2, 3)
    return Stain(vectors=(vectors * strength[:, None]).astype(np.float32), white=white.astype(np.float32))
