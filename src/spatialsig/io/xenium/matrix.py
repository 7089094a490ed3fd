"""Counts of a Xenium bundle, checked before any library that would crash on bad ones sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import h5py
import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from scipy import sparse

from spatialsig.errors import InputError
from spatialsig.io.xenium.columns import as_text

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

GENE_EXPRESSION = "Gene Expression"
COUNT_COLUMNS = {  # feature type -> column of cells.parquet
    GENE_EXPRESSION: "transcript_counts",
    "Negative Control Probe": "control_probe_counts",
    "Genomic Control": "genomic_control_counts",
    "Negative Control Codeword": "control_codeword_counts",
    "Unassigned Codeword": "unassigned_codeword_counts",
    "Deprecated Codeword": "deprecated_codeword_counts",
}
_DAMAGE = (
    OSError, KeyError, RuntimeError, AttributeError, TypeError, ValueError, OverflowError, MemoryError,
    NotImplementedError, SystemError,
)  # fmt: skip
_MAX_INFLATION = 1100  # what deflate can do: a larger array is a damaged header
_SMALL = 2**20
_FIX = "Copy cell_feature_matrix.h5 from the instrument again"


@dataclass(frozen=True)
class CountMatrix:
    """Counts of the genes of a bundle."""

    counts: sparse.csr_matrix  # (n_cells, n_genes), CSR float32, whole numbers
    cell_ids: NDArray[np.str_]  # (n_cells,)
    var: pd.DataFrame  # index: unique symbols; columns ``gene_ids``, ``feature_types`` and, where known, ``genome``
    features_dropped: dict[str, int]  # feature type -> number of features that are no genes
    counts_dropped: dict[str, int]  # feature type -> their counts
    per_cell: dict[str, NDArray[np.float64]]  # column of ``cells.parquet`` that sums up the same counts -> (n_cells,)


def read_matrix(path: Path) -> CountMatrix:
    """Read ``cell_feature_matrix.h5`` of any XOA version; only features of type ``Gene Expression`` are kept.

    Raises :class:`InputError` if the file is damaged, a dataset is missing, the sparse structure is inconsistent, an
    index is out of range, or a count is negative or not a whole number.
    """
    fields = _read_fields(path)
    cell_ids = as_text(fields["barcodes"], name=f"{path}: barcodes")
    kinds = as_text(fields["features/feature_type"], name=f"{path}: feature_type")
    n_features, n_cells = len(kinds), len(cell_ids)
    _check_shape(path, fields, n_features=n_features, n_cells=n_cells)
    _check_structure(path, fields["indptr"], fields["indices"], len(fields["data"]), n_features, n_cells)
    _check_counts(path, fields["data"])
    parts = (fields["data"].astype(np.float32), fields["indices"].astype(np.int64), fields["indptr"].astype(np.int64))
    everything = sparse.csr_matrix(parts, shape=(n_cells, n_features))
    everything.sort_indices()
    if not everything.has_canonical_format:
        _refuse(path, "lists a feature twice in one cell")
    keep = kinds == GENE_EXPRESSION
    if not keep.any():
        _refuse(path, f"has no features of type {GENE_EXPRESSION!r}; it has {sorted(set(kinds.tolist()))}")
    per_feature = np.asarray(everything.sum(axis=0, dtype=np.float64)).ravel()
    others = pd.Series(kinds[~keep])
    return CountMatrix(
        counts=everything[:, np.flatnonzero(keep)],
        cell_ids=cell_ids,
        var=_var(path, fields, keep),
        features_dropped={str(kind): int(n) for kind, n in others.value_counts().sort_index().items()},
        counts_dropped={
            str(kind): int(n) for kind, n in pd.Series(per_feature[~keep]).groupby(others).sum().sort_index().items()
        },
        per_cell=_per_cell(everything, kinds),
    )


def _per_cell(everything: sparse.csr_matrix, kinds: NDArray[np.str_]) -> dict[str, NDArray[np.float64]]:
    """Sums per cell under the names of the columns of ``cells.parquet``; the total where every type has a column."""
    sums: dict[str, NDArray[np.float64]] = {}
    for kind, column in COUNT_COLUMNS.items():
        chosen = np.flatnonzero(kinds == kind)
        if len(chosen):
            sums[column] = np.asarray(everything[:, chosen].sum(axis=1, dtype=np.float64)).ravel()
    if set(kinds.tolist()) <= set(COUNT_COLUMNS):
        sums["total_counts"] = np.asarray(everything.sum(axis=1, dtype=np.float64)).ravel()
    return sums


def _read_fields(path: Path) -> dict[str, NDArray[Any]]:
    needed = ("barcodes", "data", "indices", "indptr", "features/id", "features/name", "features/feature_type")
    fields = {}
    try:
        with h5py.File(path, "r") as file:
            missing = [name for name in needed if f"matrix/{name}" not in file]
            if missing:
                _refuse(path, f"has no dataset(s) {missing} in /matrix")
            for name in (*needed, "shape", "features/genome"):
                if f"matrix/{name}" in file:
                    fields[name] = _read_field(path, file[f"matrix/{name}"], name)
    except InputError:
        raise
    except _DAMAGE as error:
        msg = f"{str(path)!r} cannot be read as HDF5 ({type(error).__name__}: {error}). {_FIX}."
        raise InputError(msg) from error
    lengths = {name: len(values) for name, values in fields.items() if name.startswith("features/")}
    if len(set(lengths.values())) != 1:
        _refuse(path, f"has features of unequal lengths {lengths}")
    return fields


def _read_field(path: Path, dataset: Any, name: str) -> NDArray[Any]:
    """One dataset, unless its header promises more than the file can hold."""
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1:
        _refuse(path, f"has a /matrix/{name} that is no list")
    if dataset.nbytes > _SMALL and dataset.nbytes > _MAX_INFLATION * path.stat().st_size:
        _refuse(path, f"has a /matrix/{name} of {dataset.shape[0]} entries, more than the file can hold")
    values: NDArray[Any] = dataset[()]
    return values


def _check_shape(path: Path, fields: dict[str, NDArray[Any]], *, n_features: int, n_cells: int) -> None:
    if "shape" not in fields:
        return
    stated = fields["shape"].tolist()
    if stated != [n_features, n_cells]:
        _refuse(path, f"says shape {stated} but names {n_features} features and {n_cells} barcodes")


def _check_structure(
    path: Path, indptr: NDArray[Any], indices: NDArray[Any], n_values: int, n_features: int, n_cells: int
) -> None:
    if len(indptr) == n_features + 1 and n_features != n_cells:
        _refuse(path, "is stored by features (CSR); wanted one column per barcode (CSC), as the instrument writes it")
    if indptr.dtype.kind not in "iu" or indices.dtype.kind not in "iu":
        _refuse(path, f"has indptr {indptr.dtype} and indices {indices.dtype}; wanted integers")
    if len(indptr) != n_cells + 1 or len(indices) != n_values:
        _refuse(path, f"has {len(indptr)} indptr, {len(indices)} indices, {n_values} values for {n_cells} barcodes")
    if indptr[0] != 0 or indptr[-1] != n_values or (indptr[1:] < indptr[:-1]).any():
        _refuse(path, f"has an indptr that does not rise from 0 to {n_values}")
    if n_values and not 0 <= int(indices.min()) <= int(indices.max()) < n_features:
        _refuse(
            path, f"has indices {int(indices.min())} to {int(indices.max())}, out of range for {n_features} features"
        )


def _check_counts(path: Path, data: NDArray[Any]) -> None:
    if data.dtype.kind not in "iuf":
        _refuse(path, f"has counts of type {data.dtype}; wanted numbers")
    wrong = ~np.isfinite(data) | (data < 0) | (data != np.floor(data))
    if wrong.any():
        _refuse(path, f"has {int(wrong.sum())} counts that are negative or no whole numbers, as {data[wrong][0]!r}")


def _var(path: Path, fields: dict[str, NDArray[Any]], keep: NDArray[np.bool_]) -> pd.DataFrame:
    var = pd.DataFrame(
        {"gene_ids": as_text(fields["features/id"][keep], name=f"{path}: id"), "feature_types": GENE_EXPRESSION},
        index=make_index_unique(pd.Index(as_text(fields["features/name"][keep], name=f"{path}: name"))),
    )
    if "features/genome" in fields:
        var["genome"] = as_text(fields["features/genome"][keep], name=f"{path}: genome")
    return var


def _refuse(path: Path, what: str) -> NoReturn:
    msg = f"{str(path)!r} {what}. {_FIX}."
    raise InputError(msg)
