"""The levels of an image, as arrays or as what lies on disk, and windows of them resampled by area.

Floor 2, above geometry, nn, signatures, stats, store. Used by 7 modules of data, io, pp.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import spatialdata
import zarr
from dask.array import Array as DaskArray
from xarray import DataArray

from spatialsig._checks import check_key
from spatialsig.data.chunks import stored_array
from spatialsig.data.file_levels import FileLevel, file_level
from spatialsig.data.images import check_rgb
from spatialsig.data.resources import open_array
from spatialsig.store.chunk_files import check_whole, sources_of
from spatialsig.store.stored.damage import decoding
from spatialsig.store.stored.documents import object_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

PROBE_PX = 128  # edge of the window of a level that is compared with the full image
_SNAP = 1e-6  # px; closer to a pixel edge than this counts as on it


@dataclass(frozen=True)
class ImageLevel:
    """One level of a pyramid."""

    pixels: (
        Path | FileLevel | Any
    )  # Zarr array on disk, level of a file, or an array ``(3, y, x)`` uint8 (numpy, dask or xarray)
    shape: tuple[int, int]  # height and width, px of this level
    downsample: tuple[float, float] = (1.0, 1.0)  # level-0 px per px of this level, along y and x

    @property
    def chunk_px(self) -> tuple[int, int] | None:
        """Height and width decoded at once, px of this level, by which reads are planned; None for an array in memory."""
        if isinstance(self.pixels, Path):
            stored = stored_array(self.pixels)
            shape = open_array(self.pixels).chunk_layout.read_chunk.shape if stored is None else stored.chunk
            return int(shape[-2]), int(shape[-1])
        if isinstance(self.pixels, FileLevel):
            return self.pixels.chunk[1:]
        data = self.pixels.data if isinstance(self.pixels, DataArray) else self.pixels
        return tuple(map(int, data.chunksize[-2:])) if isinstance(data, DaskArray) else None  # type: ignore[return-value]


def image_levels(sdata: SpatialData, image_key: str) -> tuple[ImageLevel, ...]:
    """Pyramid of an image element, finest first.

    Levels that are stored as they are in a Zarr store come back as paths, those of an image file as they are in it, both to be
    read without dask; levels in memory, cropped, or computed lazily come back as their arrays.

    Parameters
    ----------
    sdata
        Object holding the image.
    image_key
        Image element, ``(3, y, x)`` uint8.

    Raises
    ------
    KeyMissingError
        If there is no such image.
    InputError
        If it is not RGB of uint8, or its levels are not ordered from fine to coarse.
    StoreError
        If a chunk of it that was written is not there.
    """
    check_key(sdata.images, image_key, name="image_key", where="sdata.images")
    arrays = check_rgb(sdata.images[image_key], image_key)
    check_whole(sdata.images[image_key])
    paths = _stored_paths(arrays)
    height, width = arrays[0].shape[1:]
    return tuple(
        ImageLevel(
            path or file_level(array.data) or array.data, (h, w), (level_factor(height, h), level_factor(width, w))
        )
        for array, path in zip(arrays, paths, strict=True)
        for h, w in [array.shape[1:]]
    )


def level_corner(full: ImageLevel, level: ImageLevel) -> tuple[float, float]:
    """Full-resolution px (y, x) at which a level begins.

    Where the size is not a multiple of the factor, some writers leave out the last pixels and some (spatialdata's
    pyramids) the first ones: the pixels themselves tell which.
    """
    factors = [round(factor) for factor in level.downsample]
    trimmed = [max(n - f * m, 0) for n, f, m in zip(full.shape, factors, level.shape, strict=True)]
    choices = [sorted({0, rest if rest < f else 0}) for rest, f in zip(trimmed, factors, strict=True)]
    corners = [(y, x) for y in choices[0] for x in choices[1]]
    if len(corners) == 1:
        return 0.0, 0.0
    start = [max((n - PROBE_PX) // 2, 0) for n in level.shape]
    stop = [min(a + PROBE_PX, n) for a, n in zip(start, level.shape, strict=True)]
    coarse = _crop(level, start, stop)

    def difference(corner: tuple[int, int]) -> float:
        first = [c + f * a for c, f, a in zip(corner, factors, start, strict=True)]
        last = [c + f * b for c, f, b in zip(corner, factors, stop, strict=True)]
        blocks = _crop(full, first, last).reshape(3, coarse.shape[1], factors[0], coarse.shape[2], factors[1])
        return float(np.abs(blocks.mean(axis=(2, 4)) - coarse).mean())

    y, x = min(corners, key=difference)
    return float(y), float(x)


def _crop(level: ImageLevel, start: list[int], stop: list[int]) -> NDArray[np.float32]:
    pixels = zarr.open_array(level.pixels, mode="r") if isinstance(level.pixels, Path) else level.pixels
    with decoding(lambda: sources_of(pixels)):
        return np.asarray(pixels[:, start[0] : stop[0], start[1] : stop[1]]).astype(np.float32)


def level_factor(full: int, level: int) -> float:
    """Level-0 px per px along one axis: the whole number, where the level is trimmed or padded to whole px."""
    whole = max(round(full / level), 1)
    return float(whole) if level in (full // whole, -(-full // whole)) else full / level


def _stored_paths(arrays: list[DataArray]) -> list[Path | None]:
    """Zarr array behind each level, or None where the level is not simply what lies in a store."""
    none: list[Path | None] = [None] * len(arrays)
    if not all(isinstance(array.data, DaskArray) and _is_plain_read(array.data) for array in arrays):
        return none
    groups = {file for array in arrays for file in spatialdata.get_dask_backing_files(array)}
    if len(groups) != 1:
        return none
    group = Path(groups.pop())
    paths = _dataset_paths(group)
    if len(paths) != len(arrays) or any(_stored_shape(p) != a.shape for p, a in zip(paths, arrays, strict=True)):
        return none
    return list(paths)


def _is_plain_read(data: DaskArray) -> bool:
    """Whether nothing was done to the array since it was opened."""
    return all(str(layer).removeprefix("original-").startswith("from-zarr") for layer in data.dask.layers)


def _dataset_paths(group: Path) -> list[Path]:
    """Arrays of a multiscale image, in the order of its OME metadata (Zarr 3 or 2)."""
    for name in ("zarr.json", ".zattrs"):
        if (group / name).is_file():
            attributes = object_of(group / name)
            attributes = attributes.get("attributes", attributes)
            (multiscale,) = attributes.get("ome", attributes).get("multiscales", [{}])[:1] or [{}]
            return [group / dataset["path"] for dataset in multiscale.get("datasets", [])]
    return []


def _stored_shape(array: Path) -> tuple[int, ...] | None:
    for name in ("zarr.json", ".zarray"):
        if (array / name).is_file():
            shape = object_of(array / name).get("shape")
            return tuple(shape) if isinstance(shape, list) else None
    return None


@lru_cache(maxsize=512)
def area_weights(start: float, size: float, out_px: int, n_in: int) -> NDArray[np.float32]:
    """Weights ``(out_px, n_in)`` that average ``[start, start + size)`` of ``n_in`` pixels into ``out_px`` equal cells.

    Pixel ``i`` covers ``[i, i + 1)``. Inside a pixel the image is taken as a straight line through the pixel's mean
    with the slope of its neighbours, so that whole pixels are kept or averaged exactly, and a linear ramp stays exact at
    any fractional position.

    Parameters
    ----------
    start, size
        The window, in input pixels; must overlap the input.
    out_px, n_in
        Output and input pixels along the axis.
    """
    edges = start + size * np.arange(out_px + 1) / out_px
    near = np.round(edges)
    edges = np.clip(np.where(np.abs(edges - near) < _SNAP, near, edges), 0, n_in)
    pixels = np.arange(n_in)
    inside = np.clip(edges[:, None] - pixels, 0.0, 1.0)  # (out_px + 1, n_in): how much of a pixel lies before an edge
    covered = np.diff(inside, axis=0)
    tilt = np.diff(inside**2 - inside, axis=0) / 2
    weights = covered + tilt @ _slopes(n_in)
    total = covered.sum(axis=1, keepdims=True)
    result: NDArray[np.float32] = (weights / np.maximum(total, _SNAP)).astype(np.float32)
    return result


def _slopes(n: int) -> NDArray[np.float64]:
    """Matrix ``(n, n)`` from pixel values to slopes: central differences, one-sided at the ends."""
    slope = np.zeros((n, n))
    if n > 1:
        inner = np.arange(1, n - 1)
        slope[inner, inner + 1], slope[inner, inner - 1] = 0.5, -0.5
        slope[0, :2] = slope[-1, -2:] = (-1.0, 1.0)
    return slope


def resample(
    windows: NDArray[np.uint8], vertical: NDArray[np.float32], horizontal: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Apply ``(out_h, h)`` and ``(out_w, w)`` weights to windows ``(..., h, w)``; rounded to the nearest uint8."""
    smooth = vertical @ windows.astype(np.float32) @ horizontal.T
    pixels: NDArray[np.uint8] = np.clip(np.rint(smooth), 0, 255).astype(np.uint8)
    return pixels
