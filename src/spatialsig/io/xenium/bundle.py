"""Names of a bundle's files, and the settings of its experiment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spatialsig._checks import check_files
from spatialsig.errors import FileMissingError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


SPECS = "experiment.xenium"
MATRIX = "cell_feature_matrix.h5"
CELLS = "cells.parquet"
PIXEL_SIZE_UM = (0.05, 1.0)  # morphology pixels of a microscope; 0.2125 is typical


def check_bundle(path: Path, extra: Sequence[str] = ()) -> None:
    """Raise :class:`FileMissingError` naming all files of the bundle that are needed and not there."""
    if not path.is_dir():
        msg = f"bundle {str(path)!r} is not a directory; give the output directory of one Xenium region."
        raise FileMissingError(msg)
    fix = f"Copy them from the output of the instrument; {SPECS}, {MATRIX} and {CELLS} are always needed"
    fix += f", here also {sorted(extra)}." if extra else ", other files only for what you ask for."
    check_files([path / name for name in (SPECS, MATRIX, CELLS, *extra)], what=f"bundle {str(path)!r}", fix=fix)


def read_specs(path: Path) -> dict[str, Any]:
    """Read ``experiment.xenium`` into its fields."""
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
    """Take the micrometres per morphology px from the fields of ``experiment.xenium``, checked."""
    value = specs.get("pixel_size")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and PIXEL_SIZE_UM[0] <= (value or 0) <= PIXEL_SIZE_UM[1]:  # NaN fails as well
        return float(value or 0)
    msg = (
        f"`pixel_size` in {str(file)!r} is {value!r}; wanted um per morphology px, {PIXEL_SIZE_UM[0]} to "
        f"{PIXEL_SIZE_UM[1]} (0.2125 is typical): restore the original file."
    )
    raise InputError(msg)
