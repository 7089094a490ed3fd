"""``cell_feature_matrix.h5``: its cells and features, and its counts.

Floor 7, above evaluation. Used by io/_xenium, io/xenium/size.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h5py

from spatialsig._files import content_hint
from spatialsig.errors import InputError
from spatialsig.io.xenium.columns import as_text
from spatialsig.io.xenium.counts import Axes, genes_of, read_counts, refuse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from spatialsig.io.xenium.counts import CountMatrix

_DAMAGE = (
    OSError, KeyError, RuntimeError, AttributeError, TypeError, ValueError, OverflowError, MemoryError,
    NotImplementedError, SystemError,
)  # fmt: skip
_MAX_INFLATION = 1100  # what deflate can do: a larger array is a damaged header
_SMALL = 2**20
_TEXT = ("barcodes", "features/id", "features/name", "features/feature_type")
_NUMBERS = ("data", "indices", "indptr")


def read_h5_axes(path: Path) -> Axes:
    """Read the cells and features of any XOA version; only genes have a place in ``var``.

    Raises :class:`InputError` if the file is damaged or a dataset is missing.
    """
    with _opened(path) as matrix:
        missing = [name for name in (*_TEXT, *_NUMBERS) if name not in matrix]
        if missing:
            refuse(path, f"has no dataset(s) {missing} in /matrix")
        optional = ("shape", "features/genome")
        fields = {name: _list(path, matrix, name)[()] for name in (*_TEXT, *optional) if name in matrix}
    lengths = {name: len(values) for name, values in fields.items() if name.startswith("features/")}
    if len(set(lengths.values())) != 1:
        refuse(path, f"has features of unequal lengths {lengths}")
    cell_ids = as_text(fields["barcodes"], name=f"{path}: barcodes")
    kinds = as_text(fields["features/feature_type"], name=f"{path}: feature_type")
    stated = fields["shape"].tolist() if "shape" in fields else [len(kinds), len(cell_ids)]
    if stated != [len(kinds), len(cell_ids)]:
        refuse(path, f"says shape {stated} but names {len(kinds)} features and {len(cell_ids)} barcodes")
    genome = {"genome": fields["features/genome"]} if "features/genome" in fields else {}
    var = genes_of(path, kinds, ids=fields["features/id"], names=fields["features/name"], **genome)
    return Axes(cell_ids, kinds, var)


def read_h5_counts(path: Path, axes: Axes, keep: NDArray[np.bool_]) -> CountMatrix:
    """Read the counts of the genes in the cells to ``keep``."""
    with _opened(path) as matrix:
        lists = {name: _list(path, matrix, name) for name in _NUMBERS}
        return read_counts(path, axes, keep, **lists)


def read_h5_size(path: Path) -> tuple[int, int, int]:
    """Read how many cells, features and counts that are not 0 there are, from the headers of the lists."""
    with _opened(path) as matrix:
        missing = [name for name in (*_TEXT[:2], *_NUMBERS) if name not in matrix]
        if missing:
            refuse(path, f"has no dataset(s) {missing} in /matrix")
        n_cells, n_features, n_values = (
            int(_list(path, matrix, name).shape[0]) for name in ("barcodes", "features/id", "data")
        )
    return n_cells, n_features, n_values


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Group of the matrix; what a damaged file raises becomes an :class:`InputError` that names it."""
    try:
        with h5py.File(path, "r") as file:
            if "matrix" not in file:
                refuse(path, f"has no group /matrix; it has {sorted(file)}")
            yield file["matrix"]
    except InputError:
        raise
    except _DAMAGE as error:
        msg = (
            f"{str(path)!r} cannot be read as HDF5 ({type(error).__name__}: {error}). Copy {path.name} from the "
            f"instrument again.{content_hint(path)}"
        )
        raise InputError(msg) from error


def _list(path: Path, matrix: Any, name: str) -> Any:
    """One dataset, unless its header promises more than the file can hold."""
    dataset = matrix[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1:
        refuse(path, f"has a /matrix/{name} that is no list")
    if dataset.nbytes > _SMALL and dataset.nbytes > _MAX_INFLATION * path.stat().st_size:
        refuse(path, f"has a /matrix/{name} of {dataset.shape[0]} entries, more than the file can hold")
    return dataset
