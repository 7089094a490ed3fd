"""Area resampling at exact, possibly fractional, positions: two small matrices per window."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SNAP = 1e-6  # px; closer to a pixel edge than this counts as on it


@lru_cache(maxsize=512)
def area_weights(start: float, size: float, out_px: int, n_in: int) -> NDArray[np.float32]:
    """Weights ``(out_px, n_in)`` that average ``[start, start + size)`` of ``n_in`` pixels into ``out_px`` equal cells.

    Pixel ``i`` covers ``[i, i + 1)``. Inside a pixel the image is taken as a straight line through the pixel's mean
    with the slope of its neighbours, so that whole pixels are kept or averaged exactly, and a linear ramp stays exact at
    any fractional position.

    Parameters
    ----------
    start, size
        The window, in input pixels; must overlap the input.
    out_px, n_in
        Output and input pixels along the axis.
    """
    edges = start + size * np.arange(out_px + 1) / out_px
    near = np.round(edges)
    edges = np.clip(np.where(np.abs(edges - near) < _SNAP, near, edges), 0, n_in)
    pixels = np.arange(n_in)
    inside = np.clip(edges[:, None] - pixels, 0.0, 1.0)  # (out_px + 1, n_in): how much of a pixel lies before an edge
    covered = np.diff(inside, axis=0)
    tilt = np.diff(inside**2 - inside, axis=0) / 2
    weights = covered + tilt @ _slopes(n_in)
    total = covered.sum(axis=1, keepdims=True)
    result: NDArray[np.float32] = (weights / np.maximum(total, _SNAP)).astype(np.float32)
    return result


def _slopes(n: int) -> NDArray[np.float64]:
    """Matrix ``(n, n)`` from pixel values to slopes: central differences, one-sided at the ends."""
    slope = np.zeros((n, n))
    if n > 1:
        inner = np.arange(1, n - 1)
        slope[inner, inner + 1], slope[inner, inner - 1] = 0.5, -0.5
        slope[0, :2] = slope[-1, -2:] = (-1.0, 1.0)
    return slope


def resample(
    windows: NDArray[np.uint8], vertical: NDArray[np.float32], horizontal: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Apply ``(out_h, h)`` and ``(out_w, w)`` weights to windows ``(..., h, w)``; rounded to the nearest uint8."""
    smooth = vertical @ windows.astype(np.float32) @ horizontal.T
    pixels: NDArray[np.uint8] = np.clip(np.rint(smooth), 0, 255).astype(np.uint8)
    return pixels
