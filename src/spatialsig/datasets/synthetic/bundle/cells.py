"""Cells of a run: their segmentation as polygons and rasters, ``cells.parquet`` and the tables of outlines.

Floor 8, above io, pl, pp, tl. Used by 5 modules of datasets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.spatial import cKDTree

from spatialsig.datasets.synthetic.bundle.layouts import LAYOUTS, Layout, id_array

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.slide import SyntheticSlide
    from spatialsig.datasets.synthetic.tissue.expression import Counts
    from spatialsig.datasets.synthetic.tissue.nuclei import Nuclei

_EXPANSION_UM = 5.0
_NEIGHBOURS = 10
_SHARE_OF_WAY = 0.97  # polygons stop short of the line halfway to a neighbour, so that they never touch
_OPTIONAL = frozenset().union(*(layout.cell_columns for layout in LAYOUTS.values()))
_METHOD = {
    False: "Segmented by nucleus expansion of 5.0µm",
    True: "Segmented by boundary stain (ATP1A1+CD45+E-Cadherin)",
}


@dataclass(frozen=True)
class Outlines:
    """Polygons of all cells, open rings ``(n_cells, N_VERTICES, 2)`` in um, absolute; vertex k of both on one ray."""

    nucleus: NDArray[np.float64]
    cell: NDArray[np.float64]


def segment(nuclei: Nuclei, xy_um: NDArray[np.float64]) -> Outlines:
    """Nuclei as drawn, and cells as their expansion by 5 um, both kept on their side of every neighbour."""
    spokes = nuclei.outlines_um()
    radius = np.linalg.norm(spokes, axis=-1)
    rays = spokes / radius[..., None]
    limit = np.full_like(radius, np.inf)
    k = min(_NEIGHBOURS + 1, len(xy_um))
    neighbours = np.atleast_2d(cKDTree(xy_um).query(xy_um, k=k)[1].reshape(len(xy_um), -1))[:, 1:]
    for other in neighbours.T:
        towards = xy_um[other] - xy_um
        along = np.einsum("nvd,nd->nv", rays, towards)
        halfway = 0.5 * (towards**2).sum(axis=1)[:, None] / np.where(along > 1e-9, along, np.nan)
        limit = np.fmin(limit, _SHARE_OF_WAY * halfway)
    centre = xy_um[:, None]
    return Outlines(
        nucleus=centre + rays * np.minimum(radius, limit)[..., None],
        cell=centre + rays * np.minimum(radius + _EXPANSION_UM, limit)[..., None],
    )


def areas(rings: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of each ring ``(n, n_vertices, 2)``, in the square of its unit."""
    x, y = rings[..., 0], rings[..., 1]
    twice: NDArray[np.float64] = (x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)
    return np.abs(twice) / 2


@numba.njit(cache=True, nogil=True)
def _fill_ring(band: NDArray[Any], row0: int, ring: NDArray[np.float64], value: float) -> None:
    height, width = band.shape
    n = ring.shape[0]
    crossings = np.empty(n, np.float64)
    first = max(int(np.ceil(ring[:, 1].min() - 0.5)), row0)
    last = min(int(np.floor(ring[:, 1].max() - 0.5)), row0 + height - 1)
    for row in range(first, last + 1):
        y = row + 0.5
        count = 0
        for k in range(n):
            x0, y0 = ring[k]
            x1, y1 = ring[(k + 1) % n]
            if (y0 <= y) != (y1 <= y):
                # kept in order; there are hardly ever more than two
                x = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
                place = count
                while place > 0 and crossings[place - 1] > x:
                    crossings[place] = crossings[place - 1]
                    place -= 1
                crossings[place] = x
                count += 1
        for pair in range(0, count - 1, 2):
            start = max(int(np.ceil(crossings[pair] - 0.5)), 0)
            stop = min(int(np.floor(crossings[pair + 1] - 0.5)), width - 1)
            for col in range(start, stop + 1):
                band[row - row0, col] = value


@numba.njit(cache=True, nogil=True)
def fill_rings(band: NDArray[Any], row0: int, rings: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    """Fill every ring with its value on rows ``row0 ...`` of an image, pixels whose centre lies inside.

    ``band`` may be of any number type, ``rings`` is ``(n, n_vertices, 2)`` px.
    """
    bottom = row0 + band.shape[0]
    for index in range(rings.shape[0]):
        if rings[index, :, 1].max() >= row0 and rings[index, :, 1].min() <= bottom:
            _fill_ring(band, row0, rings[index], values[index])


def make_cell_ids(rng: np.random.Generator, n: int) -> tuple[NDArray[np.uint32], list[str]]:
    """Ids of ``n`` cells as Xenium makes them: the 32-bit numbers, ascending, and their text (``aaaabcde-1``)."""
    drawn = np.unique(rng.integers(0, 2**32, 2 * n + 10, dtype=np.uint32))
    prefixes = np.sort(rng.permutation(drawn)[:n])
    letters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
    return prefixes, [f"{int(prefix):08x}".translate(letters) + "-1" for prefix in prefixes]


def _count_columns(counts: Counts) -> dict[str, NDArray[np.int64]]:
    kinds = np.array(counts.feature_types)
    columns = {
        "transcript_counts": "Gene Expression",
        "control_probe_counts": "Negative Control Probe",
        "genomic_control_counts": "Genomic Control",
        "control_codeword_counts": "Negative Control Codeword",
        "unassigned_codeword_counts": "Unassigned Codeword",
        "deprecated_codeword_counts": "Deprecated Codeword",
    }
    totals = {
        column: np.asarray(counts.matrix[:, np.flatnonzero(kinds == kind)].sum(axis=1)).ravel().astype(np.int64)
        for column, kind in columns.items()
    }
    return totals | {"total_counts": sum(totals.values(), np.zeros(counts.matrix.shape[0], np.int64))}


def cell_table(slide: SyntheticSlide, outlines: Outlines, cell_ids: list[str]) -> pd.DataFrame:
    """``cells.parquet``, one row per cell in the order of the matrix."""
    n = len(cell_ids)
    return pd.DataFrame(
        {
            "cell_id": cell_ids,
            "x_centroid": slide.tissue.xy_um[:, 0],
            "y_centroid": slide.tissue.xy_um[:, 1],
            **_count_columns(slide.counts),
            "cell_area": areas(outlines.cell),
            "nucleus_area": areas(outlines.nucleus),
            "nucleus_count": np.ones(n, dtype=np.int64),
            "segmentation_method": [_METHOD[slide.recipe.stains > 1]] * n,
        }
    )


def write_cells(path: Path, cells: pd.DataFrame, layout: Layout) -> None:
    """Write the columns that the layout has."""
    table = pa.Table.from_pandas(cells, preserve_index=False)
    table = table.set_column(0, "cell_id", id_array(list(cells["cell_id"]), layout))
    names = [name for name in cells if name not in _OPTIONAL or name in layout.cell_columns]
    pq.write_table(table.select(names).replace_schema_metadata(), path, compression="zstd")


def write_boundaries(path: Path, rings: NDArray[np.float64], cell_ids: list[str], layout: Layout) -> None:
    """Write outlines ``(n_cells, n_vertices, 2)`` um as closed rings, one row per vertex."""
    closed = np.concatenate([rings, rings[:, :1]], axis=1).astype(np.float32)
    owner = np.repeat(np.arange(len(cell_ids)), closed.shape[1])
    columns = {
        "cell_id": id_array(cell_ids, layout).take(pa.array(owner)),
        "vertex_x": pa.array(closed[..., 0].ravel()),
        "vertex_y": pa.array(closed[..., 1].ravel()),
    }
    if layout.label_id:
        columns["label_id"] = pa.array(owner + 1)
    pq.write_table(pa.table(columns), path, compression="zstd")
