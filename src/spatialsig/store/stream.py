"""Stream an H&E of any size into a multi-scale OME-Zarr image, a block of pixels at a time.

``spatialdata`` writes the metadata (of a tiny image with as many levels), so that they are always those that it
reads; the arrays are then created in our layout and filled. The full image is never in memory.

Floor 1, above the ground floor. Used by io/_elements, io/_store, io/images/rgb, store/commit.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import zarr
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

from spatialsig._progress import progress_bar
from spatialsig._settings import settings
from spatialsig.errors import InputError
from spatialsig.store.chunk_files import sources_of
from spatialsig.store.chunk_writer import ChunkWriter, in_threads
from spatialsig.store.layout import (
    CHANNELS,
    CHUNK_PX,
    DEFAULT,
    Layout,
    LayoutName,
    as_layout,
    halve,
    level_shapes,
    levels_of,
)
from spatialsig.store.stored.damage import decoding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from spatialdata.transformations import BaseTransformation
    from xarray import DataTree

    from spatialsig._progress import Bar
    from spatialsig.store.manifest import Entry

__all__ = ["ChannelsLast", "Pixels", "StreamedImage", "as_streamed", "check_pixels", "fill", "halve", "template"]

HALVED = "spatialsig-halved-"  # name of lazy levels that are the means of the one before
BLOCK_CHUNKS = 8  # along an edge: three halvings of a block still end on whole chunks
MAX_BLOCK_AREA_PX = 2**25  # 96 MiB of RGB
MAX_WORKING_BYTES = 2**30  # of all threads


class Pixels(Protocol):
    """Anything that gives windows of an RGB image: a numpy, dask or zarr array ``(y, x, 3)`` uint8, or a reader."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and 3."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""

    def __getitem__(self, window: tuple[slice, slice], /) -> Any:
        """Pixels of a window, array-like ``(h, w, 3)``."""


@dataclass(frozen=True)
class StreamedImage:
    """An image element that is not in memory."""

    pixels: Pixels  # source of windows, (y, x, 3) uint8
    transformations: Mapping[str, BaseTransformation]  # of the full-resolution pixels (x, y), by coordinate system
    channels: tuple[str, ...] = CHANNELS  # their names
    layout: Layout | LayoutName = DEFAULT
    # coarser levels, whose pixels are kept as they are; a shape (y, x) alone stands for the 2 x 2 means of the level before
    coarser: tuple[Pixels | tuple[int, int], ...] | None = None  # None: means of all levels that belong to the size

    @property
    def levels(self) -> list[Pixels | tuple[int, int]]:
        """All levels, the finest first."""
        shapes = level_shapes(self.pixels.shape[0], self.pixels.shape[1])[1:]
        return [self.pixels, *(shapes if self.coarser is None else self.coarser)]


def as_streamed(element: object, layout: Layout | LayoutName = DEFAULT) -> StreamedImage | None:
    """View an image element of any chunking as a stream; None for what is no RGB uint8 image."""
    levels: list[Any] = [*levels_of(element)]
    if not levels or any(one.dims != ("c", "y", "x") or one.dtype != np.uint8 for one in levels):
        return None
    full = levels[0]
    channels = tuple(str(label) for label in full.coords["c"].values) if "c" in full.coords else ()
    if tuple(label.lower() for label in channels) != CHANNELS or min(full.shape[1:]) < 2:
        return None
    coarser = tuple(one.shape[1:] if is_halved(one.data) else ChannelsLast(one.data) for one in levels[1:]) or None
    return StreamedImage(ChannelsLast(full.data), get_transformation(element, get_all=True), channels, layout, coarser)


def is_halved(array: Any) -> bool:
    """Whether a lazy level is the 2 x 2 means of the one before, by its name: writing makes the same ones of its blocks."""
    return str(getattr(array, "name", "")).startswith(HALVED)


def template(image: StreamedImage) -> DataTree:
    """Tiny black image element with the number of levels, channels and transformations of the image to come."""
    n_levels = len(image.levels)
    pixels = np.zeros((len(CHANNELS), 2**n_levels, 2**n_levels), np.uint8)
    tree: DataTree = Image2DModel.parse(
        pixels,
        dims=("c", "y", "x"),
        c_coords=list(image.channels),
        scale_factors=[2] * (n_levels - 1),
        transformations=dict(image.transformations),
    )
    return tree


def check_pixels(pixels: Pixels, *, name: str) -> None:
    """Raise :class:`InputError` unless ``pixels`` is ``(y, x, 3)`` uint8 of at least 2 x 2 px."""
    shape, dtype = tuple(pixels.shape), np.dtype(pixels.dtype)
    if len(shape) != 3 or shape[2] != len(CHANNELS) or dtype != np.uint8 or min(shape[:2]) < 2:
        msg = f"image {name!r} is {dtype} of shape {shape}; wanted uint8 RGB (y, x, 3) of at least 2 x 2 px."
        raise InputError(msg)


def fill(group_path: Path, image: StreamedImage) -> dict[str, Entry]:
    """Put the real pixels into the image element at ``group_path`` that ``spatialdata`` wrote from :func:`template`.

    The pixels, ``(y, x, 3)`` uint8, are read in blocks of about 8 x 8 chunks from ``settings.threads`` threads; the
    element then holds all levels, ``(c, y, x)``. Returns the manifest entries of the chunk files. Raises
    :class:`InputError` if the pixels are not RGB uint8, or the layout is not known.
    """
    check_pixels(image.pixels, name=group_path.name)
    layout = as_layout(image.layout)
    sources = image.levels
    shapes = [(one[0], one[1]) if isinstance(one, tuple) else (one.shape[0], one.shape[1]) for one in sources]
    group = zarr.open_group(group_path, mode="r+", use_consolidated=False)
    ome = cast("dict[str, Any]", group.attrs.asdict()["ome"])
    datasets = ome["multiscales"][0]["datasets"]
    levels = []
    for dataset, (height, width) in zip(datasets, shapes, strict=True):
        scale = [1.0, shapes[0][0] / height, shapes[0][1] / width]
        dataset["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
        shape = (len(CHANNELS), height, width)
        group.create_array(dataset["path"], overwrite=True, **layout.array_spec(shape))
        levels.append(ChunkWriter(group_path / dataset["path"], shape, ("c", "y", "x"), layout))
    group.attrs["ome"] = ome
    with progress_bar(f"writing {group_path.name}", total=_work(shapes), unit="Mpx") as bar:
        for first, last in _runs(sources):
            _stream(cast("Pixels", sources[first]), levels[first:last], 0, bar)
    return {f"{level.path.name}/{file}": entry for level in levels for file, entry in level.entries.items()}


def _runs(sources: Sequence[Pixels | tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """First and last-plus-one level of each run that is made of one source: it and the means after it."""
    starts = [i for i, one in enumerate(sources) if not isinstance(one, tuple)]
    yield from itertools.pairwise([*starts, len(sources)])


def _work(shapes: Sequence[tuple[int, int]]) -> float:
    return round(sum(height * width for height, width in shapes) / 1e6, 1)


def _stream(source: Pixels, levels: Sequence[ChunkWriter], first: int, bar: Bar) -> None:
    """Write ``levels``; ``first`` says how often a block of the source is halved before the first of them."""
    height, width = source.shape[:2]
    chunk_px = levels[0].layout.chunk_px
    block = _block_shape(source, chunk_px)
    inline = _levels_per_pass((height, width), block, first + len(levels), chunk_px) - first

    def write(y: int, x: int) -> float:
        window = np.asarray(source[y : y + block[0], x : x + block[1]])
        pixels = np.ascontiguousarray(np.moveaxis(window, 2, 0))
        done = 0
        for level in range(first + inline):
            if level > 0:
                pixels = halve(pixels)
            if level < first:
                continue
            _, rows, columns = pixels.shape
            if rows == 0 or columns == 0:  # a border thinner than one pixel of this level
                break
            levels[level - first].write(pixels, (0, y >> level, x >> level))
            done += rows * columns
        return done / 1e6

    corners = [(y, x) for y in range(0, height, block[0]) for x in range(0, width, block[1])]
    in_threads(lambda corner: write(*corner), corners, n_threads=_workers(block, (height, width)), bar=bar)
    if inline < len(levels):
        written = zarr.open_array(levels[inline - 1].path, mode="r")
        _stream(ChannelsLast(written), levels[inline:], 1, bar)


def _workers(block: tuple[int, int], size: tuple[int, int]) -> int:
    """Threads whose blocks fit the memory together; a block exists as it was read and as planes."""
    in_use = 2 * len(CHANNELS) * min(block[0], size[0]) * min(block[1], size[1])
    return max(1, min(settings.threads, MAX_WORKING_BYTES // in_use))


def _block_shape(source: Pixels, chunk_px: int) -> tuple[int, int]:
    """Block whose borders cut few tiles of the source (each half is decoded for both), and that threads can share.

    Low blocks are for sources whose tiles are strips as wide as the image; they write fewer levels at once.
    """
    chunks = getattr(source, "chunks", None) or (1, 1)
    tile = [max(axis) if isinstance(axis, tuple) else int(axis) for axis in chunks[:2]]
    unit, size = BLOCK_CHUNKS * chunk_px, source.shape[:2]
    heights, widths = (range(unit, -(-edge // unit) * unit + 1, unit) for edge in size)
    low = [h for h in (unit // 4, unit // 2) if h >= max(tile[0], 2 * chunk_px)]

    def cost(shape: tuple[int, int]) -> tuple[float, bool, int]:
        blocks = math.prod(-(-edge // step) for edge, step in zip(size, shape, strict=True))
        idle = -(-blocks // settings.threads) * settings.threads / blocks
        decoded = math.prod(_decoded(*axis) / axis[0] for axis in zip(size, shape, tile, strict=True))
        return round(idle * decoded, 1), shape[0] < unit, shape[0] * shape[1]

    shapes = [(h, w) for h in (*low, *heights) for w in widths if h * min(w, size[1]) <= MAX_BLOCK_AREA_PX]
    return min(shapes, key=cost, default=(low[0] if low else unit, unit))


def _decoded(size: int, block: int, tile: int) -> int:
    """Pixels along an axis that all blocks together decode, whole tiles each."""
    return sum(
        min(-(-min(start + block, size) // tile) * tile, size) - start // tile * tile for start in range(0, size, block)
    )


def _levels_per_pass(size: tuple[int, int], block: tuple[int, int], wanted: int, chunk_px: int = CHUNK_PX) -> int:
    """How many levels one block can write without sharing a chunk with its neighbour (two threads, one chunk)."""
    level = 1
    while level < wanted and all(b >= s or (b >> level) % chunk_px == 0 for b, s in zip(block, size, strict=True)):
        level += 1
    return level


class ChannelsLast:
    """Windows ``(y, x, c)`` of an array ``(c, y, x)`` of zarr or dask, without a copy of the pixels."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape = (*array.shape[1:], array.shape[0])
        self.dtype = np.dtype(array.dtype)
        chunks = getattr(array, "chunks", None)  # of an array in memory there are none
        self.chunks = None if chunks is None else (*chunks[1:], chunks[0])

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[np.uint8]:
        with decoding(lambda: sources_of(self._array)):
            part = self._array[(slice(None), *window)]
            if hasattr(part, "dask"):  # from one of several threads already
                part = part.compute(scheduler="synchronous")
            return np.moveaxis(np.asarray(part), 0, 2)
