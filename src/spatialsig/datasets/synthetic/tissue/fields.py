"""Smooth random fields on a square for the regions, orientations and gaps of a tissue. Lengths in um.

Floor 8, above io, pl, pp, tl. Used by 5 modules of datasets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIELD_STEP_UM = 8.0


@dataclass(frozen=True)
class Field:
    """Values on a square grid that starts at (0, 0) um; ``values[row, column]`` sits at ``step_um * (column, row)``."""

    values: NDArray[np.float32]
    step_um: float

    def at(self, xy_um: NDArray[np.float64]) -> NDArray[np.float32]:
        """Values at points ``(n, 2)`` um, linear between grid points."""
        rows_columns = xy_um[:, ::-1].T / self.step_um
        sampled: NDArray[np.float32] = ndimage.map_coordinates(self.values, rows_columns, order=1, mode="nearest")
        return sampled


def grid_points(extent_um: float, step_um: float) -> int:
    """Grid points per axis that cover ``extent_um``."""
    return math.ceil(extent_um / step_um) + 1


def smooth_field(
    rng: np.random.Generator, *, extent_um: float, length_um: float, step_um: float = FIELD_STEP_UM
) -> Field:
    """White noise under a Gaussian of standard deviation ``length_um``, scaled to mean 0 and variance 1 on the square.

    The noise reaches three lengths beyond the square, so that its border is like its inside.
    """
    n = grid_points(extent_um, step_um)
    sigma = length_um / step_um
    pad = math.ceil(3 * sigma)
    noise = rng.standard_normal((n + 2 * pad, n + 2 * pad), dtype=np.float32)
    blurred = ndimage.gaussian_filter(noise, sigma, truncate=3.0)[pad : pad + n, pad : pad + n]
    return Field(((blurred - blurred.mean()) / blurred.std()).astype(np.float32), step_um)


def outline_distance(
    rng: np.random.Generator, *, extent_um: float, margin_um: float, gap_share: float, step_um: float = 4.0
) -> Field:
    """Signed distance to the edge of the tissue in um, above 0 inside: a square with a ragged edge and a few clefts.

    ``margin_um`` is the empty border around the square, ``gap_share`` the share of it that lumens, clefts and tears take.
    """
    n = grid_points(extent_um, step_um)
    at = np.arange(n, dtype=np.float32) * step_um
    inside = np.minimum(at - margin_um, extent_um - margin_um - at)
    square = np.minimum(inside[:, None], inside[None, :])
    rough = smooth_field(rng, extent_um=extent_um, length_um=40.0, step_um=step_um).values
    fine = smooth_field(rng, extent_um=extent_um, length_um=10.0, step_um=step_um).values
    distance = square - 6.0 - 4.0 * np.abs(rough) - 1.0 * fine
    if gap_share > 0:
        hollow = smooth_field(rng, extent_um=extent_um, length_um=35.0, step_um=step_um).values + 0.25 * fine
        level = float(np.quantile(hollow, 1 - gap_share))
        # one unit of this field is about 35 um, so the product is about a distance
        distance = np.minimum(distance, (level - hollow) * 25.0)
    return Field(distance.astype(np.float32), step_um)


def line_field(rng: np.random.Generator, *, extent_um: float) -> tuple[Field, Field]:
    """Orientation of the fibres as cos and sin of twice the angle: long sweeps with a little crimp."""
    swing = smooth_field(rng, extent_um=extent_um, length_um=120.0)
    crimp = smooth_field(rng, extent_um=extent_um, length_um=16.0)
    twice = 2.0 * (1.2 * swing.values + 0.25 * crimp.values)
    return Field(np.cos(twice), FIELD_STEP_UM), Field(np.sin(twice), FIELD_STEP_UM)
