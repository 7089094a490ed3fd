"""Paint one tile of H&E: stain amounts of every pixel first, colours second (Beer and Lambert)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from spatialsig.datasets._noise import lumps, normal, sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

# columns of the cell array that the kernels read
X, Y, A, B, COS, SIN, AMP2, COS2, SIN2, AMP3, COS3, SIN3 = range(12)
REACH, WIDTH, DENSITY, TEXTURE, EOSIN, BASO, RIM, NUCLEOLUS, SPINDLE = range(12, 21)
N_COLUMNS = 21

_GRAIN_UM = 0.95  # lumps of chromatin
_GRANULE_UM = 1.1  # grains of the cytoplasm
_CLOUD_UM = 3.2  # unevenness of matrix and cell borders


@numba.njit(cache=True, nogil=True, fastmath=True, inline="always")
def _step(x: Any) -> Any:
    """Smooth step from 0 to 1 around 0, cheap."""
    x = min(max(x, np.float32(-1.0)), np.float32(1.0)) * np.float32(0.5) + np.float32(0.5)
    return x * x * (np.float32(3.0) - np.float32(2.0) * x)


@numba.njit(cache=True, nogil=True, fastmath=True)
def nucleus_stain(cell: NDArray[np.float32], u: Any, v: Any, seed: int) -> Any:
    """Haematoxylin of one nucleus at ``(u, v)`` um along and across its long axis."""
    p, q = u / cell[A], v / cell[B]
    r2 = p * p + q * q
    if r2 > 2.0:
        return np.float32(0.0)
    r = np.sqrt(r2)
    c, s = (p / r, q / r) if r > 1e-6 else (np.float32(1.0), np.float32(0.0))
    cos2, sin2 = c * c - s * s, 2 * c * s
    cos3, sin3 = cos2 * c - sin2 * s, sin2 * c + cos2 * s
    border = 1 + cell[AMP2] * (cos2 * cell[COS2] - sin2 * cell[SIN2])
    border += cell[AMP3] * (cos3 * cell[COS3] - sin3 * cell[SIN3])
    t = r / border
    inside = _step((1 - t) * 4.0)
    if inside <= 0:
        return np.float32(0.0)
    grain = lumps(u / _GRAIN_UM + 50, v / _GRAIN_UM + 50, seed) - 0.5
    membrane = cell[RIM] * (np.exp(-(((t - 0.9) / 0.16) ** 2)) - 0.35)
    # two mirror-image spots leave the centre of mass where it was
    spot = np.exp(-((abs(p) - 0.32) ** 2 + q * q) / 0.035)
    return cell[DENSITY] * inside * (1 + 5.0 * cell[TEXTURE] * grain + membrane + cell[NUCLEOLUS] * spot)


@numba.njit(cache=True, nogil=True, fastmath=True)
def stamp_cells(
    haematoxylin: NDArray[np.float32],
    nearest: NDArray[np.float32],
    second: NDArray[np.float32],
    owner: NDArray[np.int32],
    row0: int,
    col0: int,
    members: NDArray[np.int64],
    cells: NDArray[np.float32],
    um_per_px: NDArray[np.float64],
    seed: int,
) -> None:
    """Draw nuclei, and note for every pixel whose cytoplasm it lies in and how near the next one is."""
    height, width = owner.shape
    scale = np.sqrt(abs(um_per_px[0, 0] * um_per_px[1, 1] - um_per_px[0, 1] * um_per_px[1, 0]))
    m00, m01 = np.float32(um_per_px[0, 0]), np.float32(um_per_px[0, 1])
    m10, m11 = np.float32(um_per_px[1, 0]), np.float32(um_per_px[1, 1])
    for index in members:
        cell = cells[index]
        reach = int(np.ceil(max(1.3 * cell[REACH], 1.4 * cell[A], 1.4 * cell[B]) / scale)) + 1
        x, y = cell[X] - col0, cell[Y] - row0
        for row in range(max(int(y) - reach, 0), min(int(y) + reach + 1, height)):
            dy = np.float32(row + 0.5) - y
            for col in range(max(int(x) - reach, 0), min(int(x) + reach + 1, width)):
                dx = np.float32(col + 0.5) - x
                ux, uy = m00 * dx + m01 * dy, m10 * dx + m11 * dy
                u, v = ux * cell[COS] + uy * cell[SIN], uy * cell[COS] - ux * cell[SIN]
                du, dv = u / cell[REACH], v / cell[WIDTH]
                distance = np.sqrt(du * du + dv * dv)
                if distance < nearest[row, col]:
                    second[row, col] = nearest[row, col]
                    nearest[row, col] = distance
                    owner[row, col] = index
                elif distance < second[row, col]:
                    second[row, col] = distance
                stain = nucleus_stain(cell, u, v, seed + index)
                if stain > haematoxylin[row, col]:
                    haematoxylin[row, col] = stain


@numba.njit(cache=True, nogil=True, fastmath=True)
def fill_tissue(
    haematoxylin: NDArray[np.float32],
    eosin: NDArray[np.float32],
    nearest: NDArray[np.float32],
    second: NDArray[np.float32],
    owner: NDArray[np.int32],
    row0: int,
    col0: int,
    cells: NDArray[np.float32],
    px_to_um: NDArray[np.float64],
    outline: NDArray[np.float32],
    outline_step: float,
    threads: NDArray[np.float32],
    threads_step: float,
    stroma: NDArray[np.float32],
    stroma_step: float,
    seed: int,
) -> None:
    """Add cytoplasm, membranes and fibres, and cut everything at the edge of the tissue."""
    for row in range(owner.shape[0]):
        for col in range(owner.shape[1]):
            x, y = col0 + col + 0.5, row0 + row + 0.5
            x_um = px_to_um[0, 0] * x + px_to_um[0, 1] * y + px_to_um[0, 2]
            y_um = px_to_um[1, 0] * x + px_to_um[1, 1] * y + px_to_um[1, 2]
            tissue = _step(np.float32(sample(outline, outline_step, x_um, y_um) * 0.7))
            if tissue <= 0:
                haematoxylin[row, col] = 0
                continue
            thread = sample(threads, threads_step, x_um, y_um)
            collagen = sample(stroma, stroma_step, x_um, y_um)
            cloud = lumps(x_um / _CLOUD_UM, y_um / _CLOUD_UM, seed + 1)
            pink = 0.06 + 0.10 * cloud + 0.08 * thread + 0.45 * collagen * thread
            blue = 0.02
            if owner[row, col] >= 0:
                cell = cells[owner[row, col]]
                # ragged, soft borders: cytoplasm ends where the neighbour begins or thins out into the matrix
                inside = _step((1.12 - nearest[row, col] * (0.80 + 0.40 * cloud)) * 3.2)
                grain = lumps(x_um / _GRANULE_UM, y_um / _GRANULE_UM, seed)
                if cell[SPINDLE] > 0:
                    body = cell[EOSIN] * (0.65 + 0.25 * grain + 0.45 * thread)
                else:
                    gap = (second[row, col] - nearest[row, col]) / 0.09
                    body = cell[EOSIN] * (0.85 + 0.30 * grain) * (1 - 0.30 * np.exp(-gap * gap))
                pink = max(pink, inside * body)
                blue = max(blue, inside * cell[BASO] * (0.7 + 0.6 * grain))
            eosin[row, col] = tissue * pink
            haematoxylin[row, col] = tissue * max(haematoxylin[row, col], blue)


@numba.njit(cache=True, nogil=True, fastmath=True)
def blur(image: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
    """Convolve rows, then columns, with a symmetric kernel, in place; a border of its half width is left unblurred."""
    height, width = image.shape
    half = weights.size // 2
    line = np.empty(max(height, width), np.float32)
    for row in range(height):
        line[:width] = image[row]
        for col in range(half, width - half):
            total = np.float32(0.0)
            for tap in range(weights.size):
                total += weights[tap] * line[col + tap - half]
            image[row, col] = total
    copy = image.copy()
    for row in range(half, height - half):
        image[row] = 0
        for tap in range(weights.size):
            for col in range(width):
                image[row, col] += weights[tap] * copy[row + tap - half, col]


@numba.njit(cache=True, nogil=True, fastmath=True)
def develop(
    out: NDArray[np.uint8],
    haematoxylin: NDArray[np.float32],
    eosin: NDArray[np.float32],
    border: int,
    row0: int,
    col0: int,
    vectors: NDArray[np.float32],
    white: NDArray[np.float32],
    noise: float,
    seed: int,
) -> None:
    """Turn stain amounts into RGB and add the sensor's noise; ``border`` px around ``out`` are dropped."""
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            h, e = haematoxylin[row + border, col + border], eosin[row + border, col + border]
            for channel in range(3):
                light = white[channel] * np.exp(-h * vectors[0, channel] - e * vectors[1, channel])
                light += noise * normal(3 * (col0 + col) + channel, row0 + row, seed) + np.float32(0.5)
                out[row, col, channel] = np.uint8(min(max(light, np.float32(0.0)), np.float32(255.0)))
