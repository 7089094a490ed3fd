"""``cells.parquet`` and the outlines of the cells, in the layout of one version of the Xenium software."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spatialsig.datasets.synthetic.bundle.layouts import LAYOUTS, Layout, id_array
from spatialsig.datasets.synthetic.bundle.outlines import Outlines, areas

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.slide import SyntheticSlide
    from spatialsig.datasets.synthetic.tissue.expression import Counts

_OPTIONAL = frozenset().union(*(layout.cell_columns for layout in LAYOUTS.values()))
_METHOD = {
    False: "Segmented by nucleus expansion of 5.0µm",
    True: "Segmented by boundary stain (ATP1A1+CD45+E-Cadherin)",
}


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
