"""Normalised expression straight from CSR counts: no dense matrix of a slide, sums in float64.

The normalisation is ``x = log1p(1e4 * count / library)`` throughout.

Floor 1, above the ground floor. Used by 15 modules of expression, labels, models, pp, referee, slide, stats, train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Csr = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    Depth = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]

TARGET_SUM = 1e4
N_SMALL = 8  # counts below this have their logarithm looked up
N_LIBRARIES = 4096  # and so have libraries up to this: the table stays in the processor's cache


def library_size(counts: sparse.csr_matrix, *, genes: Mask | None = None) -> Floats:
    """Counts per cell, ``(n_cells,)``, over all columns of ``counts``, or those marked in ``genes`` ``(n_genes,)``."""
    if genes is None:
        library: Floats = _row_sums(counts.data, counts.indptr)
    else:
        library = _some_row_sums(arrays_of(counts), genes)
    return library


def arrays_of(matrix: sparse.csr_matrix) -> Csr:
    """``data``, ``indices`` and ``indptr`` of a CSR matrix, as kernels take them."""
    return matrix.data, matrix.indices, matrix.indptr


def depth_of(library: Floats) -> Depth:
    """Counts per cell ``(n_cells,)``, what counts are multiplied by, and :func:`small_logs`, as kernels take them."""
    return library, size_factors(library), small_logs(library)


def value_range(values: NDArray[Any]) -> tuple[bool, float, float]:
    """Whether all values are whole numbers (never with NaN), and the least and the largest; 0 and 0 without values."""
    whole, low, high = _value_range(values) if len(values) else (True, 0.0, 0.0)
    return bool(whole), float(low), float(high)


def size_factors(library: Floats, target_sum: float = TARGET_SUM) -> Floats:
    """``target_sum / library``; ``target_sum`` for an empty cell, whose counts are all zero anyway."""
    return target_sum / np.maximum(library, 1.0)


def scaled_counts(counts: sparse.csr_matrix, library: Floats, *, target_sum: float = TARGET_SUM) -> sparse.csr_matrix:
    """Counts per ``target_sum`` of each cell; same sparsity as the input, float32."""
    return _scaled(counts, size_factors(library, target_sum), logarithm=False)


def log1p_cp10k(counts: sparse.csr_matrix, library: Floats, *, target_sum: float = TARGET_SUM) -> sparse.csr_matrix:
    """Logarithm of 1 + :func:`scaled_counts`; same sparsity as the input, float32."""
    return _scaled(counts, size_factors(library, target_sum), logarithm=True)


def _scaled(counts: sparse.csr_matrix, factor: Floats, *, logarithm: bool) -> sparse.csr_matrix:
    values = _scaled_values(counts.data, counts.indptr, factor, logarithm)
    return sparse.csr_matrix((values, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)


def gene_moments(
    counts: sparse.csr_matrix,
    library: Floats | None,
    *,
    rows: Mask | None = None,
    genes: Mask | None = None,
    log1p: bool = True,
) -> tuple[Floats, Floats]:
    """Sum and sum of squares of the normalised expression of every gene, each ``(n_genes,)``, in one pass.

    ``rows`` ``(n_cells,)`` says which cells count, ``genes`` ``(n_genes,)`` which genes (the others get 0, and few of many
    are much sooner done); all of them when None. ``log1p=False`` leaves the logarithm out, and
    ``library=None`` the division by the library too: the moments of the counts themselves.
    """
    chosen = np.ones(counts.shape[0], np.bool_) if rows is None else rows
    ones = np.ones(counts.shape[0])
    depth = (ones, ones, small_logs(ones, 1.0)) if library is None else depth_of(library)
    moments: tuple[Floats, Floats]
    if genes is None:
        moments = _moments(arrays_of(counts), depth, chosen, counts.shape[1], log1p)
    else:
        moments = _some_moments(arrays_of(counts), depth, chosen, genes, log1p)
    return moments


def clipped_moments(counts: sparse.csr_matrix, limits: Floats, *, rows: Mask | None = None) -> tuple[Floats, Floats]:
    """Sum and sum of squares of the counts cut off at ``limits`` ``(n_genes,)``, each ``(n_genes,)``."""
    chosen = np.ones(counts.shape[0], np.bool_) if rows is None else rows
    moments: tuple[Floats, Floats] = _clipped_moments(arrays_of(counts), limits, chosen)
    return moments


def scaler_from_moments(total: Floats, squares: Floats, n_cells: int | Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation per gene, each ``(n_genes,)``, from the pooled sums of :func:`gene_moments`.

    A gene that never varies gets a standard deviation of 1: its z-score is 0 for every cell, whatever divides it.
    """
    mean = total / n_cells
    std = np.sqrt(np.maximum(squares / n_cells - mean**2, 0))
    return mean, np.where(std > 0, std, 1.0)


def small_logs(library: Floats, target_sum: float = TARGET_SUM) -> Floats:
    """Logarithms of the small counts, ``(n, N_SMALL)``: row ``i`` for a library of ``i``, the last for any other.

    Libraries and counts are small whole numbers nearly always, so that a slide of millions has few logarithms.
    """
    largest = min(int(library.max(initial=0.0)), N_LIBRARIES)
    factor = size_factors(np.arange(largest + 2.0), target_sum)
    return np.log1p(factor[:, None] * np.arange(N_SMALL))


@numba.njit(cache=True, inline="always")
def row_of_logs(library: float, factor: float, logs: Floats) -> int:
    """Row of ``small_logs`` for a cell; the last one, made anew, where there is none for its library."""
    other = len(logs) - 1
    if 0 <= library < other and library == np.floor(library):
        return int(library)
    for count in range(N_SMALL):
        logs[other, count] = np.log1p(count * factor)
    return other


@numba.njit(cache=True, inline="always")
def log1p_of(value: Any, factor: float, small: Floats) -> float:
    """Logarithm of 1 + ``value * factor``, looked up in ``small`` where the value is a small whole number."""
    place = np.uint8(value) if 0 <= value < N_SMALL else np.uint8(0)
    logarithm: float = small[place] if place == value else np.log1p(value * factor)
    return logarithm


@numba.njit(cache=True)
def _value_range(values: NDArray[Any]) -> tuple[bool, float, float]:
    whole, low, high = True, values[0], values[0]
    for value in values:
        whole &= value == np.rint(value)
        low, high = min(low, value), max(high, value)
    return whole, low, high


@numba.njit(cache=True)
def _row_sums(data: NDArray[Any], indptr: NDArray[Any]) -> Floats:
    out = np.empty(len(indptr) - 1)
    for cell in range(len(indptr) - 1):
        k, stop = np.uint64(indptr[cell]), np.uint64(indptr[cell + 1])
        even = odd = 0.0  # two sums: neither waits for the other
        while k + np.uint64(1) < stop:
            even += data[k]
            odd += data[k + np.uint64(1)]
            k += np.uint64(2)
        out[cell] = even + odd + (data[k] if k < stop else 0.0)
    return out


@numba.njit(cache=True)
def _some_row_sums(csr: Csr, genes: Mask) -> Floats:
    data, indices, indptr = csr
    out = np.zeros(len(indptr) - 1)
    for cell in range(len(indptr) - 1):
        for k in range(indptr[cell], indptr[cell + 1]):
            out[cell] += data[k] if genes[indices[k]] else 0.0
    return out


@numba.njit(cache=True)
def _scaled_values(
    data: NDArray[Any],
    indptr: NDArray[Any],
    factor: Floats,
    logarithm: bool,  # noqa: FBT001
) -> NDArray[np.float32]:
    out = np.empty(len(data), np.float32)
    for cell in range(len(indptr) - 1):
        for k in range(indptr[cell], indptr[cell + 1]):
            value = data[k] * factor[cell]
            out[k] = np.log1p(value) if logarithm else value
    return out


@numba.njit(cache=True)
def _moments(
    csr: Csr,
    depth: Depth,
    rows: Mask,
    n_genes: int,
    log1p: bool,  # noqa: FBT001
) -> tuple[Floats, Floats]:
    (data, indices, indptr), (library, factor, logs) = csr, depth
    sums = np.zeros((n_genes, 2))  # side by side: one cache line per gene
    for cell in range(len(indptr) - 1):
        if rows[cell]:
            small = logs[row_of_logs(library[cell], factor[cell], logs)]
            # unsigned numbers spare numba its check for negative indices
            for k in range(np.uint64(indptr[cell]), np.uint64(indptr[cell + 1])):
                gene = np.uint32(indices[k])
                x = log1p_of(data[k], factor[cell], small) if log1p else data[k] * factor[cell]
                sums[gene, 0] += x
                sums[gene, 1] += x * x
    return sums[:, 0].copy(), sums[:, 1].copy()


@numba.njit(cache=True)
def _some_moments(
    csr: Csr,
    depth: Depth,
    rows: Mask,
    genes: Mask,
    log1p: bool,  # noqa: FBT001
) -> tuple[Floats, Floats]:
    (data, indices, indptr), (library, factor, logs) = csr, depth
    sums = np.zeros((len(genes), 2))
    hits = np.empty(np.max(np.diff(indptr)) + 1 if len(indptr) > 1 else 1, np.uint64)
    for cell in range(len(indptr) - 1):
        if rows[cell]:
            n_hits = 0
            for k in range(np.uint64(indptr[cell]), np.uint64(indptr[cell + 1])):
                hits[n_hits] = k  # without a branch, which the processor would mispredict
                n_hits += genes[np.uint32(indices[k])]
            small = logs[row_of_logs(library[cell], factor[cell], logs)]
            for hit in range(n_hits):
                value, gene = data[hits[hit]], np.uint32(indices[hits[hit]])
                x = log1p_of(value, factor[cell], small) if log1p else value * factor[cell]
                sums[gene, 0] += x
                sums[gene, 1] += x * x
    return sums[:, 0].copy(), sums[:, 1].copy()


@numba.njit(cache=True)
def _clipped_moments(csr: Csr, limits: Floats, rows: Mask) -> tuple[Floats, Floats]:
    data, indices, indptr = csr
    sums = np.zeros((len(limits), 2))
    for cell in range(len(indptr) - 1):
        if rows[cell]:
            for k in range(np.uint64(indptr[cell]), np.uint64(indptr[cell + 1])):
                gene = np.uint32(indices[k])
                value = min(np.float64(data[k]), limits[gene])
                sums[gene, 0] += value
                sums[gene, 1] += value * value
    return sums[:, 0].copy(), sums[:, 1].copy()
