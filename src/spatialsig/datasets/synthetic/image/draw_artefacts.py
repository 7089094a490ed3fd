"""Folds, places out of focus and pen marks drawn onto a finished H&E, in the order in which they come about.

Floor 8, above io, pl, pp, tl. Used by datasets/synthetic/image/render, datasets/synthetic/truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from spatialsig.datasets.synthetic.image.appearance import (
    BEND,
    CAP,
    COS,
    DEFOCUS_LEVELS,
    HALF,
    LENGTH,
    PHASE,
    SIN,
    WAVE,
    WAVELENGTH,
    Artefacts,
    X,
    Y,
)
from spatialsig.datasets.synthetic.image.noise import lumps, normal, sample
from spatialsig.datasets.synthetic.image.paint import blur, paint_parts
from spatialsig.datasets.synthetic.image.tiff import halve

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.coordinates import Frames
    from spatialsig.datasets.synthetic.image.appearance import Stain

_BAND_PX = 256
_EDGE_UM = 1.6  # dark lines along a fold
_BLUNT_UM = 0.6  # over which the edge of a fold comes up
_SOFT_UM = 9.0  # unsharp border of a pen mark: the ink lies above the plane of focus
_WEIGHTS = np.array([0.07, 0.12, 0.19, 0.24, 0.19, 0.12, 0.07], dtype=np.float32)


@numba.njit(cache=True, nogil=True)
def stroke_place(stroke: NDArray[np.float64], x_um: float, y_um: float) -> Any:
    """Place along a stroke, signed distance to its middle line, and its half width there (0 beyond its ends)."""
    dx, dy = x_um - stroke[X], y_um - stroke[Y]
    along = dx * stroke[COS] + dy * stroke[SIN]
    half_length = stroke[LENGTH] / 2
    if abs(along) >= half_length:
        return along, 1e9, 0.0
    middle = stroke[BEND] * (1 - (along / half_length) ** 2)
    middle += stroke[WAVE] * np.sin(2 * np.pi * along / stroke[WAVELENGTH] + stroke[PHASE])
    end = max(abs(along) - (half_length - stroke[CAP]), 0.0) / stroke[CAP]
    return along, dy * stroke[COS] - dx * stroke[SIN] - middle, stroke[HALF] * np.sqrt(1 - end * end)


@numba.njit(cache=True, nogil=True)
def _to_um(px_to_um: NDArray[np.float64], row: int, col: int) -> Any:
    x, y = col + 0.5, row + 0.5
    return (
        px_to_um[0, 0] * x + px_to_um[0, 1] * y + px_to_um[0, 2],
        px_to_um[1, 0] * x + px_to_um[1, 1] * y + px_to_um[1, 2],
    )


@numba.njit(cache=True, nogil=True)
def _flap(image: NDArray[np.uint8], row: float, col: float, channel: int) -> float:
    """Light through the layer above, which is a little out of focus."""
    total, count = 0.0, 0
    for down in range(-2, 3):
        for right in range(-2, 3):
            i, j = int(row) + down, int(col) + right
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                total += image[i, j, channel]
                count += 1
    return total / count if count else 255.0


@numba.njit(cache=True, nogil=True)
def _fold_rows(
    out: NDArray[np.uint8], image: NDArray[np.uint8], row0: int, stroke: NDArray[np.float64],
    px_to_um: NDArray[np.float64], um_to_px: NDArray[np.float64], white: NDArray[np.float32],
) -> None:  # fmt: skip
    """Multiply the light of a strip by that of the tissue folded over it: optical densities add up."""
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            x_um, y_um = _to_um(px_to_um, row0 + row, col)
            _, across, half = stroke_place(stroke, x_um, y_um)
            if abs(across) >= half:
                continue
            rim = (half - abs(across)) / _EDGE_UM
            edge = np.exp(-rim * rim) * min(half / 6.0, 1.0)
            cover = min((half - abs(across)) / _BLUNT_UM, 1.0)
            # the flap shows what lies beyond the edge, turned over
            shift = 2 * (half - across)
            qx, qy = x_um - shift * stroke[SIN], y_um + shift * stroke[COS]
            flap_col = um_to_px[0, 0] * qx + um_to_px[0, 1] * qy + um_to_px[0, 2]
            flap_row = um_to_px[1, 0] * qx + um_to_px[1, 1] * qy + um_to_px[1, 2]
            for channel in range(3):
                here = (image[row0 + row, col, channel] + 1.0) / (white[channel] + 1.0)
                flap = (_flap(image, flap_row, flap_col, channel) + 1.0) / (white[channel] + 1.0)
                # a third layer joins the two at either edge
                light = min(here, 1.0) * min(flap, 1.0) ** (cover * (1.15 + 0.9 * edge))
                out[row, col, channel] = np.uint8(min(light * white[channel] + 0.5, 255.0))


@numba.njit(cache=True, nogil=True)
def _blur_rows(
    out: NDArray[np.uint8], row0: int, first: NDArray[np.uint8], second: NDArray[np.uint8], third: NDArray[np.uint8],
    levels: NDArray[np.float32], step_um: float, px_to_um: NDArray[np.float64], noise: float, seed: int,
) -> None:  # fmt: skip
    """Replace pixels by blurred ones, mixed between the two nearest strengths; the sensor's noise stays."""
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            x_um, y_um = _to_um(px_to_um, row0 + row, col)
            level = sample(levels, step_um, x_um, y_um)
            if level <= 0:
                continue
            for channel in range(3):
                stack = (
                    np.float64(out[row, col, channel]),
                    np.float64(sample(first[..., channel], 2.0, col - 0.5, row0 + row - 0.5)),
                    np.float64(sample(second[..., channel], 4.0, col - 1.5, row0 + row - 1.5)),
                    np.float64(sample(third[..., channel], 8.0, col - 3.5, row0 + row - 3.5)),
                )
                low = min(int(level), 2)
                mix = level - low
                light = stack[low] * (1 - mix) + stack[low + 1] * mix
                grain = noise * min(level, 1.0) * normal(3 * col + channel, row0 + row, seed)
                out[row, col, channel] = np.uint8(min(max(light + grain + 0.5, 0.0), 255.0))


@numba.njit(cache=True, nogil=True)
def pen_cover(across: float, half: float) -> float:
    """Share of the light that a pen mark takes, 0 outside to 1 in its middle; 0.5 at the half width."""
    x = min(max((half - abs(across)) / (2 * _SOFT_UM) + 0.5, 0.0), 1.0)
    return x * x * (3 - 2 * x)


@numba.njit(cache=True, nogil=True)
def _pen_rows(
    out: NDArray[np.uint8], row0: int, stroke: NDArray[np.float64], ink: NDArray[np.float64],
    px_to_um: NDArray[np.float64], noise: float, seed: int,
) -> None:  # fmt: skip
    """Cover a stroke with ink: streaks along it, darker borders, next to nothing of the tissue below."""
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            x_um, y_um = _to_um(px_to_um, row0 + row, col)
            along, across, half = stroke_place(stroke, x_um, y_um)
            if abs(across) > half + _SOFT_UM:
                continue
            cover = pen_cover(across, half)
            streak = lumps(across / 7.0 + 900.0, along / 160.0 + 900.0, seed)
            cloud = lumps(x_um / 45.0 + 900.0, y_um / 45.0 + 900.0, seed + 1)
            rim = (half - abs(across) - 12.0) / 10.0
            depth = 0.82 + 0.24 * streak + 0.12 * cloud + 0.15 * np.exp(-rim * rim)
            for channel in range(3):
                under = out[row, col, channel] / 255.0
                tone = (ink[channel] / 255.0) ** depth * (0.93 + 0.07 * under)
                light = 255.0 * (under * (1 - cover) + tone * cover)
                light += noise * cover * normal(3 * col + channel, row0 + row, seed)
                out[row, col, channel] = np.uint8(min(max(light + 0.5, 0.0), 255.0))


def _softened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A reduced image under a small Gaussian."""
    soft = np.empty_like(image)
    half = len(_WEIGHTS) // 2
    for channel in range(3):
        plane = np.pad(image[..., channel].astype(np.float32), half, mode="edge")
        blur(plane, _WEIGHTS)
        soft[..., channel] = (plane[half:-half, half:-half] + 0.5).astype(np.uint8)
    return soft


def _in_bands(image: NDArray[np.uint8], paint_band: Callable[[NDArray[np.uint8], int], None]) -> None:
    paint_parts(lambda row0: paint_band(image[row0 : row0 + _BAND_PX], row0), range(0, len(image), _BAND_PX))


def draw_artefacts(image: NDArray[np.uint8], artefacts: Artefacts, frames: Frames, stain: Stain, *, seed: int) -> None:
    """Draw the artefacts of one slide onto its H&E ``(height, width, 3)``, in place."""
    to_um = np.ascontiguousarray(frames.he_to_um)
    to_px = np.ascontiguousarray(frames.um_to_he)
    for fold in artefacts.folds:
        before = image.copy()
        _in_bands(
            image, lambda out, row0, stroke=fold, flat=before: _fold_rows(  # type: ignore[misc]
                out, flat, row0, stroke, to_um, to_px, stain.white)
        )  # fmt: skip
    if artefacts.defocus is not None:
        levels, step = artefacts.defocus.values, artefacts.defocus.step_um
        reduced = [halve(image)]
        while len(reduced) < DEFOCUS_LEVELS:
            reduced.append(halve(reduced[-1]))
        soft = [_softened(each) for each in reduced]
        _in_bands(
            image,
            lambda out, row0: _blur_rows(
                out, row0, soft[0], soft[1], soft[2], levels, step, to_um, stain.noise, seed + 11
            ),
        )
    for number, (pen, ink) in enumerate(zip(artefacts.pens, artefacts.inks, strict=True)):
        _in_bands(
            image, lambda out, row0, stroke=pen, colour=ink, salt=seed + 23 + number: _pen_rows(  # type: ignore[misc]
                out, row0, stroke, colour, to_um, stain.noise, salt)
        )  # fmt: skip
