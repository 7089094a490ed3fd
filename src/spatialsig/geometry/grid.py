"""Square patches on a regular grid and the points inside them. Patches are half open: [x0, x0 + size)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray


def patch_origins(height: int, width: int, *, patch_px: int, stride_px: int) -> NDArray[np.int64]:
    """Top-left corners ``(y0, x0)`` of all whole patches in row-major order, ``(n_patches, 2)`` px."""
    y0 = np.arange(0, height - patch_px + 1, stride_px)
    x0 = np.arange(0, width - patch_px + 1, stride_px)
    return np.stack(np.meshgrid(y0, x0, indexing="ij"), axis=-1).reshape(-1, 2)


def points_in_patches(xy: NDArray[Any], origins: NDArray[np.int64], *, size: int) -> sparse.csr_matrix:
    """Which patches hold which points.

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
    in the one before it, in y and in x: four look-ups per point, whatever the stride.
    """
    n_points, n_patches = len(xy), len(origins)
    if n_points == 0 or n_patches == 0:
        return sparse.csr_matrix((n_points, n_patches), dtype=np.uint8)
    finite = np.isfinite(xy).all(axis=1)
    bins = origins // size  # (n_patches, 2) y, x
    low = bins.min(axis=0)
    n_rows, n_cols = bins.max(axis=0) - low + 1
    key = (bins[:, 0] - low[0]) * n_cols + (bins[:, 1] - low[1])
    order = np.argsort(key, kind="stable")
    start = np.searchsorted(key[order], np.arange(n_rows * n_cols + 1))

    index = np.flatnonzero(finite)
    points = np.asarray(xy, np.float64)[index]
    home = np.floor(points[:, ::-1] / size).astype(np.int64) - low  # (n, 2) y, x
    pairs = [
        _pairs_in_bin(index, points, home - step, (n_rows, n_cols), start, order, origins, size)
        for step in (np.array(s) for s in ((0, 0), (0, 1), (1, 0), (1, 1)))
    ]
    rows, cols = (np.concatenate(part) for part in zip(*pairs, strict=True))
    membership = sparse.csr_matrix((np.ones(len(rows), np.uint8), (rows, cols)), shape=(n_points, n_patches))
    membership.sort_indices()
    return membership


def _pairs_in_bin(
    index: NDArray[np.int64],
    points: NDArray[np.float64],
    bins: NDArray[np.int64],
    shape: tuple[int, int],
    start: NDArray[np.int64],
    order: NDArray[np.int64],
    origins: NDArray[np.int64],
    size: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (point, patch) for the patches filed in one bin per point."""
    inside = ((bins >= 0) & (bins < np.array(shape))).all(axis=1)
    which = np.flatnonzero(inside)
    key = bins[which, 0] * shape[1] + bins[which, 1]
    count = start[key + 1] - start[key]
    point = np.repeat(which, count)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    patch = order[np.repeat(start[key], count) + offset]
    shift = points[point] - origins[patch][:, ::-1]
    hit = ((shift >= 0) & (shift < size)).all(axis=1)
    return index[point[hit]], patch[hit]
