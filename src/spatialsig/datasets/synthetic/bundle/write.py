"""One synthetic slide as a 10x output folder, in the layout of one version of the software of Xenium or Atera.

Floor 8, above io, pl, pp, tl. Used by datasets/_xenium.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from spatialsig.datasets.synthetic.bundle.cells import (
    Outlines,
    cell_table,
    make_cell_ids,
    segment,
    write_boundaries,
    write_cells,
)
from spatialsig.datasets.synthetic.bundle.cells_zarr import write_cells_zarr
from spatialsig.datasets.synthetic.bundle.layouts import LAYOUTS, feature_names
from spatialsig.datasets.synthetic.bundle.matrix_zarr import write_matrix_zarr
from spatialsig.datasets.synthetic.bundle.metadata import atera_experiment, experiment, gene_panel, metrics
from spatialsig.datasets.synthetic.bundle.morphology import write_morphology_images
from spatialsig.datasets.synthetic.bundle.transcripts import write_transcripts

if TYPE_CHECKING:
    from pathlib import Path

    from spatialsig.datasets.synthetic.bundle.layouts import Layout
    from spatialsig.datasets.synthetic.slide import SyntheticSlide
    from spatialsig.datasets.synthetic.tissue.expression import Counts

_FEW_CELLS = 20  # whose molecules are written when a caller wants none


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


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")


def write_bundle(directory: Path, slide: SyntheticSlide) -> list[str]:
    """Write every file of a folder that exists but the H&E; returns the cell ids in row order."""
    rng = np.random.default_rng(slide.file_seed)
    layout = LAYOUTS[slide.recipe.version]
    prefixes, cell_ids = make_cell_ids(rng, len(slide.tissue.xy_um))
    if layout.cell_ids == "int32":
        cell_ids = [str(number) for number in range(1, len(cell_ids) + 1)]
    run_id = uuid.UUID(bytes=rng.bytes(16), version=4)
    outlines = segment(slide.nuclei, slide.tissue.xy_um)
    cells = cell_table(slide, outlines, cell_ids)
    if layout.tables == "zarr":
        _write_json(directory / "experiment.spatial", atera_experiment(slide, cells, layout))
        _write_json(directory / "panel_config.json", gene_panel(slide))
        write_matrix_zarr(directory / "cell_feature_matrix.zarr.zip", slide.counts, cells, slide.tissue.cell_type)
    else:
        _write_tables(directory, slide, cells, outlines, rng, run_id, layout)
    rows = np.arange(len(cells)) if layout.tables == "files" else rng.permutation(len(cells))  # Atera has two orders
    write_cells_zarr(
        directory / "cells.zarr.zip", id_prefixes=prefixes[rows], xy_um=slide.tissue.xy_um[rows],
        outlines=Outlines(outlines.nucleus[rows], outlines.cell[rows]), shape=slide.frames.morphology_shape,
        pixel_size_um=slide.recipe.pixel_size_um, layout=layout, stained=slide.recipe.stains > 1,
    )  # fmt: skip
    write_morphology_images(directory, slide, outlines, layout, run_id)
    return cell_ids


def _write_tables(
    directory: Path, slide: SyntheticSlide, cells: pd.DataFrame, outlines: Outlines, rng: np.random.Generator,
    run_id: uuid.UUID, layout: Layout,
) -> None:  # fmt: skip
    """Write the descriptive files, the counts and the tables of cells, outlines and molecules as HDF5 and parquet."""
    cell_ids = cells["cell_id"].tolist()
    _write_json(directory / "experiment.xenium", experiment(slide, cells, run_id, layout))
    _write_json(directory / "gene_panel.json", gene_panel(slide))
    pd.DataFrame([metrics(slide, cells)]).to_csv(directory / "metrics_summary.csv", index=False)
    _write_matrix(directory / "cell_feature_matrix.h5", feature_names(slide.counts, layout), cell_ids)
    write_cells(directory / "cells.parquet", cells, layout)
    write_boundaries(directory / "cell_boundaries.parquet", outlines.cell, cell_ids, layout)
    write_boundaries(directory / "nucleus_boundaries.parquet", outlines.nucleus, cell_ids, layout)
    write_transcripts(
        directory / "transcripts.parquet", rng=rng, counts=slide.counts, custom=slide.panel.custom,
        cell_ids=cell_ids, xy_um=slide.tissue.xy_um, outlines=outlines,
        n_cells=len(cell_ids) if slide.recipe.transcripts else min(_FEW_CELLS, len(cell_ids)),
        layout=layout,
    )  # fmt: skip
