"""One synthetic slide as a 10x Xenium output folder, in the layout of one version of Xenium Onboard Analysis."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spatialsig.datasets._cells_zarr import write_cells_zarr
from spatialsig.datasets._layouts import LAYOUTS, Layout, feature_names, id_array
from spatialsig.datasets._metadata import experiment, gene_panel, metrics
from spatialsig.datasets._morphology import write_morphology_images
from spatialsig.datasets._outlines import Outlines, areas, segment
from spatialsig.datasets._transcripts import write_transcripts

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.datasets._expression import Counts
    from spatialsig.datasets._slide import SyntheticSlide

_OPTIONAL = frozenset().union(*(layout.cell_columns for layout in LAYOUTS.values()))
_METHOD = {
    False: "Segmented by nucleus expansion of 5.0µm",
    True: "Segmented by boundary stain (ATP1A1+CD45+E-Cadherin)",
}
_FEW_CELLS = 20  # whose molecules are written when a caller wants none


def make_cell_ids(rng: np.random.Generator, n: int) -> tuple[NDArray[np.uint32], list[str]]:
    """Ids of ``n`` cells as Xenium makes them: the 32-bit numbers, ascending, and their text (``aaaabcde-1``)."""
    drawn = np.unique(rng.integers(0, 2**32, 2 * n + 10, dtype=np.uint32))
    prefixes = np.sort(rng.permutation(drawn)[:n])
    letters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
    return prefixes, [f"{int(prefix):08x}".translate(letters) + "-1" for prefix in prefixes]


def _write_matrix(path: Path, counts: Counts, cell_ids: list[str]) -> None:
    """CSC over features x barcodes, which is CSR over cells."""
    matrix = counts.matrix.sorted_indices()
    text = {name: np.array(values, dtype="S") for name, values in (
        ("id", counts.ids), ("name", counts.names), ("feature_type", counts.feature_types),
        ("genome", ["Unknown"] * len(counts.ids)),
    )}  # fmt: skip
    with h5py.File(path, "w") as file:
        file.attrs.update({
            "filetype": "matrix", "version": 2, "original_gem_groups": np.array([1]),
            "library_ids": np.array([b"0000000_0000000"]),
        })  # fmt: skip
        group = file.create_group("matrix")
        group.create_dataset("barcodes", data=np.array(cell_ids, dtype="S"), compression="gzip")
        group.create_dataset("data", data=matrix.data.astype(np.int32), compression="gzip", compression_opts=1)
        group.create_dataset("indices", data=matrix.indices.astype(np.int64), compression="gzip", compression_opts=1)
        group.create_dataset("indptr", data=matrix.indptr.astype(np.int64), compression="gzip")
        group.create_dataset("shape", data=np.array(matrix.shape[::-1], dtype=np.int32), compression="gzip")
        features = group.create_group("features")
        features.create_dataset("_all_tag_keys", data=np.array([b"genome"]))
        for name, values in text.items():
            features.create_dataset(name, data=values, compression="gzip")


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


def _write_cells(path: Path, cells: pd.DataFrame, layout: Layout) -> None:
    """Write the columns that the layout has."""
    table = pa.Table.from_pandas(cells, preserve_index=False)
    table = table.set_column(0, "cell_id", id_array(list(cells["cell_id"]), layout))
    names = [name for name in cells if name not in _OPTIONAL or name in layout.cell_columns]
    pq.write_table(table.select(names).replace_schema_metadata(), path, compression="zstd")


def _write_boundaries(path: Path, rings: NDArray[np.float64], cell_ids: list[str], layout: Layout) -> None:
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


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")


def write_bundle(directory: Path, slide: SyntheticSlide) -> list[str]:
    """Write every file of the folder but the H&E; returns the cell ids in row order.

    Parameters
    ----------
    directory
        Folder to fill; it must exist.
    slide
        What to write.
    """
    rng = np.random.default_rng(slide.file_seed)
    layout = LAYOUTS[slide.recipe.version]
    prefixes, cell_ids = make_cell_ids(rng, len(slide.tissue.xy_um))
    if layout.cell_ids == "int32":
        cell_ids = [str(number) for number in range(1, len(cell_ids) + 1)]
    run_id = uuid.UUID(bytes=rng.bytes(16), version=4)
    outlines = segment(slide.nuclei, slide.tissue.xy_um)
    cells = cell_table(slide, outlines, cell_ids)
    _write_json(directory / "experiment.xenium", experiment(slide, cells, run_id, layout))
    _write_json(directory / "gene_panel.json", gene_panel(slide))
    pd.DataFrame([metrics(slide, cells)]).to_csv(directory / "metrics_summary.csv", index=False)
    _write_matrix(directory / "cell_feature_matrix.h5", feature_names(slide.counts, layout), cell_ids)
    _write_cells(directory / "cells.parquet", cells, layout)
    _write_boundaries(directory / "cell_boundaries.parquet", outlines.cell, cell_ids, layout)
    _write_boundaries(directory / "nucleus_boundaries.parquet", outlines.nucleus, cell_ids, layout)
    write_transcripts(
        directory / "transcripts.parquet", rng=rng, counts=slide.counts, custom=slide.panel.custom,
        cell_ids=cell_ids, xy_um=slide.tissue.xy_um, outlines=outlines,
        n_cells=len(cell_ids) if slide.recipe.transcripts else min(_FEW_CELLS, len(cell_ids)),
        layout=layout,
    )  # fmt: skip
    write_cells_zarr(
        directory / "cells.zarr.zip", id_prefixes=prefixes, xy_um=slide.tissue.xy_um, outlines=outlines,
        shape=slide.frames.morphology_shape, pixel_size_um=slide.recipe.pixel_size_um,
        layout=layout,
    )  # fmt: skip
    write_morphology_images(directory, slide, outlines, layout, run_id)
    return cell_ids
