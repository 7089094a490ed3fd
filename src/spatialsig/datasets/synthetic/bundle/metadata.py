"""The descriptive files of a folder: the manifest of Xenium or Atera, ``gene_panel.json``, ``metrics_summary.csv``.

Floor 8, above io, pl, pp, tl. Used by datasets/synthetic/bundle/write.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.datasets.synthetic.bundle.morphology import morphology_paths
from spatialsig.datasets.synthetic.tissue.expression import CONTROL_RATE

if TYPE_CHECKING:
    import pandas as pd

    from spatialsig.datasets.synthetic.bundle.layouts import Layout
    from spatialsig.datasets.synthetic.slide import SyntheticSlide

_PANEL_NAME = "Synthetic Human Multi-Tissue Panel"
_DESIGN_ID = "hMulti_synthetic"
_DESIGN = {"design_id": _DESIGN_ID, "name": _PANEL_NAME, "version": "1.0.0"}


def _tissue_area(slide: SyntheticSlide) -> float:
    return slide.recipe.size_um**2


def _images(layout: Layout, stains: int) -> dict[str, str]:
    focus = {"morphology_focus_filepath": morphology_paths(layout, stains)[0]}
    mip = {"morphology_mip_filepath": "morphology_mip.ome.tif"} if layout.morphology == "projections" else {}
    return mip | focus


def _stain_shares(stains: int) -> dict[str, float]:
    """Shares of the ways in which cells were segmented: by membranes with the kit, else by growing nuclei."""
    by_kit = float(stains > 1)
    return {
        "segmented_cell_stain_frac": by_kit,
        "segmented_cell_boundary_frac": by_kit,
        "segmented_cell_interior_frac": 0.0,
        "segmented_cell_nuc_expansion_frac": 1.0 - by_kit,
    }


def experiment(slide: SyntheticSlide, cells: pd.DataFrame, run_id: uuid.UUID, layout: Layout) -> dict[str, Any]:
    """Content of ``experiment.xenium``; the uuids derive from ``run_id``."""
    n_custom = int(slide.panel.custom.sum())
    area = _tissue_area(slide)
    total = int(cells["transcript_counts"].sum())
    ids = {name: str(uuid.uuid5(run_id, name)) for name in ("analysis", "experiment", "cassette", "roi", "calibration")}
    return {
        "major_version": layout.format_version[0],
        "minor_version": layout.format_version[1],
        "patch_version": 0,
        "run_name": "spatialsig synthetic run",
        "run_start_time": "2024-01-01T00:00:00Z",
        "region_name": slide.sample,
        "preservation_method": "ffpe",
        "num_cells": len(cells),
        "transcripts_per_cell": int(cells["transcript_counts"].median()),
        "transcripts_per_100um": 100 * total / area,
        "region_area": area,
        "total_cell_area": float(cells["cell_area"].sum()),
        "thickness_of_high_quality_decoded_transcripts": 6.0,
        "nuclear_transcripts_per_100um": 100 * total / float(cells["cell_area"].sum()),
        "fraction_transcripts_assigned": 1 / 1.08,
        **_stain_shares(slide.recipe.stains),
        "imported_cell_frac": 0.0,
        "cassette_name": slide.sample,
        "slide_id": slide.sample,
        "panel_type": "predesigned",
        "panel_design_id": _DESIGN_ID,
        "panel_predesigned_id": "",
        "panel_name": _PANEL_NAME,
        "panel_organism": "Human",
        "panel_tissue_type": "Multi",
        "panel_num_targets_predesigned": len(slide.panel.genes) - n_custom,
        "panel_num_targets_custom": n_custom,
        "chemistry_version": "v1",
        "pixel_size": slide.recipe.pixel_size_um,
        "instrument_sn": "synthetic",
        "instrument_sw_version": layout.software.removeprefix("xenium-"),
        "analysis_sw_version": layout.software,
        "analysis_uuid": ids["analysis"],
        "experiment_uuid": ids["experiment"],
        "cassette_uuid": ids["cassette"],
        "roi_uuid": ids["roi"],
        "z_step_size": 3.0,
        "well_uuid": f"def_{run_id.hex[:8]}",
        "calibration_uuid": ids["calibration"],
        "images": _images(layout, slide.recipe.stains),
        "xenium_explorer_files": {"cells_zarr_filepath": "cells.zarr.zip"},
        "segmentation_stain": "",
    }


def atera_experiment(slide: SyntheticSlide, cells: pd.DataFrame, layout: Layout) -> dict[str, Any]:
    """Content of ``experiment.spatial``, the manifest of Atera."""
    return {
        "major_version": layout.format_version[0],
        "minor_version": layout.format_version[1],
        "run_name": "spatialsig synthetic run",
        "run_start_time": "2026-01-01T00:00:00Z",
        "slide_name": slide.sample,
        "region_name": slide.sample,
        "region_area": _tissue_area(slide),
        "chemistry_version": "Atera v1",
        "analysis_sw_version": layout.software,
        "pixel_size": slide.recipe.pixel_size_um,
        "z_step_size": 1.5,
        "num_cells": len(cells),
        "total_num_targets": len(slide.panel.genes),
        "panel_config": "panel_config.json",
        "explorer_files": {
            "cells_zarr_filepath": "cells.zarr.zip",
            "cell_feature_zarr_filepath": "cell_feature_matrix.zarr.zip",
        },
        "images": {"morphology_2d_filepath": morphology_paths(layout, slide.recipe.stains)[0]},
    }


def _target(codeword: int, category: str, descriptor: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "codewords": [codeword],
        "info": {"gene_coverage": 1},
        "source": {"category": category, "identity": _DESIGN},
        "type": {"data": data, "descriptor": descriptor},
    }


def gene_panel(slide: SyntheticSlide) -> dict[str, Any]:
    """Content of ``gene_panel.json``."""
    panel, counts = slide.panel, slide.counts
    targets = [
        _target(number, "custom" if own else "current", "gene", {"id": gene_id, "name": gene})
        for number, (gene, gene_id, own) in enumerate(zip(panel.genes, panel.gene_ids, panel.custom, strict=True))
    ]
    targets += [
        _target(number, "current", "negative_control", {"name": name})
        for number, (name, kind) in enumerate(zip(counts.names, counts.feature_types, strict=True))
        if kind == "Negative Control Probe"
    ]
    return {
        "metadata": {"ui_props": {"visible": True}},
        "payload": {
            "chemistry": {"decoder": "xenium_decoding_v1", "version": "v1"},
            "customer": {"email": None, "name": None},
            "designer": {
                "date_created": "2024-01-01T00:00:00",
                "designed_by": {"email": None, "name": "spatialsig"},
                "version": "1.0.0",
            },
            "panel": {
                "description": _PANEL_NAME,
                "identity": _DESIGN,
                "num_gene_targets": len(panel.genes),
                "species": "Human",
                "tissue": "Multi",
                "type": {"descriptor": "predesigned"},
            },
            "spec_version": "0.1.0",
            "targets": targets,
        },
    }


def metrics(slide: SyntheticSlide, cells: pd.DataFrame) -> dict[str, Any]:
    """The row of ``metrics_summary.csv``, which a quality check would look at."""
    genes = slide.counts.matrix[:, : slide.counts.n_genes]
    detected = np.diff(genes.indptr)
    shares = _stain_shares(slide.recipe.stains)
    return {
        "run_name": "spatialsig synthetic run",
        "cassette_name": slide.sample,
        "region_name": slide.sample,
        "panel_name": _PANEL_NAME,
        "panel_design_id": _DESIGN_ID,
        "region_area": _tissue_area(slide),
        "total_cell_area": float(cells["cell_area"].sum()),
        "total_high_quality_decoded_transcripts": int(cells["total_counts"].sum()),
        "decoded_transcripts_per_100um2": 100 * float(cells["total_counts"].sum()) / _tissue_area(slide),
        "negative_control_probe_counts_per_control_per_cell": CONTROL_RATE,
        "num_cells_detected": len(cells),
        "fraction_empty_cells": float((cells["transcript_counts"] == 0).mean()),
        "cells_per_100um2": 100 * len(cells) / _tissue_area(slide),
        "fraction_transcripts_assigned": 1 / 1.08,
        "median_genes_per_cell": float(np.median(detected)),
        "median_transcripts_per_cell": float(cells["transcript_counts"].median()),
        "segmented_cell_nuc_expansion_frac": shares["segmented_cell_nuc_expansion_frac"],
        "segmented_cell_nuc_expansion_count": round(shares["segmented_cell_nuc_expansion_frac"] * len(cells)),
    }
