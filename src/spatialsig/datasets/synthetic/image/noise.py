"""Lattice noise from position and seed alone, so that tiles drawn in any order fit together, and the fibre texture made from it.

Floor 8, above io, pl, pp, tl. Used by 3 modules of datasets.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy import ndimage

from spatialsig._settings import settings
from spatialsig.datasets.synthetic.tissue.fields import Field, grid_points

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP_UM = 0.55
_BAND = 256
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
def corners(ix: int, iy: int, seed: int) -> Any:
    """The four lattice values that :func:`blend` mixes: top left and right, bottom left and right."""
    return uniform(ix, iy, seed), uniform(ix + 1, iy, seed), uniform(ix, iy + 1, seed), uniform(ix + 1, iy + 1, seed)


@numba.njit(cache=True, nogil=True, inline="always")
def blend(fx: float, fy: float, four: Any) -> Any:
    """Smooth mix of :func:`corners` at a place within their square."""
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    top = four[0] * (1 - fx) + four[1] * fx
    bottom = four[2] * (1 - fx) + four[3] * fx
    return top * (1 - fy) + bottom * fy


@numba.njit(cache=True, nogil=True, inline="always")
def lumps(x: float, y: float, seed: int) -> Any:
    """Smooth noise in [0, 1) with lumps one unit wide."""
    x0, y0 = np.floor(x), np.floor(y)
    return blend(x - x0, y - y0, corners(int(x0), int(y0), seed))


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
def _white(out: NDArray[np.float32], row0: int, seed: int) -> None:
    for iy in range(out.shape[0]):
        for ix in range(out.shape[1]):
            out[iy, ix] = normal(ix, row0 + iy, seed)


@numba.njit(cache=True, nogil=True)
def _smear(
    out: NDArray[np.float32], row0: int, white: NDArray[np.float32], cos2: NDArray[np.float32],
    sin2: NDArray[np.float32], field_step_um: float, step_um: float, reach: int,
) -> None:  # fmt: skip
    """Sum white noise along the local orientation (a line integral): rows ``row0 ...`` of the threads."""
    size = white.shape[0]
    for row in range(out.shape[0]):
        iy = row0 + row
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
            out[row, ix] = total


def fibre_texture(fibres: tuple[Field, Field], *, extent_um: float, seed: int) -> Field:
    """Threads along the orientation field, between 0 (cleft) and 1 (bundle), on a grid of about half a um."""
    n = grid_points(extent_um, _STEP_UM)
    white, threads = np.empty((n, n), np.float32), np.empty((n, n), np.float32)
    cos2, sin2 = fibres
    starts = range(0, n, _BAND)
    with ThreadPoolExecutor(settings.threads) as pool:
        list(pool.map(lambda row0: _white(white[row0 : row0 + _BAND], row0, seed), starts))
        smear = partial(
            _smear, white=white, cos2=cos2.values, sin2=sin2.values, field_step_um=cos2.step_um, step_um=_STEP_UM,
            reach=_REACH,
        )  # fmt: skip
        list(pool.map(lambda row0: smear(threads[row0 : row0 + _BAND], row0), starts))
        threads = _bundle(threads, pool)
    threads *= 0.8 / threads.std()
    np.tanh(threads, out=threads)
    threads += 1
    threads /= 2
    return Field(threads, _STEP_UM)


def _bundle(threads: NDArray[np.float32], pool: ThreadPoolExecutor) -> NDArray[np.float32]:
    """Widen single threads to bundles of about two um."""
    thick: NDArray[np.float32]
    fine: NDArray[np.float32]
    thick, fine = pool.map(lambda sigma: ndimage.gaussian_filter(threads, sigma, truncate=3.0), (2.2, 0.8))
    thick *= np.float32(fine.std() / thick.std())
    thick += 0.7 * fine
    return thick
