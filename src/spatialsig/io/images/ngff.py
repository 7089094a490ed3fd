"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3) opened as RGB pixels.

Floor 7. Used by io/images/open_rgb.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from spatialsig._files import DECODING_ERRORS
from spatialsig.errors import InputError
from spatialsig.io.images.metadata import BY_NAME, PixelSize, other_channels, pick_slide, rgb_order, stated_size
from spatialsig.io.images.rgb import RgbFile, RgbPixels

if TYPE_CHECKING:
    from pathlib import Path

_ROOT_FILES = ("zarr.json", ".zgroup", ".zattrs")
_COLOURS = {"ff0000": 0, "00ff00": 1, "0000ff": 2}


def is_zarr(path: Path) -> bool:
    """Whether a directory is a Zarr hierarchy."""
    return path.is_dir() and any((path / file).exists() for file in _ROOT_FILES)


def open_ngff(path: Path) -> RgbFile:
    """Open the image of an OME-Zarr directory; chunks are read when they are asked for.

    Raises :class:`InputError` if there is no multi-scale RGB image, or it is damaged.
    """
    try:
        group = _image_group(zarr.open_group(path, mode="r"), path)
        scales = _metadata(group)["multiscales"][0]
        axes = [_axis(axis) for axis in scales.get("axes", "tczyx")]
        arrays = [group[dataset["path"]] for dataset in scales["datasets"]]
        channels = _channel_order(_metadata(group), str(path))
        size = _pixel_size(scales, axes)
    except InputError:
        raise
    except DECODING_ERRORS as error:
        msg = f"image {str(path)!r} is not a whole OME-Zarr ({error}): copy or export the directory again."
        raise InputError(msg) from error
    names = [name for name, _ in axes]
    levels = [_rgb(array, names, str(path), channels) for array in arrays]
    return RgbFile(levels, size, [])


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
    sizes: list[tuple[str, int, int]] = []
    for group in groups:
        scales = _metadata(group)["multiscales"][0]
        array: Any = group[scales["datasets"][0]["path"]]
        sizes.append((str(scales.get("name") or group.basename), int(array.shape[-2]), int(array.shape[-1])))
    return groups[pick_slide(sizes, name=str(path))]


def _axis(axis: Any) -> tuple[str, str | None]:
    """Name and unit; 0.3 has names alone."""
    return (str(axis["name"]).lower(), axis.get("unit")) if isinstance(axis, dict) else (str(axis).lower(), None)


def _pixel_size(scales: dict[str, Any], axes: list[tuple[str, str | None]]) -> PixelSize | None:
    factor = np.ones(len(axes))
    for source in (scales["datasets"][0], scales):
        for step in source.get("coordinateTransformations", []):
            if step.get("type") == "scale":
                factor = factor * np.asarray(step["scale"], np.float64)
    sizes = {name: (str(factor[i]), str(unit)) for i, (name, unit) in enumerate(axes) if name in "xy"}
    return stated_size([sizes["x"], sizes["y"]]) if {"x", "y"} <= sizes.keys() else None


def _channel_order(metadata: dict[str, Any], name: str) -> list[int] | None:
    """Positions of red, green and blue by the channels' names or colours; None: as they come."""
    channels = metadata.get("omero", {}).get("channels", [])
    if len(channels) not in {3, 4}:
        return None
    labels = [str(channel.get("label", "")).lower() for channel in channels]
    order = rgb_order([BY_NAME.get(label) for label in labels])
    order = order or rgb_order([_COLOURS.get(str(channel.get("color", "")).lower()) for channel in channels])
    if (
        order is None
        and len(channels) == 3
        and any(not re.fullmatch(r"(channel)?[\s:]*\d*", label) for label in labels)
    ):
        raise other_channels(name, labels)
    return order
