"""What differs between the output folders we make up, by generation of the software of Xenium and Atera.

Floor 8, above io, pl, pp, tl. Used by 8 modules of datasets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from spatialsig.datasets.synthetic.tissue.expression import Counts


@dataclass(frozen=True)
class Layout:
    """One layout of an output folder."""

    software: str  # version string in the manifest
    format_version: tuple[int, int]  # major and minor version of the manifest
    # how cells are named in the tables: running numbers, or text such as aaaabcde-1 as bytes or string
    cell_ids: Literal["int32", "bytes", "str"]
    # feature type and prefix of the codewords that stand for no gene
    unassigned_type: str
    unassigned_name: str
    cell_columns: frozenset[str]  # columns of cells.parquet beyond those of all layouts
    molecule_columns: tuple[str, ...]  # columns of transcripts.parquet
    label_id: bool  # boundaries name the value of their cell in the raster
    # what cells.zarr.zip holds: vertices only, vertices and raster values, or sets of polygons
    segmentation: Literal["vertices", "values", "sets"]
    # one projection per file, numbered channels, or channels named after their stain
    morphology: Literal["projections", "numbered", "named"]
    morphology_dir: str = "morphology_focus"
    # counts and cells as HDF5 and parquet, or all of them as zipped Zarr (Atera)
    tables: Literal["files", "zarr"] = "files"
    alignment: str = "he_imagealignment.csv"  # end of the name of the H&E's alignment


_MOLECULES = (
    "transcript_id", "cell_id", "overlaps_nucleus", "feature_name", "x_location", "y_location", "z_location", "qv",
)  # fmt: skip
_PLACED = (*_MOLECULES, "fov_name", "nucleus_distance")
_CODED = (*_PLACED, "codeword_index")
_ALL = (*_CODED, "codeword_category", "is_gene")
_V1 = frozenset({"unassigned_codeword_counts"})
_V2 = _V1 | {"deprecated_codeword_counts", "nucleus_count", "segmentation_method"}
_V3 = _V2 | {"genomic_control_counts"}
_UNASSIGNED = ("Unassigned Codeword", "UnassignedCodeword")

_VERTICES: dict[str, Any] = {"label_id": False, "segmentation": "vertices", "morphology": "projections"}
_VALUES = _VERTICES | {"segmentation": "values"}
_SETS: dict[str, Any] = {"label_id": True, "segmentation": "sets", "morphology": "numbered"}
_NAMED: dict[str, Any] = _SETS | {"morphology": "named"}
_ATERA: dict[str, Any] = _NAMED | {"alignment": "he_alignment.csv"}
LAYOUTS = {
    "1.0": Layout("xenium-1.0.1", (1, 0), "int32", "Blank Codeword", "BLANK", frozenset(), _MOLECULES, **_VERTICES),
    "1.6": Layout("xenium-1.6.0.7", (3, 0), "bytes", *_UNASSIGNED, _V1, _PLACED, **_VALUES),
    "2.0": Layout("xenium-2.0.0.10", (4, 0), "str", *_UNASSIGNED, _V2, _CODED, **_SETS),
    "3.0": Layout("xenium-3.0.0.15", (5, 0), "str", *_UNASSIGNED, _V3, _ALL, **_SETS),
    "4.0": Layout("xenium-4.0.1.0", (6, 0), "str", *_UNASSIGNED, _V3, _ALL, **_NAMED),
    "atera-preview": Layout("xenium-4.0.1.0", (6, 0), "str", *_UNASSIGNED, _V3, _ALL, **_ATERA),
    "atera-1.0": Layout(
        "atera-1.0.0.0", (1, 2), "str", *_UNASSIGNED, _V3, (), **_ATERA, tables="zarr", morphology_dir="morphology_2d"
    ),
}


def text_type(layout: Layout) -> pa.DataType:
    """Type of text in the tables of a layout: bytes up to 1.x, string since."""
    return pa.string() if layout.cell_ids == "str" else pa.binary()


def id_array(cell_ids: list[str], layout: Layout) -> pa.Array:
    """Ids of the cells as the tables of a layout hold them."""
    if layout.cell_ids == "int32":
        return pa.array(np.array(cell_ids, dtype=np.int32))
    return pa.array(cell_ids).cast(text_type(layout))


def feature_names(counts: Counts, layout: Layout) -> Counts:
    """The same counts, their unassigned codewords named and typed as the layout does."""

    def renamed(values: tuple[str, ...], old: str, new: str) -> tuple[str, ...]:
        return tuple(new + value.removeprefix(old) if value.startswith(old) else value for value in values)

    old_type, old_name = _UNASSIGNED
    return Counts(
        rates=counts.rates,
        matrix=counts.matrix,
        names=renamed(counts.names, old_name, layout.unassigned_name),
        ids=renamed(counts.ids, old_name, layout.unassigned_name),
        feature_types=renamed(counts.feature_types, old_type, layout.unassigned_type),
    )
