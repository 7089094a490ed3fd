"""How much a bundle holds, from the headers of its files and the places of its cells: no count is read.

Floor 7, above evaluation. Used by pipeline/sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spatialsig.io.xenium.atera import read_atera_size
from spatialsig.io.xenium.bundle import ATERA, XENIUM, check_bundle, form_of, pixel_size_of, read_specs
from spatialsig.io.xenium.cells import X_COLUMN, Y_COLUMN
from spatialsig.io.xenium.columns import check_columns, column_names, read_parquet
from spatialsig.io.xenium.matrix import read_h5_size

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SQUARE_UM = 100.0  # edge of the squares in which cells are looked for


@dataclass(frozen=True)
class BundleSize:
    """Cells, features and counts that are not 0 of a bundle, and the area with cells."""

    n_cells: int
    n_features: int
    n_values: int
    tissue_mm2: float


def bundle_size(path: Path) -> BundleSize:
    """Measure a bundle; errors as :func:`spatialsig.io.read_xenium` gives them for what is read here."""
    form = form_of(path)
    check_bundle(path, form)
    pixel_size_of(read_specs(path / form.specs), file=path / form.specs)  # which an import needs
    if form is ATERA:
        n_cells, n_features, n_values, xy = read_atera_size(path / form.matrix)
    else:
        n_cells, n_features, n_values = read_h5_size(path / form.matrix)
        file = path / XENIUM.cells
        check_columns(file, column_names(file), (X_COLUMN, Y_COLUMN))
        table = read_parquet(file, [X_COLUMN, Y_COLUMN])
        xy = np.stack([table[name].to_numpy() for name in (X_COLUMN, Y_COLUMN)], axis=1).astype(np.float64)
    return BundleSize(n_cells, n_features, n_values, _covered_mm2(xy))


def _covered_mm2(xy_um: NDArray[np.float64]) -> float:
    """Area of the squares that hold a cell."""
    placed = xy_um[np.isfinite(xy_um).all(axis=1)]
    squares = np.unique(np.floor(placed / SQUARE_UM).astype(np.int64), axis=0)
    return len(squares) * (SQUARE_UM / 1000) ** 2
