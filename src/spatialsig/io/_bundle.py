"""The files of a Xenium bundle: which there are, what they say, and whether they fit each other."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spatialsig import _keys
from spatialsig._checks import check_files
from spatialsig._errors import AlignmentError, FileMissingError, InputError
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
_HE_PATTERNS = ("*he_image.ome.tif", "*he_image.ome.tiff", "*he_image.tif", "*he_image.tiff")


def check_bundle(path: Path, extra: Sequence[str] = ()) -> None:
    """Raise :class:`FileMissingError` naming all files of the bundle that are needed and not there."""
    if not path.is_dir():
        msg = f"bundle {str(path)!r} is not a directory; give the output directory of one Xenium region."
        raise FileMissingError(msg)
    fix = f"Copy them from the output of the instrument; {SPECS}, {MATRIX} and {CELLS} are always needed"
    fix += f", here also {sorted(extra)}." if extra else ", other files only for what you ask for."
    check_files([path / name for name in (SPECS, MATRIX, CELLS, *extra)], what=f"bundle {str(path)!r}", fix=fix)


def read_pixel_size(path: Path) -> float:
    """Micrometres per morphology px, from ``experiment.xenium``."""
    file = path / SPECS
    try:
        specs: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{str(file)!r} is no valid JSON ({error}): copy it from the output of the instrument again."
        raise InputError(msg) from error
    value = specs.get("pixel_size") if isinstance(specs, dict) else None
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not PIXEL_SIZE_UM[0] <= float(value or 0) <= PIXEL_SIZE_UM[1]:
        msg = (
            f"`pixel_size` in {str(file)!r} is {value!r}; wanted um per morphology px, {PIXEL_SIZE_UM[0]} to "
            f"{PIXEL_SIZE_UM[1]} (0.2125 is typical): restore the original file."
        )
        raise InputError(msg)
    return float(value or 0)


def read_cells(path: Path, cell_ids: NDArray[np.str_]) -> tuple[pd.DataFrame, int]:
    """Read ``cells.parquet`` in the order of the matrix.

    Parameters
    ----------
    path
        Bundle.
    cell_ids
        Barcodes of the matrix.

    Returns
    -------
    Frame of all columns (``cell_id`` as str, centroids in um), one row per barcode and in their order, and the number
    of rows whose centroid is not finite.
    """
    file = path / CELLS
    try:
        cells = pq.read_table(file).to_pandas()
    except (OSError, ValueError, pa.ArrowException) as error:
        msg = f"{str(file)!r} cannot be read as parquet ({error}): copy it from the output of the instrument again."
        raise InputError(msg) from error
    missing = [name for name in (_keys.CELL_ID, X_COLUMN, Y_COLUMN) if name not in cells]
    if missing:
        msg = f"{str(file)!r} has no column(s) {missing}; it has {cells.columns.tolist()}. Use the original file."
        raise InputError(msg)
    text = cells[[X_COLUMN, Y_COLUMN]].select_dtypes(exclude="number").columns.tolist()
    if text:
        msg = f"column(s) {text} of {str(file)!r} hold no numbers; wanted um. Use the original file."
        raise InputError(msg)
    cells[_keys.CELL_ID] = as_text(cells[_keys.CELL_ID])
    _check_ids(path, cells[_keys.CELL_ID].to_numpy(str), cell_ids)
    cells = cells.set_index(_keys.CELL_ID, drop=False).loc[cell_ids].reset_index(drop=True)
    lost = int((~np.isfinite(cells[[X_COLUMN, Y_COLUMN]].to_numpy(float))).any(axis=1).sum())
    if lost > MAX_WITHOUT_POSITION * len(cells):
        msg = (
            f"{lost} of {len(cells)} cells in {str(file)!r} have no finite centroid; at most "
            f"{MAX_WITHOUT_POSITION:.0%} may be dropped: check how the file was made."
        )
        raise InputError(msg)
    return cells, lost


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


def find_he(path: Path) -> Path | None:
    """H&E image beside the files of a bundle, or None.

    Raises
    ------
    InputError
        If there is more than one.
    """
    found = sorted({file for pattern in _HE_PATTERNS for file in path.glob(pattern)})
    if len(found) > 1:
        msg = (
            f"bundle {str(path)!r} holds {len(found)} H&E images: {[file.name for file in found]}; choose one with "
            f"`he_image=`."
        )
        raise InputError(msg)
    return found[0] if found else None


def find_alignment(bundle: Path, he_image: Path) -> Path:
    """Matrix that belongs to an H&E image: of the same name, else the only one beside it or in the bundle.

    Raises
    ------
    AlignmentError
        If there is none, or more than one could be meant.
    """
    stem = he_image.name.split(".")[0]
    exact = he_image.with_name(f"{stem}alignment.csv")
    if exact.exists():
        return exact
    found = sorted({file for place in (he_image.parent, bundle) for file in place.glob("*imagealignment.csv")})
    if len(found) == 1:
        return found[0]
    fix = "pass `he_alignment=` (the *_he_imagealignment.csv from Xenium Explorer or the 10x download page)"
    if found:
        msg = f"H&E image {str(he_image)!r} has {len(found)} alignments: {[file.name for file in found]}; {fix}."
    else:
        msg = f"H&E image {str(he_image)!r} has no alignment; wanted {exact.name!r} beside it: {fix}."
    raise AlignmentError(msg)
