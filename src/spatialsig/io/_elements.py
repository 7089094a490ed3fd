"""Elements that every reader returns: the image, the table of cells and the circles it annotates.

Floor 7, above evaluation. Used by 6 modules of datasets, io.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
from spatialdata import SpatialData, read_zarr
from spatialdata.models import Image2DModel, ShapesModel, TableModel
from spatialdata.transformations import Scale

from spatialsig import _keys
from spatialsig._checks import warn
from spatialsig._text import composed, trimmed
from spatialsig.data.file_levels import remember
from spatialsig.data.level_pixels import Windows, difference
from spatialsig.errors import InputError
from spatialsig.geometry.affine import image_um_per_px
from spatialsig.geometry.mistakes import warn_of_pixel_size
from spatialsig.store.commit import create_store
from spatialsig.store.layout import CHANNELS, level_shapes
from spatialsig.store.metadata import check_new_names
from spatialsig.store.stream import HALVED, StreamedImage, check_pixels, halve

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray
    from scipy import sparse
    from spatialdata.transformations import BaseTransformation
    from xarray import DataArray, DataTree

    from spatialsig.io.images.metadata import PixelSize
    from spatialsig.io.images.rgb import RgbFile, RgbPixels

DEFAULT_RADIUS_UM = 5.0
OWN_COLUMNS = (_keys.SAMPLE, _keys.PATIENT, _keys.REGION_KEY, _keys.CELL_ID)  # that a table of ours has
_LAZY_CHUNK_PX = 1024


def cell_table(
    counts: sparse.csr_matrix, obs: pd.DataFrame, var: pd.DataFrame, xy_um: NDArray[np.float64], *, info: dict[str, Any]
) -> ad.AnnData:
    """Table of cells that annotates the circles of the cells.

    ``counts`` are raw, ``(n_cells, n_genes)``, and become part of the table if they are float32; the column ``cell_id`` (str) of ``obs`` also becomes the index;
    ``xy_um`` are the centres ``(n_cells, 2)``; ``info``, what the reader did, goes to ``uns["spatialsig"]``.
    """
    obs = obs.set_index(pd.Index(obs[_keys.CELL_ID].to_numpy(object)))
    obs[_keys.REGION_KEY] = pd.Categorical([_keys.CIRCLES] * len(obs))
    var = var.rename(index=composed)  # signatures are read so too
    table = ad.AnnData(counts.tocsr().astype(np.float32, copy=False), obs=obs, var=var)
    table.obsm[_keys.SPATIAL] = np.ascontiguousarray(xy_um, dtype=np.float64)
    table.uns[_keys.NAMESPACE] = info
    return TableModel.parse(table, region=_keys.CIRCLES, region_key=_keys.REGION_KEY, instance_key=_keys.CELL_ID)


def cell_circles(
    xy_um: NDArray[np.float64], radius_um: NDArray[np.float64], index: pd.Index, *, um_per_global_px: float
) -> GeoDataFrame:
    """Circles in um, ``(n_cells,)``, scaled to ``global``; the index equals the instance column of the table."""
    return ShapesModel.parse(
        np.ascontiguousarray(xy_um, dtype=np.float64),
        geometry=0,
        radius=radius_um,
        index=index,
        transformations={_keys.GLOBAL: Scale([1 / um_per_global_px] * 2, axes=("x", "y"))},
    )


def slide_attrs(*, sample: str, patient: str | None, um_per_global_px: float, source: dict[str, Any]) -> dict[str, Any]:
    """Attributes of an object: whose slide it is, how long a unit of ``global`` is, and what it was read from.

    A slide without a patient counts as one of its own, and ``source`` then names none.
    """
    attrs = {
        _keys.SAMPLE: trimmed(sample),
        _keys.PATIENT: trimmed(sample if patient is None else patient),
        "um_per_global_px": um_per_global_px,
        "source": source | ({} if patient is None else {_keys.PATIENT: trimmed(patient)}),
    }
    return {_keys.NAMESPACE: attrs}


def assemble(
    elements: dict[str, Any],
    file: RgbFile | None,
    to_global: dict[str, Any],
    *,
    attrs: dict[str, Any],
    image_key: str,
    out: str | Path | None,
    overwrite: bool,
) -> SpatialData:
    """Object in memory with a lazy image, or (``out``) a store with a streamed one, read back.

    With ``out`` the ``elements`` are given up, the dict is empty afterwards: what is read back would be in memory twice.
    The size of the px that the file states is kept, and compared with that of the place the image gets.
    """
    check_new_names([*elements, *([] if file is None else [image_key])])
    if file is not None:
        check_pixels(file.pixels, name=image_key)
        _leave_out_wrong_levels(file)
    if file is not None and file.pixel_size is not None:
        attrs = _with_pixel_size(attrs, file.pixel_size, to_global[_keys.GLOBAL], image_key)
    if out is None:
        lazy = {} if file is None else {image_key: lazy_image(file, to_global)}
        return SpatialData.init_from_elements(elements | lazy, attrs=attrs)
    streamed = {} if file is None else {image_key: StreamedImage(file.pixels, to_global, coarser=_coarser(file))}
    sdata = SpatialData.init_from_elements(elements, attrs=attrs)
    try:
        create_store(out, sdata, images=streamed, overwrite=overwrite)
    finally:
        if file is not None:
            file.close()
    del sdata
    elements.clear()
    return read_zarr(out)


def _with_pixel_size(
    attrs: dict[str, Any], file_um: PixelSize, place: BaseTransformation, image_key: str
) -> dict[str, Any]:
    own = attrs[_keys.NAMESPACE]
    matrix = place.to_affine_matrix(input_axes=("x", "y"), output_axes=("x", "y"))
    placed_um = image_um_per_px(matrix, own["um_per_global_px"])
    warn_of_pixel_size(placed_um, file_um, name=str(own["source"].get("he_image") or image_key))
    return attrs | {_keys.NAMESPACE: own | {_keys.FILE_UM_PER_PX: {image_key: list(file_um)}}}


def labelled(obs: pd.DataFrame, *, sample: str, patient: str) -> pd.DataFrame:
    """Copy of ``obs`` with the categorical columns ``sample`` and ``patient``."""
    return obs.assign(
        **{
            _keys.SAMPLE: pd.Categorical([trimmed(sample)] * len(obs)),
            _keys.PATIENT: pd.Categorical([trimmed(patient)] * len(obs)),
        }
    )


def without_own(obs: pd.DataFrame, *, where: str) -> pd.DataFrame:
    """``obs`` with other names for columns that a table of ours has itself; a warning says which."""
    renamed = {name: f"{name}_original" for name in obs if str(name).casefold() in OWN_COLUMNS}
    if renamed:
        msg = f"columns of {where} are kept under other names, since these are taken: {renamed}."
        warn(msg)
    return obs.rename(columns=renamed)


def lazy_image(file: RgbFile, transformations: Mapping[str, BaseTransformation]) -> DataTree:
    """Multi-scale image element that decodes tiles only when they are asked for.

    Levels that the file brings are used where they fit; the others are 2 x 2 means of the level before.
    """
    height, width = file.pixels.shape[:2]
    levels, read, halvings = [_lazy(file.levels[0])], file.levels[0], 0
    for own in _coarser(file):
        levels.append(_lazy_half(levels[-1]) if isinstance(own, tuple) else _lazy(own))
        read, halvings = (read, halvings + 1) if isinstance(own, tuple) else (own, 0)
        if halvings:
            remember(levels[-1], read, halvings=halvings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", da.PerformanceWarning)
        tree: DataTree = Image2DModel.parse(
            da.zeros((len(CHANNELS), height, width), dtype=np.uint8, chunks=-1),
            dims=("c", "y", "x"),
            c_coords=list(CHANNELS),
            scale_factors=[2] * (len(levels) - 1),
            transformations=dict(transformations),
        )
    for scale, level in enumerate(levels):
        node = tree[f"scale{scale}"]
        node["image"] = cast("DataArray", node["image"]).copy(data=level)
    return tree


def _coarser(file: RgbFile) -> tuple[RgbPixels | tuple[int, int], ...]:
    """Levels below the finest: the file's own where one has the right size, otherwise the size of means; in memory and on disk."""
    own = {level.shape[:2]: level for level in file.levels[1:]}
    shapes = level_shapes(file.pixels.shape[0], file.pixels.shape[1])[1:]
    return tuple(own.get(shape, shape) for shape in shapes)


def _leave_out_wrong_levels(file: RgbFile) -> None:
    """Keep the levels of a file that show what its full resolution shows, of those that would be used."""
    finer = file.levels[0]
    for level in [one for one in _coarser(file) if not isinstance(one, tuple)]:
        if _shows(finer, level):
            finer = level
        else:
            file.levels.remove(level)


def _shows(finer: RgbPixels, level: RgbPixels) -> bool:
    """Whether a level of a file shows what a finer one shows; warns where not. Windows that cannot be read tell nothing."""
    fine, coarse = (Windows((one.shape[0], one.shape[1]), partial(_window, one)) for one in (finer, level))
    found = None
    with suppress(InputError):
        found = difference(fine, coarse)
    if found is not None:
        msg = (
            f"{level.title}: its level of {coarse.shape[0]} x {coarse.shape[1]} px (y, x) does not show what the finer one "
            f"shows ({found}). It is left out, and means of 2 x 2 px take its place: look at the image, and export it again if "
            f"the full resolution is what is wrong."
        )
        warn(msg)
    return found is None


def _window(pixels: RgbPixels, rows: slice, columns: slice) -> NDArray[np.uint8]:
    return pixels[rows, columns]


def _lazy(pixels: RgbPixels) -> da.Array:
    tile = pixels.chunks or (_LAZY_CHUNK_PX, _LAZY_CHUNK_PX)
    width = min(-(-_LAZY_CHUNK_PX // tile[1]) * tile[1] * 2, pixels.shape[1])
    # strips are as wide as the image: the fewer rows the wider they are; whole tiles of an even number of pixels
    rows = max(min(_LAZY_CHUNK_PX, 2 * _LAZY_CHUNK_PX**2 // width), 1)
    edges = (min(-(-rows // tile[0]) * tile[0] * 2, pixels.shape[0]), width)
    from_array: Any = da.from_array  # untyped in dask
    array = from_array(pixels, chunks=(*edges, len(CHANNELS)), name=False, meta=np.empty((0, 0, 0), np.uint8))
    lazy = cast("da.Array", array.transpose(2, 0, 1))
    remember(lazy, pixels)
    return lazy


def _lazy_half(array: da.Array) -> da.Array:
    height, width = (edge // 2 * 2 for edge in array.shape[1:])
    # chunks of an even number of pixels: the mean of 2 x 2 then never crosses a chunk
    even = array[:, :height, :width].rechunk((-1, 2 * _LAZY_CHUNK_PX, 2 * _LAZY_CHUNK_PX))
    chunks = (even.chunks[0], *(tuple(edge // 2 for edge in axis) for axis in even.chunks[1:]))
    map_blocks: Any = da.map_blocks  # untyped in dask
    return cast(
        "da.Array",
        map_blocks(
            halve, even, name=HALVED + even.name, dtype=np.uint8, chunks=chunks, meta=np.empty((0, 0, 0), np.uint8)
        ),
    )
