"""Rows of a CSR matrix of counts as dense batches: what an autoencoder reads, made as fast as memory can be written.

Floor 1, above the ground floor. Used by data/cells, expression, models/autoencoder, train/cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from scipy import sparse

from spatialsig.stats.expression import size_factors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Singles = NDArray[np.float32]
    Array = NDArray[Any]

_ROWS_AHEAD, _LINE = 3, 16  # numbers of four bytes in a line of the processor's cache
_SMALL = 8  # counts below it are most of the non-zeros: their logarithm is taken once per cell
_BYTE, _INT = ir.IntType(8).as_pointer(), ir.IntType(32)
# LLVM calls the function by the type of its pointer, which is "ptr" wherever pointers have no types any more
_NAME = "llvm.prefetch.p0" if str(_BYTE) == "ptr" else "llvm.prefetch.p0i8"
_READ, _KEEP, _DATA = 0, 3, 1


def zscore_rows(counts: sparse.csr_matrix, rows: Ints, library: Floats, mean: Array, std: Array) -> Singles:
    """Dense z-scores of chosen cells under a fitted scaler.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)`` raw counts.
    rows
        ``(b,)`` cells to take, in any order.
    library
        Counts per cell, ``(n_cells,)``.
    mean, std
        Scaler of ``log1p(1e4 * count / library)``, ``(n_genes,)``.

    Returns
    -------
    ``(b, n_genes)`` float32.
    """
    base, scale = _affine(mean, std)
    out = np.empty((len(rows), counts.shape[1]), np.float32)
    factor = size_factors(library[rows])
    _zscore(counts.data, counts.indices, counts.indptr, np.asarray(rows, np.int64), factor, base, scale, out)
    return out


def log_expression(counts: sparse.csr_matrix, library: Floats) -> sparse.csr_matrix:
    """``log1p(1e4 * count / library)`` float32, sharing the indices of ``counts``: for batches drawn many times."""
    values = _logged(counts.data, counts.indptr, size_factors(library))
    return sparse.csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)


def standardised_rows(expression: sparse.csr_matrix, rows: Ints, mean: Array, std: Array) -> Singles:
    """Dense z-scores ``(b, n_genes)`` of chosen cells of a :func:`log_expression`; as :func:`zscore_rows`, sooner."""
    base, scale = _affine(mean, std)
    out = np.empty((len(rows), expression.shape[1]), np.float32)
    chosen = np.asarray(rows, np.int64)
    _standardised(expression.data, expression.indices, expression.indptr, chosen, base, scale, out)
    return out


def dense_rows(counts: sparse.csr_matrix, rows: Ints) -> Singles:
    """Counts of chosen cells, ``(b, n_genes)`` float32."""
    out = np.zeros((len(rows), counts.shape[1]), np.float32)
    _dense(counts.data, counts.indices, counts.indptr, np.asarray(rows, np.int64), out)
    return out


def sub_matrix(counts: sparse.csr_matrix, columns: Ints, rows: Ints | None = None) -> sparse.csr_matrix:
    """Chosen cells and genes, float32, in the given order.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``.
    columns
        Genes to take, distinct, ``(g,)``; -1 stands for a gene that is not measured and gives an empty column.
    rows
        Cells to take, ``(b,)``; None takes all.

    Returns
    -------
    ``(b, g)`` CSR; the columns of a row are in the order of the source.
    """
    target = np.full(counts.shape[1], -1, np.int32)
    measured = np.flatnonzero(columns >= 0)
    target[columns[measured]] = measured
    chosen = np.arange(counts.shape[0]) if rows is None else np.asarray(rows, np.int64)
    found = _chosen(counts.data, counts.indices, counts.indptr, chosen, target)
    return sparse.csr_matrix(found, shape=(len(chosen), len(columns)))


def _affine(mean: Array, std: Array) -> tuple[Singles, Singles]:
    """z-score of an absent gene, and what a unit of expression adds to it."""
    scale = 1.0 / np.asarray(std, np.float64)
    return (-np.asarray(mean, np.float64) * scale).astype(np.float32), scale.astype(np.float32)


# Indices are cast to unsigned numbers below: this spares numba its check for negative ones.


@numba.njit(cache=True, nogil=True, inline="always")
def _take_logs(factor: float, small: Singles) -> None:
    for count in range(_SMALL):
        small[count] = np.log1p(np.float32(count * factor))


@numba.njit(cache=True, nogil=True, inline="always")
def _place(value: float) -> np.uint8:
    """Where the logarithm of a small whole count is kept; 0 for any other value."""
    return np.uint8(value) if 0 <= value < _SMALL else np.uint8(0)


@numba.njit(cache=True, nogil=True)
def _zscore(
    data: Array, indices: Array, indptr: Array, rows: Ints, factor: Floats, base: Singles, scale: Singles, out: Singles
) -> None:
    small = np.empty(_SMALL, np.float32)
    for i in range(len(rows)):
        row = out[i]
        row[:] = base
        _take_logs(factor[i], small)
        for k in range(np.uint64(indptr[rows[i]]), np.uint64(indptr[rows[i] + 1])):
            value, gene = data[k], np.uint32(indices[k])
            place = _place(value)
            logged = small[place] if place == value else np.float32(np.log1p(value * factor[i]))
            row[gene] += logged * scale[gene]


@numba.njit(cache=True, nogil=True)
def _logged(data: Array, indptr: Array, factor: Floats) -> Singles:
    out, small = np.empty(len(data), np.float32), np.empty(_SMALL, np.float32)
    for cell in range(len(factor)):
        _take_logs(factor[cell], small)
        for k in range(np.uint64(indptr[cell]), np.uint64(indptr[cell + 1])):
            place = _place(data[k])
            out[k] = small[place] if place == data[k] else np.log1p(data[k] * factor[cell])
    return out


@numba.njit(cache=True, nogil=True)
def _standardised(
    data: Singles, indices: Array, indptr: Array, rows: Ints, base: Singles, scale: Singles, out: Singles
) -> None:
    for i in range(len(rows)):
        # cells are drawn from anywhere: without this, half of the time is waiting for memory
        if i + _ROWS_AHEAD < len(rows):
            later = rows[i + _ROWS_AHEAD]
            for k in range(indptr[later], indptr[later + 1], _LINE):
                prefetch(data, k)
                prefetch(indices, k)
        row = out[i]
        row[:] = base
        for k in range(np.uint64(indptr[rows[i]]), np.uint64(indptr[rows[i] + 1])):
            gene = np.uint32(indices[k])
            row[gene] += data[k] * scale[gene]


@numba.njit(cache=True, nogil=True)
def _dense(data: Array, indices: Array, indptr: Array, rows: Ints, out: Singles) -> None:
    for i in range(len(rows)):
        for k in range(indptr[rows[i]], indptr[rows[i] + 1]):
            out[i, indices[k]] += data[k]


@numba.njit(cache=True, nogil=True)
def _chosen(
    data: Array, indices: Array, indptr: Array, rows: Ints, target: NDArray[np.int32]
) -> tuple[Singles, NDArray[np.int32], Ints]:
    start = np.zeros(len(rows) + 1, np.int64)
    for i in range(len(rows)):
        n = 0
        for k in range(np.uint64(indptr[rows[i]]), np.uint64(indptr[rows[i] + 1])):
            n += target[np.uint32(indices[k])] >= 0
        start[i + 1] = start[i] + n
    values, genes = np.empty(start[-1], np.float32), np.empty(start[-1], np.int32)
    at = 0
    for i in range(len(rows)):
        for k in range(np.uint64(indptr[rows[i]]), np.uint64(indptr[rows[i] + 1])):
            gene = target[np.uint32(indices[k])]
            if gene >= 0:
                values[at], genes[at] = data[k], gene
                at += 1
    return values, genes, start


def _prefetch(_context: Any, array: Any, index: Any) -> Any:
    """Start to load ``array[index]`` into the processor's cache; nothing waits for it, and nothing else happens."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), _BYTE)
        kind = ir.FunctionType(ir.VoidType(), [_BYTE, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, _NAME)  # type: ignore[no-untyped-call]
        builder.call(function, [place, _INT(_READ), _INT(_KEEP), _INT(_DATA)])
        return context.get_dummy_value()

    return types.void(array, index), code


prefetch: Any = intrinsic(_prefetch)
