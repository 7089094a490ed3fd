"""``cells.zarr.zip``: ids, summary, label rasters and polygons of the cells (zarr v2 in a stored zip).

Floor 8, above io, pl, pp, tl. Used by datasets/synthetic/bundle/write.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import zarr
from zarr.storage import ZipStore

from spatialsig._settings import settings
from spatialsig.datasets.synthetic.bundle.cells import Outlines, areas, fill_rings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.bundle.layouts import Layout

_CHUNKS_PER_SIDE = 8
_SUMMARY = {
    "cell_centroid_x": "Cell centroid in X",
    "cell_centroid_y": "Cell centroid in Y",
    "cell_area": "Cell area",
    "nucleus_centroid_x": "Nucleus centroid in X",
    "nucleus_centroid_y": "Nucleus centroid in Y",
    "nucleus_area": "Nucleus area",
    "z_level": "z_level",
    "nucleus_count": "Nucleus count",
}
_ATTRIBUTES = {
    "name": "CellSegmentationDataset",
    "polygon_set_descriptions": ["DAPI-based nuclei segmentation", "Cell Segmentation"],
    "polygon_set_display_names": ["Nucleus boundaries", "Cell boundaries"],
    "polygon_set_names": ["nucleus", "cell"],
    "segmentation_methods": [
        "Segmented by boundary stain ({boundary})",
        "Segmented by interior stain ({interior})",
        "Segmented by nucleus expansion of 5.0µm",
        "Segmented by nuclear stain (DAPI)",
    ],
    "spatial_units": "microns",
}
_STAINS = {False: ("None", "None"), True: ("ATP1A1+CD45+E-Cadherin", "18S")}  # without and with the kit
_FORMAT = {"vertices": (4, 0), "values": (5, 0), "sets": (6, 2)}
_METHOD_OF_SET = (3, 2)  # nuclei by DAPI, cells by expansion


def _put(group: zarr.Group, name: str, values: NDArray[Any], **attributes: Any) -> None:
    codec = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=1)
    array = group.create_array(
        name, shape=values.shape, chunks=values.shape, dtype=values.dtype, compressors=codec, fill_value=0,
        attributes=attributes or None,
    )  # fmt: skip
    array[...] = values


def _put_mask(masks: zarr.Group, name: str, rings_px: NDArray[np.float64], shape: tuple[int, int]) -> None:
    """Raster whose value at a pixel is the number of the polygon there; one row of chunks at a time."""
    chunks = tuple(-(-side // _CHUNKS_PER_SIDE) for side in shape)
    codec = numcodecs.Blosc(cname="zstd", clevel=1, shuffle=1)
    array = masks.create_array(name, shape=shape, chunks=chunks, dtype="uint32", compressors=codec, fill_value=0)
    labels = np.arange(1, len(rings_px) + 1, dtype=np.float64)

    def band(row0: int) -> NDArray[np.uint32]:
        rows = np.zeros((min(chunks[0], shape[0] - row0), shape[1]), dtype=np.uint32)
        fill_rings(rows, row0, rings_px, labels)
        return rows

    starts = range(0, shape[0], chunks[0])
    with ThreadPoolExecutor(settings.threads) as pool:
        for row0, rows in zip(starts, pool.map(band, starts), strict=True):
            array[row0 : row0 + len(rows)] = rows


def _put_polygons(group: zarr.Group, rings_um: NDArray[np.float64], method: int) -> None:
    n = len(rings_um)
    closed = np.concatenate([rings_um, rings_um[:, :1]], axis=1)
    _put(group, "vertices", closed.reshape(n, -1).astype(np.float32))
    _put(group, "num_vertices", np.full(n, closed.shape[1], dtype=np.int32))
    _put(group, "cell_index", np.arange(n, dtype=np.uint32))
    _put(group, "method", np.full(n, method, dtype=np.uint32))


def _put_cells(
    root: zarr.Group, id_prefixes: NDArray[np.uint32], xy_um: NDArray[np.float64], outlines: Outlines, layout: Layout
) -> None:
    """Ids and summary: running numbers and no count of nuclei in the layouts that know neither."""
    n = len(xy_um)
    columns = (
        xy_um, areas(outlines.cell)[:, None], xy_um, areas(outlines.nucleus)[:, None], np.full((n, 2), (4.0, 1.0)),
    )  # fmt: skip
    n_columns = len(_SUMMARY) if layout.segmentation == "sets" else len(_SUMMARY) - 1
    pairs = np.stack([id_prefixes, np.ones(n, np.uint32)], axis=1)
    _put(root, "cell_id", np.arange(1, n + 1, dtype=np.uint32) if layout.cell_ids == "int32" else pairs)
    _put(
        root, "cell_summary", np.concatenate(columns, axis=1)[:, :n_columns],
        column_names=list(_SUMMARY)[:n_columns], column_descriptions=list(_SUMMARY.values())[:n_columns],
    )  # fmt: skip


def _put_vertices(root: zarr.Group, outlines: Outlines) -> None:
    """Polygons of the layouts before sets: nuclei and cells in one array."""
    rings = np.stack([outlines.nucleus, outlines.cell])
    closed = np.concatenate([rings, rings[:, :, :1]], axis=2)
    _put(root, "polygon_vertices", closed.reshape(*closed.shape[:2], -1).astype(np.float32))
    _put(root, "polygon_num_vertices", np.full(closed.shape[:2], closed.shape[2], dtype=np.int32))


def write_cells_zarr(
    path: Path, *, id_prefixes: NDArray[np.uint32], xy_um: NDArray[np.float64], outlines: Outlines,
    shape: tuple[int, int], pixel_size_um: float, layout: Layout, stained: bool,
) -> None:  # fmt: skip
    """Write the segmentation of one slide, ``stained`` with the kit; ``shape`` is that of the morphology image."""
    n = len(xy_um)
    major, minor = _FORMAT[layout.segmentation]
    attributes = {"major_version": major, "minor_version": minor, **_ATTRIBUTES, "number_cells": n}
    boundary, interior = _STAINS[stained]
    methods = [name.format(boundary=boundary, interior=interior) for name in _ATTRIBUTES["segmentation_methods"]]
    attributes["segmentation_methods"] = methods
    if layout.segmentation != "sets":
        attributes = {name: value for name, value in attributes.items() if not name.startswith(("polygon", "segment"))}
    scale = np.diag([1 / pixel_size_um, 1 / pixel_size_um, 1.0, 1.0]).astype(np.float32)
    with ZipStore(path, mode="w") as store:
        root = zarr.create_group(store, zarr_format=2, attributes=attributes)
        _put_cells(root, id_prefixes, xy_um, outlines, layout)
        masks = root.create_group("masks")
        _put(masks, "homogeneous_transform", scale)
        for number, rings_um in enumerate((outlines.nucleus, outlines.cell)):
            _put_mask(masks, str(number), rings_um / pixel_size_um, shape)
        if layout.segmentation == "sets":
            sets = root.create_group("polygon_sets")
            for number, rings_um in enumerate((outlines.nucleus, outlines.cell)):
                _put_polygons(sets.create_group(str(number)), rings_um, _METHOD_OF_SET[number])
        else:
            _put_vertices(root, outlines)
        if layout.segmentation == "values":
            _put(root, "seg_mask_value", np.arange(1, n + 1, dtype=np.uint32))
