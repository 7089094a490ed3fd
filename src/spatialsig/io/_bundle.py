"""The files of a Xenium bundle: which there are, what they say, and whether they fit each other."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spatialsig import _keys
from spatialsig._checks import check_files
from spatialsig._errors import FileMissingError, InputError, SpatialsigWarning
from spatialsig.io._matrix import as_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SPECS = "experiment.xenium"
MATRIX = "cell_feature_matrix.h5"
CELLS = "cells.parquet"
X_COLUMN, Y_COLUMN, AREA_COLUMN = "x_centroid", "y_centroid", "cell_area"
PIXEL_SIZE_UM = (0.05, 1.0)  # morphology pixels of a microscope; 0.2125 is typical
MAX_WITHOUT_POSITION = 0.01
PARQUET_DAMAGE = (
    OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError, NotImplementedError,
    pa.ArrowException,
)  # fmt: skip
_PANDAS_INDEX = "__index_level_"


@dataclass(frozen=True)
class Cells:
    """Rows of ``cells.parquet`` in the order of the matrix.

    Attributes
    ----------
    frame
        All columns; ``cell_id`` as str, centroids in um; a fresh index.
    without_position
        Number of rows whose centroid is not finite.
    id_kind
        How the file stores ids: ``integer``, ``bytes`` or ``text``.
    in_order
        Whether the file had the order of the matrix.
    """

    frame: pd.DataFrame
    without_position: int
    id_kind: str
    in_order: bool


def check_bundle(path: Path, extra: Sequence[str] = ()) -> None:
    """Raise :class:`FileMissingError` naming all files of the bundle that are needed and not there."""
    if not path.is_dir():
        msg = f"bundle {str(path)!r} is not a directory; give the output directory of one Xenium region."
        raise FileMissingError(msg)
    fix = f"Copy them from the output of the instrument; {SPECS}, {MATRIX} and {CELLS} are always needed"
    fix += f", here also {sorted(extra)}." if extra else ", other files only for what you ask for."
    check_files([path / name for name in (SPECS, MATRIX, CELLS, *extra)], what=f"bundle {str(path)!r}", fix=fix)


def read_specs(path: Path) -> dict[str, Any]:
    """Content of ``experiment.xenium``."""
    file = path / SPECS
    try:
        specs = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{str(file)!r} is no valid JSON ({error}): copy it from the output of the instrument again."
        raise InputError(msg) from error
    if not isinstance(specs, dict):
        msg = f"{str(file)!r} holds a {type(specs).__name__}; wanted fields as `pixel_size`: restore the original file."
        raise InputError(msg)
    return specs


def pixel_size_of(specs: dict[str, Any], *, file: Path) -> float:
    """Micrometres per morphology px, checked."""
    value = specs.get("pixel_size")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and PIXEL_SIZE_UM[0] <= (value or 0) <= PIXEL_SIZE_UM[1]:  # NaN fails as well
        return float(value or 0)
    msg = (
        f"`pixel_size` in {str(file)!r} is {value!r}; wanted um per morphology px, {PIXEL_SIZE_UM[0]} to "
        f"{PIXEL_SIZE_UM[1]} (0.2125 is typical): restore the original file."
    )
    raise InputError(msg)


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one parquet file, with the checksums that it has.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            _check_names(file, parquet.metadata)
            table = parquet.read(columns=None if columns is None else list(columns))
            table.validate(full=True)
            return table
    except InputError:
        raise
    except PARQUET_DAMAGE as error:
        msg = f"{str(file)!r} cannot be read as parquet ({error}): copy it from the output of the instrument again."
        raise InputError(msg) from error


def _check_names(file: Path, metadata: pq.FileMetaData) -> None:
    """The footer names every column twice; a damaged name would pass for another column."""
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    for group in range(metadata.num_row_groups):
        found = [metadata.row_group(group).column(i).path_in_schema for i in range(metadata.num_columns)]
        if found != names:
            wrong = [pair for pair in zip(names, found, strict=True) if pair[0] != pair[1]]
            msg = f"{str(file)!r} names columns in two ways, as {wrong[0]}: copy it from the output of the instrument again."
            raise InputError(msg)


def column_names(file: Path) -> list[str]:
    """Columns of a parquet file; :class:`InputError` if it is damaged."""
    try:
        return list(pq.read_schema(file).names)
    except PARQUET_DAMAGE as error:
        msg = f"{str(file)!r} cannot be read as parquet ({error}): copy it from the output of the instrument again."
        raise InputError(msg) from error


def check_columns(file: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise :class:`InputError` naming the columns that a parquet file lacks."""
    missing = [name for name in wanted if name not in found]
    if missing:
        msg = f"{str(file)!r} has no column(s) {missing}; it has {list(found)}. Use the original file."
        raise InputError(msg)


def read_cells(path: Path, cell_ids: NDArray[np.str_]) -> Cells:
    """Read ``cells.parquet`` in the order of the matrix.

    Parameters
    ----------
    path
        Bundle.
    cell_ids
        Barcodes of the matrix.
    """
    file = path / CELLS
    table = read_parquet(file)
    check_columns(file, table.column_names, (_keys.CELL_ID, X_COLUMN, Y_COLUMN))
    try:
        cells = table.to_pandas(ignore_metadata=True)
    except PARQUET_DAMAGE as error:
        msg = f"{str(file)!r} cannot be read as parquet ({error}): copy it from the output of the instrument again."
        raise InputError(msg) from error
    cells = cells.drop(columns=[name for name in cells if str(name).startswith(_PANDAS_INDEX)])
    text = cells[[X_COLUMN, Y_COLUMN]].select_dtypes(exclude="number").columns.tolist()
    if text:
        msg = f"column(s) {text} of {str(file)!r} hold no numbers; wanted um. Use the original file."
        raise InputError(msg)
    cells[_keys.CELL_ID] = as_text(cells[_keys.CELL_ID], name=f"{file}: cell_id")
    found = cells[_keys.CELL_ID].to_numpy(str)
    _check_ids(path, found, cell_ids)
    cells = cells.set_index(_keys.CELL_ID, drop=False).loc[cell_ids].reset_index(drop=True)
    kind = _id_kind(table.schema.field(_keys.CELL_ID).type)
    return Cells(cells, _without_position(file, cells), kind, bool(np.array_equal(found, cell_ids)))


def _id_kind(dtype: pa.DataType) -> str:
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return "integer"
    text = pa.types.is_string(dtype) or pa.types.is_large_string(dtype)
    return "text" if text else "bytes"


def _without_position(file: Path, cells: pd.DataFrame) -> int:
    lost = int((~np.isfinite(cells[[X_COLUMN, Y_COLUMN]].to_numpy(float))).any(axis=1).sum())
    if lost > MAX_WITHOUT_POSITION * len(cells):
        msg = (
            f"{lost} of {len(cells)} cells in {str(file)!r} have no finite centroid; at most "
            f"{MAX_WITHOUT_POSITION:.0%} may be dropped: check how the file was made."
        )
        raise InputError(msg)
    if lost:
        msg = f"{lost} of {len(cells)} cells in {str(file)!r} have no finite centroid and are left out."
        warnings.warn(msg, SpatialsigWarning, stacklevel=5)
    return lost


def _check_ids(path: Path, in_cells: NDArray[np.str_], in_matrix: NDArray[np.str_]) -> None:
    for name, ids in ((CELLS, in_cells), (MATRIX, in_matrix)):
        repeated = pd.Index(ids)[pd.Index(ids).duplicated()]
        if len(repeated):
            msg = f"{str(path / name)!r} lists {len(repeated)} cell ids more than once, as {repeated[0]!r}: use one bundle."
            raise InputError(msg)
    if len(in_matrix) == 0:
        msg = f"{str(path / MATRIX)!r} holds no cells; nothing can be read from this bundle."
        raise InputError(msg)
    only_matrix, only_cells = np.setdiff1d(in_matrix, in_cells), np.setdiff1d(in_cells, in_matrix)
    if len(only_matrix) or len(only_cells):
        examples = [*only_matrix[:2].tolist(), *only_cells[:2].tolist()]
        msg = (
            f"bundle {str(path)!r}: {len(only_matrix)} cells of {MATRIX} are not in {CELLS} and {len(only_cells)} the "
            f"other way round, as {examples}; wanted the same cells in both: take both files from one bundle."
        )
        raise InputError(msg)


def check_counts(path: Path, cells: pd.DataFrame, per_cell: dict[str, NDArray[np.float64]]) -> None:
    """Warn where the counts that ``cells.parquet`` sums up are not those of the matrix.

    Parameters
    ----------
    path
        Bundle.
    cells
        Frame of :class:`Cells`.
    per_cell
        Column of ``cells.parquet`` -> sum of the matrix per cell.
    """
    wrong = {}
    for column in [column for column in per_cell if column in cells and cells[column].dtype.kind in "iuf"]:
        differ = int((cells[column].to_numpy(float) != per_cell[column]).sum())
        if differ:
            wrong[column] = differ
    if wrong:
        listed = ", ".join(f"{column} for {count}" for column, count in wrong.items())
        msg = (
            f"bundle {str(path)!r}: {CELLS} and {MATRIX} do not agree on {listed} of {len(cells)} cells: are both files "
            f"of one run? The counts are those of {MATRIX}."
        )
        warnings.warn(msg, SpatialsigWarning, stacklevel=4)
