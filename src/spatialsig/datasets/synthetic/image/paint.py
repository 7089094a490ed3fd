"""Kernels that paint one tile of H&E: stain amounts of every pixel first, colours second (Beer and Lambert).

Floor 8, above io, pl, pp, tl. Used by 3 modules of datasets.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np

from spatialsig._settings import settings
from spatialsig.datasets.synthetic.image.noise import blend, corners, normal, sample, uniform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

Part = TypeVar("Part")
# columns of the cell array that the kernels read
X, Y, A, B, COS, SIN, AMP2, COS2, SIN2, AMP3, COS3, SIN3 = range(12)
REACH, WIDTH, DENSITY, TEXTURE, EOSIN, BASO, RIM, NUCLEOLUS, SPINDLE = range(12, 21)
N_COLUMNS = 21
_GRAIN_UM = 0.95  # lumps of chromatin
_GRAIN_SHIFT = 50.0
# no outline reaches further than this, in half axes
_NUCLEUS_REACH = 1.42
_NUCLEUS_REACH_SQUARED = np.float32(2.0)
FAR = np.float32(81.0)  # squared distance where no cell is near
_GRANULE_UM = 1.1  # grains of the cytoplasm
_CLOUD_UM = 3.2  # unevenness of matrix and cell borders


def paint_parts(paint: Callable[[Part], None], parts: Iterable[Part]) -> None:
    """Paint every part, several at a time; each must write to pixels of its own."""
    with ThreadPoolExecutor(settings.threads) as pool:
        for _ in pool.map(paint, parts):  # asking for each result raises what a thread raised
            pass


@numba.njit(cache=True, nogil=True, fastmath=True, inline="always")
def _step(x: Any) -> Any:
    """Smooth step from 0 to 1 around 0, cheap."""
    x = min(max(x, np.float32(-1.0)), np.float32(1.0)) * np.float32(0.5) + np.float32(0.5)
    return x * x * (np.float32(3.0) - np.float32(2.0) * x)


@numba.njit(cache=True, nogil=True)
def _chromatin(cell: NDArray[np.float32], seed: int) -> Any:
    """Lattice of the lumps of one nucleus, ``lattice[v, u]``, and the number of its first row and column."""
    u0 = int(np.floor(_GRAIN_SHIFT - _NUCLEUS_REACH * cell[A] / _GRAIN_UM))
    v0 = int(np.floor(_GRAIN_SHIFT - _NUCLEUS_REACH * cell[B] / _GRAIN_UM))
    n_u = int(2 * _NUCLEUS_REACH * cell[A] / _GRAIN_UM) + 4
    n_v = int(2 * _NUCLEUS_REACH * cell[B] / _GRAIN_UM) + 4
    lattice = np.empty((n_v, n_u), np.float32)
    for v in range(n_v):
        for u in range(n_u):
            lattice[v, u] = uniform(u0 + u, v0 + v, seed)
    return lattice, u0, v0


@numba.njit(cache=True, nogil=True, fastmath=True, inline="always")
def _nucleus_stain(
    cell: NDArray[np.float32], lattice: NDArray[np.float32], u0: int, v0: int, u: Any, v: Any, p: Any, q: Any
) -> Any:
    """Haematoxylin of one nucleus at ``(u, v)`` um along and across its long axis, ``(p, q)`` in half axes."""
    r = np.sqrt(p * p + q * q)
    c, s = (p / r, q / r) if r > 1e-6 else (np.float32(1.0), np.float32(0.0))
    cos2, sin2 = c * c - s * s, 2 * c * s
    cos3, sin3 = cos2 * c - sin2 * s, sin2 * c + cos2 * s
    border = 1 + cell[AMP2] * (cos2 * cell[COS2] - sin2 * cell[SIN2])
    border += cell[AMP3] * (cos3 * cell[COS3] - sin3 * cell[SIN3])
    t = r / border
    inside = _step((1 - t) * 4.0)
    if inside <= 0:
        return np.float32(0.0)
    x, y = u / _GRAIN_UM + _GRAIN_SHIFT, v / _GRAIN_UM + _GRAIN_SHIFT
    ix, iy = int(np.floor(x)), int(np.floor(y))
    k, m = ix - u0, iy - v0
    four = (lattice[m, k], lattice[m, k + 1], lattice[m + 1, k], lattice[m + 1, k + 1])
    grain = blend(x - ix, y - iy, four) - 0.5
    membrane = cell[RIM] * (np.exp(-(((t - 0.9) / 0.16) ** 2)) - 0.35)
    # two mirror-image spots leave the centre of mass where it was
    spot = np.exp(-((abs(p) - 0.32) ** 2 + q * q) / 0.035)
    return cell[DENSITY] * inside * (1 + 5.0 * cell[TEXTURE] * grain + membrane + cell[NUCLEOLUS] * spot)


@numba.njit(cache=True, nogil=True, fastmath=True)
def stamp_cells(
    haematoxylin: NDArray[np.float32], nearest: NDArray[np.float32], second: NDArray[np.float32],
    owner: NDArray[np.int32], row0: int, col0: int, members: NDArray[np.int64], cells: NDArray[np.float32],
    um_per_px: NDArray[np.float64], seed: int,
) -> None:  # fmt: skip
    """Draw nuclei, and note whose cytoplasm every pixel lies in and the squared distance to it and to the next one."""
    height, width = owner.shape
    one = np.float32(1.0)
    scale = np.sqrt(abs(um_per_px[0, 0] * um_per_px[1, 1] - um_per_px[0, 1] * um_per_px[1, 0]))
    m00, m01 = np.float32(um_per_px[0, 0]), np.float32(um_per_px[0, 1])
    m10, m11 = np.float32(um_per_px[1, 0]), np.float32(um_per_px[1, 1])
    for index in members:
        cell = cells[index]
        reach = int(np.ceil(max(1.3 * cell[REACH], 1.4 * cell[A], 1.4 * cell[B]) / scale)) + 1
        x, y = cell[X] - col0, cell[Y] - row0
        lattice, u0, v0 = _chromatin(cell, seed + index)
        per_a, per_b = one / cell[A], one / cell[B]
        per_reach, per_width = one / cell[REACH], one / cell[WIDTH]
        for row in range(max(int(y) - reach, 0), min(int(y) + reach + 1, height)):
            dy = np.float32(row + 0.5) - y
            for col in range(max(int(x) - reach, 0), min(int(x) + reach + 1, width)):
                dx = np.float32(col + 0.5) - x
                ux, uy = m00 * dx + m01 * dy, m10 * dx + m11 * dy
                u, v = ux * cell[COS] + uy * cell[SIN], uy * cell[COS] - ux * cell[SIN]
                du, dv = u * per_reach, v * per_width
                distance = du * du + dv * dv
                if distance < nearest[row, col]:
                    second[row, col] = nearest[row, col]
                    nearest[row, col] = distance
                    owner[row, col] = index
                elif distance < second[row, col]:
                    second[row, col] = distance
                p, q = u * per_a, v * per_b
                if p * p + q * q < _NUCLEUS_REACH_SQUARED:
                    stain = _nucleus_stain(cell, lattice, u0, v0, u, v, p, q)
                    if stain > haematoxylin[row, col]:
                        haematoxylin[row, col] = stain


@numba.njit(cache=True, nogil=True, fastmath=True)
def fill_tissue(
    haematoxylin: NDArray[np.float32], eosin: NDArray[np.float32], nearest: NDArray[np.float32],
    second: NDArray[np.float32], owner: NDArray[np.int32], row0: int, col0: int, cells: NDArray[np.float32],
    px_to_um: NDArray[np.float64], outline: NDArray[np.float32], outline_step: float, threads: NDArray[np.float32],
    threads_step: float, stroma: NDArray[np.float32], stroma_step: float, seed: int,
) -> bool:  # fmt: skip
    """Add cytoplasm, membranes and fibres, and cut everything at the edge of the tissue; False where all is glass."""
    has_tissue = False
    # lattice values last used: the next pixel mostly lies between the same four
    cloud_x, cloud_y, grain_x, grain_y = -(2**40), 0, -(2**40), 0
    nothing = np.float32(0.0)
    cloud_at, grain_at = (nothing, nothing, nothing, nothing), (nothing, nothing, nothing, nothing)
    for row in range(owner.shape[0]):
        for col in range(owner.shape[1]):
            x, y = col0 + col + 0.5, row0 + row + 0.5
            x_um = px_to_um[0, 0] * x + px_to_um[0, 1] * y + px_to_um[0, 2]
            y_um = px_to_um[1, 0] * x + px_to_um[1, 1] * y + px_to_um[1, 2]
            tissue = _step(np.float32(sample(outline, outline_step, x_um, y_um) * 0.7))
            if tissue <= 0:
                haematoxylin[row, col] = 0
                continue
            has_tissue = True
            thread = sample(threads, threads_step, x_um, y_um)
            collagen = sample(stroma, stroma_step, x_um, y_um)
            cx, cy = x_um / _CLOUD_UM, y_um / _CLOUD_UM
            ix, iy = int(np.floor(cx)), int(np.floor(cy))
            if ix != cloud_x or iy != cloud_y:
                cloud_x, cloud_y, cloud_at = ix, iy, corners(ix, iy, seed + 1)
            cloud = blend(cx - ix, cy - iy, cloud_at)
            pink = 0.06 + 0.10 * cloud + 0.08 * thread + 0.45 * collagen * thread
            blue = 0.02
            if owner[row, col] >= 0:
                cell = cells[owner[row, col]]
                # ragged, soft borders: cytoplasm ends where the neighbour begins or thins out into the matrix
                first = np.sqrt(nearest[row, col])
                inside = _step((1.12 - first * (0.80 + 0.40 * cloud)) * 3.2)
                gx, gy = x_um / _GRANULE_UM, y_um / _GRANULE_UM
                ix, iy = int(np.floor(gx)), int(np.floor(gy))
                if ix != grain_x or iy != grain_y:
                    grain_x, grain_y, grain_at = ix, iy, corners(ix, iy, seed)
                grain = blend(gx - ix, gy - iy, grain_at)
                if cell[SPINDLE] > 0:
                    body = cell[EOSIN] * (0.65 + 0.25 * grain + 0.45 * thread)
                else:
                    gap = (np.sqrt(second[row, col]) - first) / 0.09
                    body = cell[EOSIN] * (0.85 + 0.30 * grain) * (1 - 0.30 * np.exp(-gap * gap))
                pink = max(pink, inside * body)
                blue = max(blue, inside * cell[BASO] * (0.7 + 0.6 * grain))
            eosin[row, col] = tissue * pink
            haematoxylin[row, col] = tissue * max(haematoxylin[row, col], blue)
    return has_tissue


@numba.njit(cache=True, nogil=True, fastmath=True)
def blur(image: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
    """Convolve rows, then columns, with a symmetric kernel, in place; a border of its half width is left unblurred."""
    height, width = image.shape
    half = weights.size // 2
    line = np.empty(max(height, width), np.float32)
    for row in range(height):
        line[:width] = image[row]
        image[row, half : width - half] = 0
        for tap in range(weights.size):
            for col in range(half, width - half):
                image[row, col] += weights[tap] * line[col + tap - half]
    copy = image.copy()
    for row in range(half, height - half):
        image[row] = 0
        for tap in range(weights.size):
            for col in range(width):
                image[row, col] += weights[tap] * copy[row + tap - half, col]


@numba.njit(cache=True, nogil=True, fastmath=True)
def develop(
    out: NDArray[np.uint8], haematoxylin: NDArray[np.float32], eosin: NDArray[np.float32], border: int, row0: int,
    col0: int, vectors: NDArray[np.float32], white: NDArray[np.float32], noise: float, seed: int,
) -> None:  # fmt: skip
    """Turn stain amounts into RGB and add the sensor's noise; ``border`` px around ``out`` are dropped."""
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            h, e = haematoxylin[row + border, col + border], eosin[row + border, col + border]
            for channel in range(3):
                light = white[channel]
                if h > 0 or e > 0:
                    light *= np.exp(-h * vectors[0, channel] - e * vectors[1, channel])
                light += noise * normal(3 * (col0 + col) + channel, row0 + row, seed) + np.float32(0.5)
                out[row, col, channel] = np.uint8(min(max(light, np.float32(0.0)), np.float32(255.0)))
