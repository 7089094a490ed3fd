"""Statistics of the cells of each patch, from a sparse membership matrix; a cell may lie in several patches.

``membership`` is CSR ``(n_cells, n_patches)`` of 0 and 1, ``values`` is ``(n_cells, d)``. Sums are float64. A value that
is NaN is left out, as in pandas.

Floor 1, above the ground floor. Used by 6 modules of evaluation, labels, tl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy import sparse

from spatialsig.stats.expression import arrays_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.stats.expression import Csr

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Array = NDArray[Any]


def group_sizes(membership: sparse.csr_matrix) -> Ints:
    """Cells per patch, ``(n_patches,)``."""
    return np.bincount(membership.indices, minlength=membership.shape[1]).astype(np.int64)


def grouped_sum(values: Array, membership: sparse.csr_matrix) -> Floats:
    """Sum over the cells of each patch, ``(n_patches, d)``; 0 for a patch without values."""
    return _totals(_floats(values), membership)[0]


def grouped_count(values: Array, membership: sparse.csr_matrix) -> Ints:
    """Number of values that are not NaN in each patch, ``(n_patches, d)``."""
    return _totals(_floats(values), membership)[1].astype(np.int64)


def grouped_mean(values: Array, membership: sparse.csr_matrix) -> Floats:
    """Mean over the cells of each patch, ``(n_patches, d)``; NaN for a patch without values."""
    return _divide(*_totals(_floats(values), membership))


def grouped_sem(values: Array, membership: sparse.csr_matrix) -> Floats:
    """Standard error of the mean of each patch, ``(n_patches, d)``; NaN below two values."""
    floats = _floats(values)
    total, n = _totals(floats, membership)
    # deviations from the patch's own mean, so that large offsets cost no digits
    squares = _squares(floats, membership.indices, membership.indptr, _divide(total, n))
    return np.sqrt(_divide(_divide(squares, n - 1), n))


def grouped_fraction(values: Array, membership: sparse.csr_matrix, *, threshold: float = 0.0) -> Floats:
    """Share of the values of each patch above ``threshold``, ``(n_patches, d)``; NaN for a patch without values."""
    floats = _floats(values)
    above = np.where(np.isnan(floats), np.nan, floats > threshold).astype(np.float32)
    return grouped_mean(above, membership)


def grouped_median(values: Array, membership: sparse.csr_matrix) -> Floats:
    """Median over the cells of each patch, ``(n_patches, d)``; NaN for a patch without values."""
    return grouped_trimmed_mean(values, membership, trim=0.5)


def grouped_trimmed_mean(values: Array, membership: sparse.csr_matrix, *, trim: float = 0.1) -> Floats:
    """Mean over the cells of each patch without the ``trim`` share of lowest and of highest values.

    ``(n_patches, d)``; NaN for a patch without values. ``int(trim * n)`` values go at either end; the middle one or two
    always stay, so that ``trim=0.5`` is the median.
    """
    by_patch = membership.tocsc()
    means: Floats = middle_means(_floats(values), by_patch.indices, by_patch.indptr, trim)
    return means


def grouped_shares(codes: Array, n_categories: int, membership: sparse.csr_matrix) -> Floats:
    """Share of each category among the cells of each patch, ``(n_patches, n_categories)``.

    ``codes`` ``(n_cells,)`` number the categories from 0; a negative code is a cell without category and left out. NaN
    for a patch without categories.
    """
    table = _code_counts(
        np.asarray(codes, np.int64), membership.indices, membership.indptr, membership.shape[1], n_categories
    )
    return _divide(table, table.sum(axis=1, keepdims=True))


def pseudobulk(counts: sparse.csr_matrix, membership: sparse.csr_matrix) -> sparse.csr_matrix:
    """Sum of the rows of ``counts`` ``(n_cells, n_genes)`` over the cells of each patch, CSR ``(n_patches, n_genes)``."""
    by_patch = membership.tocsc()
    sums = _sparse_sums(arrays_of(counts), by_patch.indices, by_patch.indptr, counts.shape[1])
    return sparse.csr_matrix(sums, shape=(by_patch.shape[1], counts.shape[1]))


def _floats(values: Array) -> Array:
    """Values as the kernels take them; float32 stays float32, which halves what has to be read."""
    array = np.asarray(values)
    return np.ascontiguousarray(array, array.dtype if array.dtype == np.float32 else np.float64)


def _totals(values: Array, membership: sparse.csr_matrix) -> tuple[Floats, Floats]:
    """Sum and number of values per patch and column."""
    total = _sums(values, membership.indices, membership.indptr, membership.shape[1])
    if np.isnan(total).any():  # rare, so the quick kernel does not look for NaN
        sums, n = _present_sums(values, membership.indices, membership.indptr, membership.shape[1])
        return sums, n
    return total, np.repeat(group_sizes(membership)[:, None].astype(np.float64), values.shape[1], axis=1)


def _divide(total: Floats, n: Floats) -> Floats:
    size = np.broadcast_to(n, total.shape)
    return np.divide(total, size, out=np.full_like(total, np.nan), where=size > 0)


@numba.njit(cache=True)
def _sums(values: Array, indices: Array, indptr: Array, n_patches: int) -> Floats:
    total = np.zeros((n_patches, values.shape[1]))
    for cell in range(values.shape[0]):
        for k in range(indptr[cell], indptr[cell + 1]):
            patch = indices[k]
            for column in range(values.shape[1]):
                total[patch, column] += values[cell, column]
    return total


@numba.njit(cache=True)
def _present_sums(values: Array, indices: Array, indptr: Array, n_patches: int) -> tuple[Floats, Floats]:
    total = np.zeros((n_patches, values.shape[1]))
    n = np.zeros((n_patches, values.shape[1]))
    for cell in range(values.shape[0]):
        for k in range(indptr[cell], indptr[cell + 1]):
            for column in range(values.shape[1]):
                if not np.isnan(values[cell, column]):
                    total[indices[k], column] += values[cell, column]
                    n[indices[k], column] += 1
    return total, n


@numba.njit(cache=True)
def _squares(values: Array, indices: Array, indptr: Array, mean: Floats) -> Floats:
    total = np.zeros(mean.shape)
    for cell in range(values.shape[0]):
        for k in range(indptr[cell], indptr[cell + 1]):
            patch = indices[k]
            for column in range(values.shape[1]):
                deviation = values[cell, column] - mean[patch, column]
                if not np.isnan(deviation):
                    total[patch, column] += deviation * deviation
    return total


@numba.njit(cache=True)
def _code_counts(codes: Ints, indices: Array, indptr: Array, n_patches: int, n_categories: int) -> Floats:
    table = np.zeros((n_patches, n_categories))
    for cell in range(codes.shape[0]):
        if codes[cell] >= 0:
            for k in range(indptr[cell], indptr[cell + 1]):
                table[indices[k], codes[cell]] += 1
    return table


@numba.njit(cache=True)
def _sparse_sums(csr: Csr, cells: Array, start: Array, n_genes: int) -> tuple[Floats, Ints, Ints]:
    (data, indices, indptr), n_patches = csr, len(start) - 1
    out_start = np.zeros(n_patches + 1, np.int64)
    last = np.full(n_genes, -1)  # last patch that saw the gene
    for patch in range(n_patches):
        out_start[patch + 1] = out_start[patch]
        for cell in cells[start[patch] : start[patch + 1]]:
            for gene in indices[indptr[cell] : indptr[cell + 1]]:
                if last[gene] != patch:
                    last[gene] = patch
                    out_start[patch + 1] += 1
    out_data, out_indices = np.empty(out_start[-1]), np.empty(out_start[-1], np.int64)
    row, seen = np.zeros(n_genes), np.zeros(n_genes, np.bool_)
    for patch in range(n_patches):
        for cell in cells[start[patch] : start[patch + 1]]:
            for k in range(indptr[cell], indptr[cell + 1]):
                row[indices[k]] += data[k]
                seen[indices[k]] = True
        at = out_start[patch]
        for gene in range(n_genes):
            if seen[gene]:
                out_data[at], out_indices[at] = row[gene], gene
                row[gene], seen[gene] = 0.0, False
                at += 1
    return out_data, out_indices, out_start


@numba.njit(cache=True)
def middle_means(values: Array, cells: Array, start: Array, trim: float) -> Floats:
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
def _middle_mean(values: Array, n: int, trim: float) -> float:
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
def _select(values: Array, left: int, right: int, k: int) -> None:
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
