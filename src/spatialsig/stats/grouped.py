"""Statistics of the cells of each patch, from a sparse membership matrix; a cell may lie in several patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse


def group_sizes(membership: sparse.csr_matrix) -> NDArray[np.int64]:
    """Cells per patch, ``(n_patches,)``; ``membership`` is ``(n_cells, n_patches)`` of 0 and 1."""
    return np.bincount(membership.indices, minlength=membership.shape[1]).astype(np.int64)


def grouped_mean(values: NDArray[Any], membership: sparse.csr_matrix) -> NDArray[np.float64]:
    """Mean over the cells of each patch, ``(n_patches, d)``; NaN for a patch without cells."""
    total = membership.T.astype(np.float64) @ np.asarray(values, np.float64)
    return _divide(total, group_sizes(membership))


def grouped_sem(values: NDArray[Any], membership: sparse.csr_matrix) -> NDArray[np.float64]:
    """Standard error of the mean of each patch, ``(n_patches, d)``; NaN below two cells."""
    values = np.asarray(values, np.float64)
    mean = grouped_mean(values, membership)
    # deviations from the patch's own mean, so that large offsets cost no digits
    cells, patches = membership.nonzero()
    squares = np.zeros_like(mean)
    np.add.at(squares, patches, (values[cells] - mean[patches]) ** 2)
    n = group_sizes(membership)[:, None].astype(np.float64)
    variance = np.divide(squares, n - 1, out=np.full_like(squares, np.nan), where=n > 1)
    return np.sqrt(np.divide(variance, n, out=np.full_like(variance, np.nan), where=n > 1))


def grouped_median(values: NDArray[Any], membership: sparse.csr_matrix) -> NDArray[np.float64]:
    """Median over the cells of each patch, ignoring NaN, ``(n_patches, d)``; NaN for a patch without values."""
    values = np.asarray(values, np.float64)
    by_patch = membership.tocsc()
    out = np.full((by_patch.shape[1], values.shape[1]), np.nan)
    for patch in range(by_patch.shape[1]):
        rows = by_patch.indices[by_patch.indptr[patch] : by_patch.indptr[patch + 1]]
        block = values[rows]
        seen = ~np.isnan(block).all(axis=0)
        if len(rows) and seen.any():
            out[patch, seen] = np.nanmedian(block[:, seen], axis=0)
    return out


def _divide(total: NDArray[np.float64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    size = n[:, None].astype(np.float64)
    return np.divide(total, size, out=np.full_like(total, np.nan), where=size > 0)
