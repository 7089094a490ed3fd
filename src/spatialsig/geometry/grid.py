"""Square patches on a regular grid and the points inside them. Patches are half open: [x0, x0 + size).

Floor 1, above the ground floor. Used by 7 modules of evaluation, io, maps, pp, referee.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def patch_origins(height: int, width: int, *, patch_px: int, stride_px: int) -> Ints:
    """Top-left corners ``(y0, x0)`` of all whole patches in row-major order, ``(n_patches, 2)`` px."""
    y0 = np.arange(0, height - patch_px + 1, stride_px)
    x0 = np.arange(0, width - patch_px + 1, stride_px)
    return np.stack(np.meshgrid(y0, x0, indexing="ij"), axis=-1).reshape(-1, 2)


def shared_areas(centres: Floats, edge: float, others: Floats, other_edge: float) -> sparse.csr_matrix:
    """Area that each square shares with each of others, CSR ``(n, n_others)``; squares around centres ``(n, 2)`` of one edge."""
    reach = (edge + other_edge) / 2
    pairs = cKDTree(centres).query_ball_tree(cKDTree(others), reach, p=np.inf)
    square = np.repeat(np.arange(len(pairs)), [len(found) for found in pairs])
    other = np.concatenate([np.asarray(found, np.int64) for found in pairs]) if len(square) else np.empty(0, np.int64)
    shared = np.clip(reach - np.abs(centres[square] - others[other]), 0, min(edge, other_edge)).prod(axis=1)
    there = shared > 0
    return sparse.csr_matrix((shared[there], (square[there], other[there])), shape=(len(centres), len(others)))


def points_in_patches(xy: NDArray[Any], origins: Ints, *, size: int) -> sparse.csr_matrix:
    """Find the patches that hold each point.

    Parameters
    ----------
    xy
        Points ``(n_points, 2)`` as x, y in the pixels of the patches. A point that is not finite lies in no patch.
    origins
        Top-left corners ``(n_patches, 2)`` as y0, x0: any positions, a full grid or not.
    size
        Edge of every patch, px.

    Returns
    -------
    CSR ``(n_points, n_patches)`` of ones (uint8), column indices sorted within a row.

    Notes
    -----
    Patches are filed by the ``size``-wide bin of their corner. A patch that holds a point starts in the point's bin or
    in the one before it, in y and in x: at most four look-ups per point, whatever the stride. The bin before is looked
    at only when some patch of the grid starts far enough into its bin to reach the point; one look-up where patches
    start at multiples of their size.
    """
    n_points, n_patches = len(xy), len(origins)
    if n_points == 0 or n_patches == 0:
        return sparse.csr_matrix((n_points, n_patches), dtype=np.uint8)
    bins = origins // size  # (n_patches, 2) y, x
    low = bins.min(axis=0)
    n_rows, n_cols = bins.max(axis=0) - low + 1
    key = (bins[:, 0] - low[0]) * n_cols + (bins[:, 1] - low[1])
    order = np.argsort(key, kind="stable")
    start = np.searchsorted(key[order], np.arange(n_rows * n_cols + 1))
    reach = (origins - bins * size).max(axis=0)
    corners = origins[order].astype(np.float64)
    indptr, indices = _pairs(
        np.ascontiguousarray(xy, np.float64), corners, order, start, low, reach, n_rows, n_cols, float(size)
    )
    return sparse.csr_matrix((np.ones(len(indices), np.uint8), indices, indptr), shape=(n_points, n_patches))


@numba.njit(cache=True)
def _pairs(
    xy: Floats, corners: Floats, order: Ints, start: Ints, low: Ints, reach: Ints, n_rows: int, n_cols: int, size: float
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """CSR index arrays of the pairs (point, patch); ``corners`` and ``order`` are filed by bin."""
    n_points = len(xy)
    indptr = np.zeros(n_points + 1, np.int32)
    indices = np.empty(n_points, np.int32)  # enough for a grid without overlap
    n = 0
    for point in range(n_points):
        x, y = xy[point, 0], xy[point, 1]
        row, col = np.floor(y / size), np.floor(x / size)
        before_y, before_x = y - row * size < reach[0], x - col * size < reach[1]
        row, col = row - low[0], col - low[1]
        # also false for what is not finite
        if row >= 0 and row <= n_rows and col >= 0 and col <= n_cols:
            for bin_row in range(max(int(row) - before_y, 0), min(int(row) + 1, n_rows)):
                for bin_col in range(max(int(col) - before_x, 0), min(int(col) + 1, n_cols)):
                    key = bin_row * n_cols + bin_col
                    for k in range(start[key], start[key + 1]):
                        dy, dx = y - corners[k, 0], x - corners[k, 1]
                        if dy >= 0 and dy < size and dx >= 0 and dx < size:
                            if n == len(indices):
                                indices = np.concatenate((indices, np.empty_like(indices)))
                            indices[n] = order[k]
                            n += 1
            if n - indptr[point] > 1:
                indices[indptr[point] : n].sort()
        indptr[point + 1] = n
    return indptr, indices[:n].copy()


def smallest_step(origins: Ints, size: int) -> int:
    """Smallest step above a px between rows or columns of patches with corners ``(n, 2)``; ``size`` where there is one of each."""
    steps = np.concatenate([np.diff(np.unique(origins[:, axis])) for axis in (0, 1)])
    return int(steps[steps > 1].min(initial=size)) if len(steps) else size
