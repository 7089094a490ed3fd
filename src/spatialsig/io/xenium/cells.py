"""Cells read in the order of the matrix, and their counts compared with the matrix.

Floor 7, above evaluation. Used by io/_xenium, io/xenium/atera, io/xenium/size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._checks import warn
from spatialsig.errors import InputError
from spatialsig.io.xenium.bundle import XENIUM
from spatialsig.io.xenium.columns import as_text, check_columns, id_kind, naming_parquet, read_parquet

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.io.xenium.bundle import Form

X_COLUMN, Y_COLUMN, AREA_COLUMN = "x_centroid", "y_centroid", "cell_area"
NUMBERS = (X_COLUMN, Y_COLUMN, AREA_COLUMN, "nucleus_area", "nucleus_count")
MAX_WITHOUT_POSITION = 0.01
_PANDAS_INDEX = "__index_level_"


@dataclass(frozen=True)
class Cells:
    """Rows of the table of cells in the order of the matrix."""

    frame: pd.DataFrame  # all columns; ``cell_id`` as str, centroids in um; a fresh index
    without_position: int  # rows whose centroid is not finite
    id_kind: str  # how the file stores ids: ``integer``, ``bytes`` or ``text``
    in_order: bool  # whether the file had the order of the matrix


def read_cells(path: Path, cell_ids: NDArray[np.str_]) -> Cells:
    """Read ``cells.parquet`` of a bundle in the order of ``cell_ids``, the barcodes of the matrix."""
    file = path / XENIUM.cells
    table = read_parquet(file)
    check_columns(file, table.column_names, (_keys.CELL_ID, X_COLUMN, Y_COLUMN))
    with naming_parquet(file):
        cells = table.to_pandas(ignore_metadata=True)
    cells = cells.drop(columns=[name for name in cells if str(name).startswith(_PANDAS_INDEX)])
    text = [name for name in NUMBERS if name in cells and not is_numeric(cells[name])]
    if text:
        msg = f"column(s) {text} of {str(file)!r} hold no numbers. Use the original file."
        raise InputError(msg)
    cells[_keys.CELL_ID] = as_text(cells[_keys.CELL_ID], name=f"{file}: cell_id")
    ids_in_file = cells[_keys.CELL_ID].to_numpy(str)
    _check_ids(path, ids_in_file, cell_ids)
    cells = cells.set_index(_keys.CELL_ID, drop=False).loc[cell_ids].reset_index(drop=True)
    kind = id_kind(table.schema.field(_keys.CELL_ID).type)
    return Cells(cells, count_unplaced(file, cells), kind, bool(np.array_equal(ids_in_file, cell_ids)))


def is_numeric(values: pd.Series[Any]) -> bool:
    """Whether a column holds numbers, or nothing at all."""
    return pd.api.types.is_numeric_dtype(values) or bool(values.isna().all())


def count_unplaced(file: Path, cells: pd.DataFrame) -> int:
    """Count the cells without a finite centroid, with a warning; :class:`InputError` if they are more than 1 %."""
    lost = int((~np.isfinite(cells[[X_COLUMN, Y_COLUMN]].to_numpy(float))).any(axis=1).sum())
    if lost > MAX_WITHOUT_POSITION * len(cells):
        msg = (
            f"{lost} of {len(cells)} cells in {str(file)!r} have no finite centroid; at most "
            f"{MAX_WITHOUT_POSITION:.0%} may be dropped: check how the file was made."
        )
        raise InputError(msg)
    if lost:
        msg = f"{lost} of {len(cells)} cells in {str(file)!r} have no finite centroid and are left out."
        warn(msg)
    return lost


def check_unique(file: Path, ids: NDArray[np.str_]) -> None:
    """Raise :class:`InputError` if a file lists a cell more than once, or none."""
    repeated = pd.Index(ids)[pd.Index(ids).duplicated()]
    if len(repeated):
        msg = f"{str(file)!r} lists {len(repeated)} cell ids more than once, as {repeated[0]!r}: use one bundle."
        raise InputError(msg)
    if len(ids) == 0:
        msg = f"{str(file)!r} holds no cells; nothing can be read from this bundle."
        raise InputError(msg)


def _check_ids(path: Path, in_cells: NDArray[np.str_], in_matrix: NDArray[np.str_]) -> None:
    check_unique(path / XENIUM.matrix, in_matrix)
    check_unique(path / XENIUM.cells, in_cells)
    only_matrix, only_cells = np.setdiff1d(in_matrix, in_cells), np.setdiff1d(in_cells, in_matrix)
    if len(only_matrix) or len(only_cells):
        examples = [*only_matrix[:2].tolist(), *only_cells[:2].tolist()]
        msg = (
            f"bundle {str(path)!r}: {len(only_matrix)} cells of {XENIUM.matrix} are not in {XENIUM.cells} and {len(only_cells)} the "
            f"other way round, as {examples}; wanted the same cells in both: take both files from one bundle."
        )
        raise InputError(msg)


def check_counts(path: Path, form: Form, cells: pd.DataFrame, per_cell: dict[str, NDArray[np.float64]]) -> None:
    """Warn where the counts that the table of cells sums up are not those of the matrix, ``per_cell``, by column."""
    wrong = {}
    for column in [column for column in per_cell if column in cells and cells[column].dtype.kind in "iuf"]:
        differ = int((cells[column].to_numpy(float) != per_cell[column]).sum())
        if differ:
            wrong[column] = differ
    if wrong:
        listed = ", ".join(f"{column} for {count}" for column, count in wrong.items())
        msg = (
            f"bundle {str(path)!r}: {form.cells} and the counts in {form.matrix} do not agree on {listed} of {len(cells)} "
            f"cells: are they of one run? The counts are those of {form.matrix}."
        )
        warn(msg)
