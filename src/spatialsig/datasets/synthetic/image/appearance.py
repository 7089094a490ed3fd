"""Stain and scanner of one slide, and its folds, pen marks and blur (in um of the tissue), drawn at random.

Floor 8, above io, pl, pp, tl. Used by 4 modules of datasets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialsig._stains import STAINS
from spatialsig.datasets.synthetic.tissue.fields import Field, smooth_field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.coordinates import Frames
    from spatialsig.datasets.synthetic.tissue.grow import Tissue

_WHITE = np.array([242.0, 240.0, 243.0])
_REFERENCE_SD = 0.12  # the stain_sd at which the vectors turn by about 3 %
# columns of a stroke
X, Y, COS, SIN, LENGTH, HALF, CAP, BEND, WAVE, WAVELENGTH, PHASE = range(11)
_FOLD_HALF_UM = (9.0, 22.0)
_PEN_HALF_UM = (50.0, 110.0)
_INKS = np.array([[28.0, 44.0, 150.0], [18.0, 106.0, 72.0], [30.0, 30.0, 36.0]])  # blue, green, black
_DEFOCUS_LENGTH_UM = 90.0
DEFOCUS_LEVELS = 3  # blurs of about .9, 1.8 and 3.5 um
_DEFOCUS_GAIN = 6.0  # levels per standard deviation of the field
BLURRED = 0.6  # level from which a place counts as out of focus


@dataclass(frozen=True)
class Stain:
    """Numbers that turn stain amounts into colours."""

    # optical density per unit of haematoxylin and of eosin, (2, 3): unit vectors times the slide's strength
    vectors: NDArray[np.float32]
    white: NDArray[np.float32]  # colour of empty glass, (3,), 0-255
    noise: float = 2.0  # standard deviation of the sensor noise, grey levels
    blur_um: float = 0.38  # standard deviation of the optical blur


def draw_stain(rng: np.random.Generator, *, stain_sd: float) -> Stain:
    """Draw one slide's colours; ``stain_sd`` is the sd of the log strength of each stain."""
    vectors = np.array(STAINS) + rng.normal(0, 1, (2, 3)) * 0.03 * stain_sd / _REFERENCE_SD
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strength = np.exp(rng.normal(0, 1, 2) * stain_sd)
    white = _WHITE + rng.normal(0, 2, 3)
    return Stain(vectors=(vectors * strength[:, None]).astype(np.float32), white=white.astype(np.float32))


@dataclass(frozen=True)
class Artefacts:
    """Plan of one slide."""

    # one row per stroke: centre, direction, length, half width, length of the tapered end, and the bend and wave of its
    # middle line, (n, 11)
    folds: NDArray[np.float64]
    pens: NDArray[np.float64]
    inks: NDArray[np.float64]  # colour of each pen mark, (n_pens, 3), 0-255
    defocus: Field | None  # level of blur, or None

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return bool(len(self.folds) or len(self.pens) or self.defocus is not None)


def _folds(rng: np.random.Generator, n: int, frames: Frames) -> NDArray[np.float64]:
    """Long narrow strokes that run through the tissue and thin out at both ends."""
    size = frames.size_um
    strokes = np.zeros((n, 11))
    for stroke in strokes:
        angle = rng.uniform(0, np.pi)
        length = size * rng.uniform(0.45, 0.9)
        centre = frames.margin_um + size * rng.uniform(0.3, 0.7, 2)
        stroke[[X, Y, COS, SIN]] = *centre, np.cos(angle), np.sin(angle)
        stroke[[LENGTH, HALF, CAP]] = length, rng.uniform(*_FOLD_HALF_UM), length / 2
        stroke[[BEND, WAVE]] = length * rng.normal(0, 0.06), rng.uniform(2.0, 6.0)
        stroke[[WAVELENGTH, PHASE]] = rng.uniform(120.0, 260.0), rng.uniform(0, 2 * np.pi)
    return strokes


def _pens(rng: np.random.Generator, n: int, frames: Frames) -> NDArray[np.float64]:
    """Broad arcs as drawn around a region of interest, partly off the tissue."""
    size = frames.size_um
    strokes = np.zeros((n, 11))
    first = rng.uniform(0, 2 * np.pi)
    for number, stroke in enumerate(strokes):
        # on different sides, so that one mark does not cover the other
        angle = first + 2 * np.pi * number / n + rng.uniform(-0.25, 0.25)
        outwards = np.array([-np.sin(angle), np.cos(angle)])
        centre = frames.extent_um / 2 + outwards * size * rng.uniform(0.3, 0.48)
        length = size * rng.uniform(0.35, 0.7)
        half = min(rng.uniform(*_PEN_HALF_UM), 0.06 * size)
        stroke[[X, Y, COS, SIN]] = *centre, np.cos(angle), np.sin(angle)
        stroke[[LENGTH, HALF, CAP]] = length, half, half
        stroke[[BEND, WAVE]] = length * rng.uniform(0.05, 0.2), rng.uniform(3.0, 10.0)
        stroke[[WAVELENGTH, PHASE]] = rng.uniform(250.0, 500.0), rng.uniform(0, 2 * np.pi)
    return strokes


def _defocus(rng: np.random.Generator, frames: Frames, tissue: Tissue, share: float) -> Field:
    """Level of blur everywhere; a ``share`` of the tissue lies above :data:`BLURRED`."""
    field = smooth_field(rng, extent_um=frames.extent_um, length_um=_DEFOCUS_LENGTH_UM)
    at = np.arange(len(field.values)) * field.step_um
    points = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)
    inside = (tissue.outline.at(points) > 0).reshape(field.values.shape)
    level = np.quantile(field.values[inside], 1 - share)
    blur = (BLURRED + _DEFOCUS_GAIN * (field.values - level)).clip(0, DEFOCUS_LEVELS)
    return Field(blur.astype(np.float32), field.step_um)


def plan_artefacts(
    rng: np.random.Generator, frames: Frames, tissue: Tissue, *, n_folds: int, n_pen: int, defocus_share: float
) -> Artefacts:
    """Draw where the artefacts of one slide lie; each kind from its own stream, so that one does not move another."""
    fold_rng, pen_rng, defocus_rng = rng.spawn(3)
    pens = _pens(pen_rng, n_pen, frames)
    order = pen_rng.permutation(len(_INKS))
    return Artefacts(
        folds=_folds(fold_rng, n_folds, frames),
        pens=pens,
        inks=_INKS[order[np.arange(n_pen) % len(_INKS)]],
        defocus=_defocus(defocus_rng, frames, tissue, defocus_share) if defocus_share > 0 else None,
    )
