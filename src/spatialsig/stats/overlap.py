"""Means over patches of a grid that overlap, in pure numpy.

Floor 1, above the ground floor. Used by whole_slides/results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import convolve1d

if TYPE_CHECKING:
    from numpy.typing import NDArray


def blended(values: NDArray[np.float32], cell: NDArray[np.int64], *, size: float, stride: float) -> NDArray[np.float32]:
    """Mean of all patches that lie over the middle of each, weighted by the area of it that they cover.

    Parameters
    ----------
    values
        Values of the patches, ``(n, k)``; NaN where a patch has none.
    cell
        Row and column of each patch on the grid, ``(n, 2)``, no two the same.
    size, stride
        Edge of a patch, and step of the grid, in one unit. The middle is a square of one step: the middles tile.

    Returns
    -------
    ``(n, k)``; the values themselves where patches do not overlap, NaN where no patch has a value.
    """
    if stride >= size:
        return values.copy()
    weights = covered(size=size, stride=stride)
    first = cell.min(axis=0)
    place = tuple((cell - first).T)
    shape = tuple((cell.max(axis=0) - first + 1).tolist())
    means = np.empty_like(values)
    for column in range(values.shape[1]):  # one after another: a raster of each is all that is in memory
        raster, known = np.zeros(shape), np.zeros(shape)
        finite = np.isfinite(values[:, column])
        raster[place] = np.where(finite, values[:, column], 0)
        known[place] = finite
        total, weight = (
            convolve1d(convolve1d(each, weights, axis=0, mode="constant"), weights, axis=1, mode="constant")
            for each in (raster, known)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            means[:, column] = np.where(weight > 1e-12, total / weight, np.nan)[place]
    return means


def covered(*, size: float, stride: float) -> NDArray[np.float64]:
    """Share of the middle step of a patch, along one axis, that each patch from ``-n`` to ``n`` steps away covers."""
    reach = int(np.ceil((size + stride) / 2 / stride)) - 1
    offset = np.arange(-reach, reach + 1) * stride
    shared = np.minimum(stride / 2, offset + size / 2) - np.maximum(-stride / 2, offset - size / 2)
    share: NDArray[np.float64] = np.clip(shared / stride, 0, 1)
    return share
