"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3) opened as RGB pixels.

Floor 7, above evaluation. Used by io/images/open_rgb, whole_slides/listing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from spatialsig._checks import warn
from spatialsig._files import DECODING_ERRORS
from spatialsig.data.channels import channel_order
from spatialsig.errors import InputError
from spatialsig.io.images.metadata import Stated, pick_slide, stated_size
from spatialsig.io.images.rgb import RgbFile, RgbPixels
from spatialsig.store.chunk_files import check_arrays

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_ROOT_FILES = ("zarr.json", ".zgroup", ".zattrs")
_SAME_FACTOR = 0.1  # by which the scale of a level may miss its size: sizes are rounded
_COLOURS = {"ff0000": 0, "00ff00": 1, "0000ff": 2}


def is_zarr(path: Path) -> bool:
    """Whether a directory is a Zarr hierarchy."""
    return path.is_dir() and any((path / file).exists() for file in _ROOT_FILES)


def open_ngff(path: Path) -> RgbFile:
    """Open the image of an OME-Zarr directory; chunks are read when they are asked for.

    Raises :class:`InputError` if there is no multi-scale RGB image, or it is damaged.
    """
    try:
        group, scales = _slide_of(zarr.open_group(path, mode="r"), path)
        axes = [_axis(axis) for axis in scales.get("axes", "tczyx")]
        arrays: list[Any] = [group[dataset["path"]] for dataset in scales["datasets"]]
        channels = _channel_order(_metadata(group), str(path))
        stated = _pixel_size(scales, axes, str(path))
        _warn_scales(scales, axes, arrays, str(path))
    except InputError:
        raise
    except DECODING_ERRORS as error:
        msg = f"image {str(path)!r} is not a whole OME-Zarr ({error}): copy or export the directory again."
        raise InputError(msg) from error
    names = [name for name, _ in axes]
    levels = [_rgb(array, names, str(path), channels) for array in arrays]
    check_arrays([path / array.path for array in arrays], name=str(path))
    return RgbFile(levels, stated.size, [], why_no_size=stated.why_none)


class _Plane:
    """The one plane and time of an array; ``(c, y, x)`` in any order."""

    def __init__(self, array: Any, axes: list[str]) -> None:
        self._array, self._axes = array, axes
        kept = [i for i, axis in enumerate(axes) if axis in "cyx"]
        self.shape = tuple(int(array.shape[i]) for i in kept)
        self.dtype = np.dtype(array.dtype)
        self.chunks = tuple(int(array.chunks[i]) for i in kept)

    def __getitem__(self, window: tuple[slice, ...]) -> Any:
        parts = iter(window)
        return self._array[tuple(next(parts) if axis in "cyx" else 0 for axis in self._axes)]


def _rgb(array: Any, axes: list[str], name: str, channels: list[int] | None) -> RgbPixels:
    if len(axes) != len(array.shape):
        msg = f"image {name!r} has {len(axes)} axes {axes} but an array of shape {array.shape}: export it again."
        raise InputError(msg)
    stacked = {axis: n for axis, n in zip(axes, array.shape, strict=True) if axis not in "cyx" and n > 1}
    if stacked:
        msg = f"image {name!r} is a stack (axes {axes}, shape {array.shape}); wanted one H&E: save one plane as RGB."
        raise InputError(msg)
    kept = "".join(axis for axis in axes if axis in "cyx").upper()
    return RgbPixels(_Plane(array, axes), axes=kept, name=name, channels=channels)


def _metadata(group: zarr.Group) -> dict[str, Any]:
    """OME part of the attributes: a key of its own since 0.5."""
    attributes: dict[str, Any] = dict(group.attrs)
    metadata: dict[str, Any] = attributes.get("ome", attributes)
    return metadata


def _image_group(root: zarr.Group, path: Path) -> zarr.Group:
    """Group with the multiscales: the root, or the slide among the images that bioformats2raw writes side by side."""
    if "multiscales" in _metadata(root):
        return root
    if "spatialdata_attrs" in root.attrs:
        msg = f"image {str(path)!r} is a SpatialData store, no image; read it with spatialsig.io.read."
        raise InputError(msg)
    groups = [group for _, group in sorted(root.groups()) if "multiscales" in _metadata(group)]
    if not groups:
        msg = (
            f"image {str(path)!r} is a Zarr directory without `multiscales`; wanted an OME-Zarr image: export it again."
        )
        raise InputError(msg)
    sizes = [_size(group, _metadata(group)["multiscales"][0], group.basename) for group in groups]
    return groups[pick_slide(sizes, name=str(path))]


def _slide_of(root: zarr.Group, path: Path) -> tuple[zarr.Group, dict[str, Any]]:
    """The group of the slide, and the slide among the images that it describes."""
    group = _image_group(root, path)
    images: list[dict[str, Any]] = _metadata(group)["multiscales"]
    if len(images) == 1:
        return group, images[0]
    sizes = [_size(group, image, f"image {number}") for number, image in enumerate(images)]
    return group, images[pick_slide(sizes, name=str(path))]


def _size(group: zarr.Group, scales: dict[str, Any], name: str) -> tuple[str, int, int]:
    """Name, height and width of the image that an entry of ``multiscales`` describes."""
    array: Any = group[scales["datasets"][0]["path"]]
    names = [axis for axis, _ in map(_axis, scales.get("axes", "tczyx"))]
    y, x = (names.index(axis) if axis in names else position for axis, position in (("y", -2), ("x", -1)))
    return str(scales.get("name") or name), int(array.shape[y]), int(array.shape[x])


def _axis(axis: Any) -> tuple[str, str | None]:
    """Name and unit; 0.3 has names alone."""
    return (str(axis["name"]).lower(), axis.get("unit")) if isinstance(axis, dict) else (str(axis).lower(), None)


def _scale(sources: Iterable[dict[str, Any]], n_axes: int) -> NDArray[np.float64]:
    """Product of the scales that these sources state, one per axis."""
    factor = np.ones(n_axes)
    for source in sources:
        for step in source.get("coordinateTransformations", []):
            if step.get("type") == "scale":
                factor = factor * np.asarray(step["scale"], np.float64)
    return factor


def _pixel_size(scales: dict[str, Any], axes: list[tuple[str, str | None]], name: str) -> Stated:
    sources = (scales["datasets"][0], scales)
    if not any(
        step.get("type") == "scale" for source in sources for step in source.get("coordinateTransformations", [])
    ):
        return Stated(None)  # a scale of 1 that nobody wrote says nothing
    factor = _scale(sources, len(axes))
    sizes = {axis: (str(factor[i]), unit or "") for i, (axis, unit) in enumerate(axes) if axis in "xy"}
    return stated_size([sizes["x"], sizes["y"]], name=name) if {"x", "y"} <= sizes.keys() else Stated(None)


def _warn_scales(scales: dict[str, Any], axes: list[tuple[str, str | None]], arrays: list[Any], name: str) -> None:
    """Warn where the px of a level, by its scale, do not cover the field that its size says."""
    places = [i for i, (axis, _) in enumerate(axes) if axis in "xy"]
    stated = [_scale([dataset], len(axes)) for dataset in scales["datasets"]]
    if all(np.array_equal(scale, np.ones(len(axes))) for scale in stated):
        return  # none is stated
    for dataset, scale, array in zip(scales["datasets"][1:], stated[1:], arrays[1:], strict=True):
        by_scale = [scale[i] / stated[0][i] for i in places]
        by_size = [arrays[0].shape[i] / array.shape[i] for i in places]
        if not np.allclose(by_scale, by_size, rtol=_SAME_FACTOR):
            msg = (
                f"image {name!r}: level {dataset['path']!r} has {1 / by_size[0]:.3g} times the px of the first along an edge, "
                f"but its scale says px {by_scale[0]:.3g} times as large. One of the scales is wrong, and the pixel size is "
                f"taken from that of the first: pass `um_per_px=` if you know it."
            )
            warn(msg)
            return


def _channel_order(metadata: dict[str, Any], name: str) -> list[int] | None:
    """Positions of red, green and blue by the channels' names or colours; None: as they come."""
    channels = metadata.get("omero", {}).get("channels", [])
    if len(channels) not in {3, 4}:
        return None
    colours = [_COLOURS.get(str(channel.get("color", "")).lower()) for channel in channels]
    return channel_order([channel.get("label") for channel in channels], colours, where=f"image {name!r}")
