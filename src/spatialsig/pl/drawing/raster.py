"""Very many patches as one small picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def raster(
    origins: NDArray[np.int64], values: NDArray[np.float64], *, size: int, stride: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One pixel per patch.

    Parameters
    ----------
    origins
        ``(n, 2)`` corners as y0, x0, level-0 px.
    values
        ``(n,)``.
    size, stride
        Edge of a patch and step of the grid, level-0 px. Overlapping patches show as their central ``stride`` px;
        patches with gaps between them as themselves would leave holes, so that a pixel is always one step wide.

    Returns
    -------
    ``(rows, cols)`` float64, NaN where no patch lies, and ``(3, 3)``: centres of its pixels (x, y, 1), counted from 0,
    to level-0 px.

    >>> picture, to_image = raster(np.array([[0, 0], [0, 10], [20, 0]]), np.array([1.0, 2, 3]), size=10, stride=10)
    >>> picture.tolist()
    [[1.0, 2.0], [nan, nan], [3.0, nan]]
    >>> (to_image @ [1, 0, 1])[:2].tolist()
    [15.0, 5.0]
    """
    first = origins.min(axis=0)
    cells = np.rint((origins - first) / stride).astype(np.int64)
    picture = np.full(tuple(cells.max(axis=0) + 1), np.nan)
    picture[tuple(cells.T)] = values
    y, x = first + size / 2
    to_image = np.array([[stride, 0.0, x], [0, stride, y], [0, 0, 1]])
    return picture, to_image
