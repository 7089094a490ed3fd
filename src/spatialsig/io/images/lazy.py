"""Multi-scale image elements of opened files, whose tiles are decoded when they are asked for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import dask.array as da
import numpy as np
from spatialdata.models import Image2DModel

from spatialsig.store.pixels.layout import CHANNELS, level_shapes
from spatialsig.store.pixels.stream import halve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialdata.transformations import BaseTransformation
    from xarray import DataArray, DataTree

    from spatialsig.io.images.rgb import RgbFile, RgbPixels

_LAZY_CHUNK_PX = 1024


def lazy_image(file: RgbFile, transformations: Mapping[str, BaseTransformation]) -> DataTree:
    """Multi-scale image element that decodes tiles only when they are asked for.

    Levels that the file brings are used where they fit; the others are 2 x 2 means of the level before.
    """
    height, width = file.pixels.shape[:2]
    shapes = level_shapes(height, width)
    own = {level.shape[:2]: level for level in file.levels}
    levels: list[da.Array] = []
    for shape in shapes:
        levels.append(_lazy(own[shape]) if shape in own else _lazy_half(levels[-1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", da.PerformanceWarning)
        tree: DataTree = Image2DModel.parse(
            da.zeros((len(CHANNELS), height, width), dtype=np.uint8, chunks=-1),
            dims=("c", "y", "x"),
            c_coords=list(CHANNELS),
            scale_factors=[2] * (len(shapes) - 1),
            transformations=dict(transformations),
        )
    for scale, level in enumerate(levels):
        node = tree[f"scale{scale}"]
        node["image"] = cast("DataArray", node["image"]).copy(data=level)
    return tree


def _lazy(pixels: RgbPixels) -> da.Array:
    tile = pixels.chunks or (_LAZY_CHUNK_PX, _LAZY_CHUNK_PX)
    width = min(-(-_LAZY_CHUNK_PX // tile[1]) * tile[1] * 2, pixels.shape[1])
    # strips are as wide as the image: the fewer rows the wider they are; whole tiles of an even number of pixels
    rows = max(min(_LAZY_CHUNK_PX, 2 * _LAZY_CHUNK_PX**2 // width), 1)
    edges = (min(-(-rows // tile[0]) * tile[0] * 2, pixels.shape[0]), width)
    from_array: Any = da.from_array  # untyped in dask
    array = from_array(pixels, chunks=(*edges, len(CHANNELS)), name=False, meta=np.empty((0, 0, 0), np.uint8))
    return cast("da.Array", array.transpose(2, 0, 1))


def _lazy_half(array: da.Array) -> da.Array:
    height, width = (edge // 2 * 2 for edge in array.shape[1:])
    # chunks of an even number of pixels: the mean of 2 x 2 then never crosses a chunk
    even = array[:, :height, :width].rechunk((-1, 2 * _LAZY_CHUNK_PX, 2 * _LAZY_CHUNK_PX))
    chunks = (even.chunks[0], *(tuple(edge // 2 for edge in axis) for axis in even.chunks[1:]))
    map_blocks: Any = da.map_blocks  # untyped in dask
    return cast("da.Array", map_blocks(halve, even, dtype=np.uint8, chunks=chunks, meta=np.empty((0, 0, 0), np.uint8)))
