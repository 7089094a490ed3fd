"""Noise that depends on a place and a seed only, so that tiles drawn in any order, by any thread, fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy import ndimage

from spatialsig.datasets._fields import Field, grid_points

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP_UM = 0.55
_REACH = 12  # taps on either side: fibres about 13 um long


@numba.njit(cache=True, nogil=True, inline="always")
def scramble(x: int, y: int, seed: int) -> Any:
    """64 well-mixed bits for a lattice place."""
    h = (
        np.uint64(x) * np.uint64(0x9E3779B97F4A7C15)
        ^ np.uint64(y) * np.uint64(0xC2B2AE3D27D4EB4F)
        ^ np.uint64(seed) * np.uint64(0x165667B19E3779F9)
    )
    h = (h ^ (h >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@numba.njit(cache=True, nogil=True, inline="always")
def uniform(x: int, y: int, seed: int) -> Any:
    """One number in [0, 1) for a lattice place."""
    return np.float32(scramble(x, y, seed) >> np.uint64(40)) * np.float32(2.0**-24)


@numba.njit(cache=True, nogil=True, inline="always")
def normal(x: int, y: int, seed: int) -> Any:
    """One nearly normal number for a lattice place: the sum of four uniforms, mean 0 and variance 1."""
    h = scramble(x, y, seed)
    mask = np.uint64(0xFFFF)
    total = (h & mask) + ((h >> np.uint64(16)) & mask) + ((h >> np.uint64(32)) & mask) + (h >> np.uint64(48))
    return (np.float32(total) * np.float32(1 / 65536) - np.float32(2.0)) * np.float32(1.7320508)


@numba.njit(cache=True, nogil=True, inline="always")
def lumps(x: float, y: float, seed: int) -> Any:
    """Smooth noise in [0, 1) with lumps one unit wide."""
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = x - x0, y - y0
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    ix, iy = int(x0), int(y0)
    top = uniform(ix, iy, seed) * (1 - fx) + uniform(ix + 1, iy, seed) * fx
    bottom = uniform(ix, iy + 1, seed) * (1 - fx) + uniform(ix + 1, iy + 1, seed) * fx
    return top * (1 - fy) + bottom * fy


@numba.njit(cache=True, nogil=True, inline="always")
def sample(values: NDArray[Any], step_um: float, x_um: float, y_um: float) -> Any:
    """Value of a grid at a point, linear between grid points, the border repeated outside."""
    height, width = values.shape
    x = min(max(x_um / step_um, 0.0), width - 1.001)
    y = min(max(y_um / step_um, 0.0), height - 1.001)
    ix, iy = int(x), int(y)
    fx, fy = np.float32(x - ix), np.float32(y - iy)
    one = np.float32(1.0)
    top = values[iy, ix] * (one - fx) + values[iy, ix + 1] * fx
    bottom = values[iy + 1, ix] * (one - fx) + values[iy + 1, ix + 1] * fx
    return top * (one - fy) + bottom * fy


@numba.njit(cache=True, nogil=True)
def _smear(
    out: NDArray[np.float32],
    cos2: NDArray[np.float32],
    sin2: NDArray[np.float32],
    field_step_um: float,
    step_um: float,
    reach: int,
    seed: int,
) -> None:
    """Average white noise along the local orientation (a line integral): threads of one grid step."""
    size = out.shape[0]
    white = np.empty((size, size), np.float32)
    for iy in range(size):
        for ix in range(size):
            white[iy, ix] = normal(ix, iy, seed)
    for iy in range(size):
        for ix in range(size):
            c2 = sample(cos2, field_step_um, ix * step_um, iy * step_um)
            s2 = sample(sin2, field_step_um, ix * step_um, iy * step_um)
            length = max(np.sqrt(c2 * c2 + s2 * s2), np.float32(1e-6))
            cos = np.sqrt(max(0.5 * (1 + c2 / length), 0.0))
            sin = np.sqrt(max(0.5 * (1 - c2 / length), 0.0))
            if s2 < 0:
                sin = -sin
            total = np.float32(0.0)
            for tap in range(-reach, reach + 1):
                jx = min(max(int(ix + tap * cos + 0.5), 0), size - 1)
                jy = min(max(int(iy + tap * sin + 0.5), 0), size - 1)
                total += white[jy, jx]
            out[iy, ix] = total


def fibre_texture(fibres: tuple[Field, Field], *, extent_um: float, seed: int) -> Field:
    """Threads along the orientation field, between 0 (cleft) and 1 (bundle), on a grid of about half a um."""
    n = grid_points(extent_um, _STEP_UM)
    threads = np.empty((n, n), np.float32)
    cos2, sin2 = fibres
    _smear(threads, cos2.values, sin2.values, cos2.step_um, _STEP_UM, _REACH, seed)
    threads = _bundle(threads)
    threads *= 0.8 / threads.std()
    np.tanh(threads, out=threads)
    threads += 1
    threads /= 2
    return Field(threads, _STEP_UM)


def _bundle(threads: NDArray[np.float32]) -> NDArray[np.float32]:
    """Widen single threads to bundles of about two um."""
    thick: NDArray[np.float32] = ndimage.gaussian_filter(threads, 2.2, truncate=3.0)
    fine: NDArray[np.float32] = ndimage.gaussian_filter(threads, 0.8, truncate=3.0)
    thick *= np.float32(fine.std() / thick.std())
    thick += 0.7 * fine
    return thick
