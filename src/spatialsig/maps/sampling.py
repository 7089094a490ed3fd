"""Values of a raster at points.

Floor 8, above io, pl, pp, tl. Used by maps/cell_values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def sampled(values: Any, xy: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values ``(n, channels)`` of a raster ``(channels, h, w)`` at points ``(n, 2)``, x, y in its px, which begin at their corners.

    Linear between the centres of the four px around a point, of those that have a value; NaN where the px that holds the point
    has none, or there is no such px.
    """
    _, height, width = values.shape
    corner = np.floor(xy).astype(np.int64)
    inside = ((corner >= 0) & (corner < (width, height))).all(axis=1) & np.isfinite(xy).all(axis=1)
    out = np.full((len(xy), values.shape[0]), np.nan, np.float32)
    x, y = (xy[inside] - 0.5).T
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    near = [
        (
            (y0 + dy).clip(0, height - 1),
            (x0 + dx).clip(0, width - 1),
            np.abs(1 - dy - (y - y0)) * np.abs(1 - dx - (x - x0)),
        )
        for dy in (0, 1)
        for dx in (0, 1)
    ]
    own = corner[inside].T[::-1]
    for channel in range(values.shape[0]):  # one after another: a channel is all that is in memory
        plane = np.asarray(values[channel], np.float32)
        total, weight = np.zeros(len(x)), np.zeros(len(x))
        for row, column, share in near:
            found = plane[row, column]
            known = np.isfinite(found)
            total += np.where(known, found, 0) * share
            weight += known * share
        has = np.isfinite(plane[tuple(own)]) & (weight > 0)
        out[inside, channel] = np.where(has, total / np.where(has, weight, 1), np.nan)
    return out
