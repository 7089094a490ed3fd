"""Order statistics of the cells of each patch by quickselect, without sorting whole patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@numba.njit(cache=True)
def middle_means(values: NDArray[Any], cells: NDArray[Any], start: NDArray[Any], trim: float) -> NDArray[np.float64]:
    """Mean of the middle order statistics of each patch and column, NaN left out.

    Parameters
    ----------
    values
        ``(n_cells, d)``.
    cells, start
        Cells of patch ``p`` are ``cells[start[p] : start[p + 1]]``.
    trim
        Share of the values dropped at either end; 0.5 leaves the median.

    Returns
    -------
    ``(n_patches, d)``; NaN for a patch without values.
    """
    n_patches, d = len(start) - 1, values.shape[1]
    longest = 0
    for patch in range(n_patches):
        longest = max(longest, start[patch + 1] - start[patch])
    block = np.empty((d, longest), values.dtype)
    n = np.empty(d, np.int64)
    out = np.empty((n_patches, d))
    for patch in range(n_patches):
        n[:] = 0
        for cell in cells[start[patch] : start[patch + 1]]:
            for column in range(d):
                value = values[cell, column]
                if not np.isnan(value):
                    block[column, n[column]] = value
                    n[column] += 1
        for column in range(d):
            out[patch, column] = _middle_mean(block[column], n[column], trim)
    return out


@numba.njit(cache=True)
def _middle_mean(values: NDArray[Any], n: int, trim: float) -> float:
    """Mean of ranks ``low`` to ``n - 1 - low``; reorders the first ``n`` values."""
    if n == 0:
        return np.nan
    low = min(int(trim * n), (n - 1) // 2)
    high = n - 1 - low
    _select(values, 0, n - 1, low)
    if high == low + 1:  # median of an even number: the other middle value is the least of the upper half
        least = values[high]
        for i in range(high + 1, n):
            least = min(least, values[i])
        values[high] = least
    else:
        _select(values, low, n - 1, high)
    total = 0.0
    for i in range(low, high + 1):
        total += values[i]
    return total / (high - low + 1)


@numba.njit(cache=True)
def _select(values: NDArray[Any], left: int, right: int, k: int) -> None:
    """Put the value of rank ``k`` into place ``k``, none larger before it, none smaller after it."""
    while left < right:
        pivot = values[(left + right) // 2]
        i, j = left, right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k <= j:
            right = j
        elif k >= i:
            left = i
        else:
            return
