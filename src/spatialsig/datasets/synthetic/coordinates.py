"""Sizes of a slide's tissue, morphology image and H&E, and the affines between them.

Floor 8, above io, pl, pp, tl. Used by 5 modules of datasets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Frames:
    """Sizes and affines of one slide; all matrices act on ``(x, y, 1)``."""

    size_um: float  # side of the square that holds the tissue, um
    margin_um: float  # empty border of the morphology image around that square, um
    # size of a morphology pixel and of an H&E pixel, um
    pixel_size_um: float
    he_um_per_px: float
    # (height, width) in the pixels of each image
    morphology_shape: tuple[int, int]
    he_shape: tuple[int, int]
    he_to_um: NDArray[np.float64]  # true affine from H&E px to um, (3, 3)
    # what the alignment file says, H&E px to morphology px, (3, 3): the truth plus the registration error
    alignment: NDArray[np.float64]

    @property
    def um_to_he(self) -> NDArray[np.float64]:
        """True affine from um to H&E px, ``(3, 3)``."""
        return np.linalg.inv(self.he_to_um).astype(np.float64)

    @property
    def extent_um(self) -> float:
        """Side of the square frame that holds tissue and margin, um."""
        return self.size_um + 2 * self.margin_um


def usual_orientation(index: int, rng: np.random.Generator) -> tuple[float, bool]:
    """Rotation in degrees and mirroring of slide ``index``: how slides come to lie on a scanner, a few degrees off."""
    tilt = float(rng.uniform(1.0, 4.0) * rng.choice([-1.0, 1.0]))
    turns: tuple[tuple[float, bool], ...] = ((90.0, False), (0.0, True), (-90.0, False), (180.0, False))
    base, mirrored = turns[index % len(turns)]
    return base + tilt, mirrored


def make_frames(
    rng: np.random.Generator, *, size_um: float, pixel_size_um: float, he_um_per_px: float, rotation_deg: float,
    mirrored: bool, registration_error_um: float,
) -> Frames:  # fmt: skip
    """Place a square of tissue in both images.

    The H&E canvas is the bounding box of the turned square plus a margin; the tissue lies a little off its centre,
    so that no flip or turn of the canvas maps the tissue onto itself.
    """
    margin_um = 30.0
    angle = math.radians(rotation_deg)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    linear = turn @ np.diag([-1.0 if mirrored else 1.0, 1.0])
    he_margin_um = float(np.clip(0.05 * size_um, 30.0, 150.0))
    side_um = size_um * (abs(math.cos(angle)) + abs(math.sin(angle))) + 2 * he_margin_um
    n_px = math.ceil(side_um / he_um_per_px)
    centre_px = n_px / 2 + rng.uniform(0.2, 0.5, 2) * rng.choice([-1.0, 1.0], 2) * he_margin_um / he_um_per_px

    he_to_um = np.eye(3)
    he_to_um[:2, :2] = he_um_per_px * linear
    he_to_um[:2, 2] = margin_um + size_um / 2 - he_to_um[:2, :2] @ centre_px
    direction = rng.uniform(0, 2 * math.pi)
    believed = he_to_um.copy()
    believed[:2, 2] += registration_error_um * np.array([math.cos(direction), math.sin(direction)])
    alignment = np.diag([1 / pixel_size_um, 1 / pixel_size_um, 1.0]) @ believed
    side_px = math.ceil((size_um + 2 * margin_um) / pixel_size_um)
    return Frames(
        size_um=size_um, margin_um=margin_um, pixel_size_um=pixel_size_um, he_um_per_px=he_um_per_px,
        morphology_shape=(side_px, side_px), he_shape=(n_px, n_px), he_to_um=he_to_um, alignment=alignment,
    )  # fmt: skip
