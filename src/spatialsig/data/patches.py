"""H&E patches straight from the pyramid of an image: the right level, the right window, nothing else decoded."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import spatialdata
from dask.array import Array as DaskArray
from dask.base import compute
from xarray import DataArray, DataTree

from spatialsig._checks import check_key, check_positive
from spatialsig._errors import InputError, StoreError
from spatialsig._settings import settings
from spatialsig.data.resample import area_weights, resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from spatialdata import SpatialData

_CHUNK_POOL_SHARE = 8  # decoded chunks kept for neighbours: this part of the patch cache
_LEVEL_TOLERANCE = 1e-6


@dataclass(frozen=True)
class ImageLevel:
    """One level of a pyramid.

    Parameters
    ----------
    pixels
        Zarr array on disk, or an array ``(3, y, x)`` uint8 (numpy, dask or xarray).
    shape
        Height and width, px of this level.
    downsample
        Level-0 px per px of this level, along y and x.
    """

    pixels: Path | Any
    shape: tuple[int, int]
    downsample: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class PatchSource:
    """The patches of one slide.

    Parameters
    ----------
    sample
        Name of the slide.
    levels
        Pyramid, finest first.
    origins
        Top-left corners ``(n_patches, 2)`` as ``y0, x0``, integer level-0 px.
    size_l0
        Edge of a patch, level-0 px.
    out_px
        Edge of a patch as read, px.
    """

    sample: str
    levels: tuple[ImageLevel, ...]
    origins: NDArray[np.int64]
    size_l0: float
    out_px: int

    def __post_init__(self) -> None:
        check_positive(size_l0=self.size_l0, out_px=self.out_px)
        if not self.levels:
            msg = f"slide {self.sample!r}: the image has no levels."
            raise InputError(msg)
        if self.origins.ndim != 2 or self.origins.shape[1] != 2 or self.origins.dtype.kind not in "iu":
            msg = (
                f"slide {self.sample!r}: origins {self.origins.shape} of {self.origins.dtype}; wanted integers (n, 2)."
            )
            raise InputError(msg)
        self._check_inside()

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.origins)

    @property
    def level(self) -> ImageLevel:
        """Coarsest level that is still at least as fine as the patches asked for (the finest, where none is)."""
        wanted = self.size_l0 / self.out_px * (1 + _LEVEL_TOLERANCE)
        fine = [level for level in self.levels if max(level.downsample) <= wanted]
        return max(fine, key=lambda level: max(level.downsample), default=self.levels[0])

    def _check_inside(self) -> None:
        height, width = self.levels[0].shape
        end = self.origins + self.size_l0
        outside = (self.origins < 0).any(axis=1) | (end > np.array([height, width]) + _LEVEL_TOLERANCE).any(axis=1)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            msg = (
                f"slide {self.sample!r}: {int(outside.sum())} patches cross the border of the image of "
                f"{height} x {width} px (y, x); the first is row {row} at (y0, x0) = {tuple(self.origins[row].tolist())} "
                f"with an edge of {self.size_l0:g} px."
            )
            raise InputError(msg)


def image_levels(sdata: SpatialData, image_key: str) -> tuple[ImageLevel, ...]:
    """Pyramid of an image element, finest first.

    Levels that are stored as they are in a Zarr store come back as paths, to be read without dask; levels in memory,
    cropped, or computed lazily come back as their arrays.

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
        If it is not RGB of uint8.
    """
    check_key(sdata.images, image_key, name="image_key", where="sdata.images")
    arrays = _arrays(sdata.images[image_key])
    for array in arrays:
        if array.dims != ("c", "y", "x") or array.shape[0] != 3 or array.dtype != np.uint8:
            msg = (
                f"image {image_key!r}: {array.dtype} {array.dims} of shape {array.shape}; wanted uint8 (c, y, x) with "
                "3 channels. Convert it to 8-bit RGB first."
            )
            raise InputError(msg)
    paths = _stored_paths(arrays)
    height, width = arrays[0].shape[1:]
    return tuple(
        ImageLevel(path or array.data, (h, w), (_factor(height, h), _factor(width, w)))
        for array, path in zip(arrays, paths, strict=True)
        for h, w in [array.shape[1:]]
    )


def read_patches(source: PatchSource, rows: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """Read patches ``rows`` of a slide, ``(len(rows), 3, out_px, out_px)`` uint8 RGB.

    A window that is not exactly ``out_px`` pixels of its level is area-averaged at its exact, possibly fractional,
    position.

    Raises
    ------
    StoreError
        If the image cannot be read from its store.
    """
    level, rows = source.level, np.asarray(rows, dtype=np.int64)
    start = source.origins[rows] / np.array(level.downsample)  # (b, 2), px of the level
    size = source.size_l0 / np.array(level.downsample)
    first, last = _window(start, size, np.array(level.shape))
    try:
        windows = _read(level.pixels, first, last)
    except (ValueError, OSError) as error:
        msg = f"slide {source.sample!r}: cannot read {level.pixels}: {error}"
        raise StoreError(msg) from error
    out = np.empty((len(rows), 3, source.out_px, source.out_px), np.uint8)
    for k, window in enumerate(windows):
        out[k] = _fit(window, start[k] - first[k], size, source.out_px)
    return out


def _arrays(element: DataArray | DataTree) -> list[DataArray]:
    if isinstance(element, DataTree):
        return [next(iter(element[scale].data_vars.values())) for scale in element.children]
    return [element]


def _factor(full: int, level: int) -> float:
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
            attributes = json.loads((group / name).read_text())
            attributes = attributes.get("attributes", attributes)
            (multiscale,) = attributes.get("ome", attributes).get("multiscales", [{}])[:1] or [{}]
            return [group / dataset["path"] for dataset in multiscale.get("datasets", [])]
    return []


def _stored_shape(array: Path) -> tuple[int, ...] | None:
    for name in ("zarr.json", ".zarray"):
        if (array / name).is_file():
            return tuple(json.loads((array / name).read_text())["shape"])
    return None


def _window(
    start: NDArray[np.float64], size: NDArray[np.float64], shape: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last-plus-one pixel to read, ``(b, 2)`` each; a px of margin where the window cuts through pixels."""
    first = np.floor(start + _LEVEL_TOLERANCE).astype(np.int64)
    last = np.ceil(start + size - _LEVEL_TOLERANCE).astype(np.int64)
    cuts = (np.abs(start - np.round(start)) > _LEVEL_TOLERANCE).any() or (np.abs(size - np.round(size)) > 1e-6).any()
    margin = 1 if cuts else 0
    first = np.clip(first - margin, 0, shape - 1)
    return first, np.maximum(np.minimum(last + margin, shape), first + 1)


def _fit(
    window: NDArray[np.uint8], start: NDArray[np.float64], size: NDArray[np.float64], out_px: int
) -> NDArray[np.uint8]:
    exact = window.shape[1:] == (out_px, out_px) and np.allclose(size, out_px) and np.allclose(start, 0)
    if exact:
        return window
    y, x = (
        area_weights(round(float(start[axis]), 6), float(size[axis]), out_px, window.shape[axis + 1]) for axis in (0, 1)
    )
    return resample(window, y, x)


def _read(pixels: Path | Any, first: NDArray[np.int64], last: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    boxes = [np.s_[:, y0:y1, x0:x1] for (y0, x0), (y1, x1) in zip(first.tolist(), last.tolist(), strict=True)]
    if isinstance(pixels, Path):
        store = _open(pixels)
        futures = [store[box].read() for box in boxes]  # all in flight at once: shared chunks are decoded once
        return [np.asarray(future.result()) for future in futures]
    if isinstance(pixels, DataArray):
        pixels = pixels.data
    windows = [pixels[box] for box in boxes]
    if isinstance(pixels, DaskArray):
        windows = list(compute(*windows))  # type: ignore[no-untyped-call]
    return [np.asarray(window) for window in windows]


def _open(path: Path) -> Any:
    """Tensorstore handle of a Zarr array."""
    metadata = path / "zarr.json" if (path / "zarr.json").is_file() else path / ".zarray"
    stat = metadata.stat()
    # a handle survives neither a fork nor the replacement of its array
    return _opened(path, metadata.name, stat.st_mtime_ns, stat.st_ino, os.getpid())


@lru_cache(maxsize=256)
def _opened(path: Path, metadata: str, _mtime_ns: int, _inode: int, pid: int) -> Any:
    import tensorstore as ts

    spec = {
        "driver": "zarr3" if metadata == "zarr.json" else "zarr",
        "kvstore": {"driver": "file", "path": str(path)},
        "recheck_cached_data": "open",
    }
    context = _context(settings.patch_cache_mb, settings.threads, pid)
    return ts.open(spec, context=context, open=True, read=True).result()


@lru_cache(maxsize=4)
def _context(cache_mb: int, threads: int, _pid: int) -> Any:
    """Memory and threads that all arrays of a process share."""
    import tensorstore as ts

    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": cache_mb * 2**20 // _CHUNK_POOL_SHARE},
            "data_copy_concurrency": {"limit": threads},
        }
    )
