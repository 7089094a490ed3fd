"""``transcripts.parquet``: one row per decoded molecule, consistent with the count matrix.

Floor 8, above io, pl, pp, tl. Used by datasets/synthetic/bundle/write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from spatialsig.datasets.synthetic.bundle.layouts import feature_names, id_array, text_type

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.bundle.cells import Outlines
    from spatialsig.datasets.synthetic.bundle.layouts import Layout
    from spatialsig.datasets.synthetic.tissue.expression import Counts

_FIRST_ID = 281474976710656
_CELLS_PER_GROUP = 2_000
_UNASSIGNED_SHARE = 0.08
_CATEGORY = {
    "Negative Control Probe": "negative_control_probe",
    "Negative Control Codeword": "negative_control_codeword",
    "Unassigned Codeword": "unassigned_codeword",
}
# columns with few values; a dictionary of the others would be as long as they are
_REPEATED = (
    "cell_id",
    "overlaps_nucleus",
    "feature_name",
    "fov_name",
    "codeword_index",
    "codeword_category",
    "is_gene",
)
_NO_CELL = {"int32": "-1", "bytes": "UNASSIGNED", "str": "UNASSIGNED"}


class _Writer:
    """Turns molecules into rows of the file."""

    def __init__(
        self, rng: np.random.Generator, counts: Counts, custom: NDArray[np.bool_], cell_ids: list[str], layout: Layout
    ):
        self.rng = rng
        self.columns = layout.molecule_columns
        self.text = text_type(layout)
        self.cell_ids = id_array([*cell_ids, _NO_CELL[layout.cell_ids]], layout)
        self.names = pa.array(feature_names(counts, layout).names).cast(self.text)
        gene = ["custom_gene" if own else "predesigned_gene" for own in custom]
        kinds = gene + [_CATEGORY[kind] for kind in counts.feature_types[counts.n_genes :]]
        self.categories = pa.array(kinds).cast(self.text)
        self.n_genes = counts.n_genes
        self.next_id = _FIRST_ID

    def table(
        self, cell: NDArray[np.int64], feature: NDArray[np.int64], xy_um: NDArray[np.float64],
        distance_um: NDArray[np.float64], *, low_quality: bool = False,
    ) -> pa.Table:  # fmt: skip
        """Rows for molecules of feature ``feature`` at ``xy_um``, in the columns of the layout."""
        n = len(cell)
        ids = np.arange(self.next_id, self.next_id + n, dtype=np.uint64)
        self.next_id += n
        quality = self.rng.uniform(0, 20, n) if low_quality else np.minimum(self.rng.uniform(20, 60, n), 40)
        taken = pa.array(feature.astype(np.int32))
        rows = {
            "transcript_id": pa.array(ids),
            "cell_id": self.cell_ids.take(pa.array(cell)),
            "overlaps_nucleus": pa.array((distance_um == 0).astype(np.uint8)),
            "feature_name": self.names.take(taken),
            "x_location": pa.array(xy_um[:, 0].astype(np.float32)),
            "y_location": pa.array(xy_um[:, 1].astype(np.float32)),
            "z_location": pa.array(self.rng.normal(15, 3, n).astype(np.float32)),
            "qv": pa.array(quality.astype(np.float32)),
            "fov_name": pa.repeat(pa.scalar("A1"), n).cast(self.text),
            "nucleus_distance": pa.array(distance_um.astype(np.float32)),
            "codeword_index": taken,
            "codeword_category": self.categories.take(taken),
            "is_gene": pa.array(feature < self.n_genes),
        }
        return pa.table({name: rows[name] for name in self.columns})


def _scatter(
    rng: np.random.Generator, cell: NDArray[np.int64], xy_um: NDArray[np.float64], outlines: Outlines
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places inside the cells ``(n, 2)`` um, and their distance to the nucleus (0 inside)."""
    n_vertices = outlines.cell.shape[1]
    first = rng.integers(n_vertices, size=len(cell))
    mix = rng.random(len(cell))[:, None]
    out = np.sqrt(rng.random(len(cell)))[:, None]
    after = (first + 1) % n_vertices
    ends = []
    for rings in (outlines.cell, outlines.nucleus):
        ends.append((1 - mix) * rings[cell, first] + mix * rings[cell, after] - xy_um[cell])
    offset = out * ends[0]
    beyond = np.linalg.norm(offset, axis=1) - np.linalg.norm(ends[1], axis=1)
    return xy_um[cell] + offset, beyond.clip(0.0)


def _tables(
    writer: _Writer, counts: Counts, xy_um: NDArray[np.float64], outlines: Outlines, n_cells: int
) -> Iterator[pa.Table]:
    for start in range(0, n_cells, _CELLS_PER_GROUP):
        block = counts.matrix[start : min(start + _CELLS_PER_GROUP, n_cells)].tocoo()
        cell = np.repeat(block.row.astype(np.int64) + start, block.data)
        feature = np.repeat(block.col.astype(np.int64), block.data)
        places, distance = _scatter(writer.rng, cell, xy_um, outlines)
        yield writer.table(cell, feature, places, distance)
        lost = writer.rng.random(len(cell)) < _UNASSIGNED_SHARE
        away = places[lost] + writer.rng.normal(0, 8, (int(lost.sum()), 2))
        nowhere = np.full(len(away), len(writer.cell_ids) - 1)
        yield writer.table(nowhere, feature[lost], away, np.full(len(away), 6.0), low_quality=True)


def write_transcripts(
    path: Path, *, rng: np.random.Generator, counts: Counts, custom: NDArray[np.bool_], cell_ids: list[str],
    xy_um: NDArray[np.float64], outlines: Outlines, n_cells: int, layout: Layout,
) -> None:  # fmt: skip
    """Write the molecules of the first ``n_cells`` cells, and some that belong to none."""
    writer = _Writer(rng, counts, custom, cell_ids, layout)
    nothing, nowhere = np.empty(0, np.int64), np.empty((0, 2))
    schema = writer.table(nothing, nothing, nowhere, nowhere[:, 0]).schema
    repeated = [name for name in schema.names if name in _REPEATED]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated) as file:
        for table in _tables(writer, counts, xy_um, outlines, n_cells):
            file.write_table(table)
