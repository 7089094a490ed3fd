"""Open an H&E file as windows of RGB pixels, whatever its format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr

from spatialsig._checks import check_files
from spatialsig._errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.store.images import Pixels

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".svs")
PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg")
_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_RESOLUTION_UNIT_UM = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre
_PLAUSIBLE_UM_PER_PX = (0.05, 5.0)  # a TIFF resolution outside is a default of 72 dpi, not a measurement
_DECODING_ERRORS = (OSError, ValueError, RuntimeError, KeyError, IndexError)


class RgbPixels:
    """Windows ``(h, w, 3)`` uint8 of one array in any axis order, with an alpha channel left out where it is opaque.

    Parameters
    ----------
    array
        Array-like with ``axes``; only the asked windows are read.
    axes
        One letter per axis, of ``Y``, ``X`` and ``C`` or ``S`` for the channel.
    name
        What the errors call the image.
    """

    def __init__(self, array: Any, *, axes: str, name: str) -> None:
        axes = axes.replace("C", "S")
        dtype = np.dtype(array.dtype)
        if sorted(axes) != ["S", "X", "Y"] or dtype != np.uint8 or array.shape[axes.index("S")] not in {3, 4}:
            msg = (
                f"image {name!r} is {dtype} with axes {axes or '-'} of shape {tuple(array.shape)}; wanted 8-bit RGB "
                f"(3 channels, or 4 with an opaque alpha): export the H&E as an 8-bit RGB image."
            )
            raise InputError(msg)
        self._array = array
        self._order = [axes.index(axis) for axis in "YXS"]
        self._axes = axes
        self._name = name
        size = [int(array.shape[axis]) for axis in self._order]
        self.shape = (size[0], size[1], 3)
        self.dtype = np.dtype(np.uint8)
        self.ndim = 3
        chunks = getattr(array, "chunks", None)
        self.chunks = None if chunks is None else tuple(int(chunks[axis]) for axis in self._order[:2])
        self._has_alpha = size[2] == 4

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[np.uint8]:
        """Decode the window ``[y0:y1, x0:x1]``; a third slice takes channels."""
        wanted = {"Y": window[0], "X": window[1], "S": slice(None)}
        try:
            found = np.asarray(self._array[tuple(wanted[axis] for axis in self._axes)])
        except _DECODING_ERRORS as error:
            msg = f"image {self._name!r} cannot be decoded at {self._where(window)}: {error}. Copy or export the file again."
            raise InputError(msg) from error
        pixels = np.transpose(found, self._order)
        if self._has_alpha and pixels.size and int(pixels[..., 3].min()) < 255:
            msg = (
                f"image {self._name!r} is transparent at {self._where(window)}; wanted opaque RGB: flatten its fourth "
                f"channel onto white, or export the H&E without one."
            )
            raise InputError(msg)
        return pixels[..., :3] if len(window) < 3 else pixels[..., :3][..., window[2]]

    def _where(self, window: tuple[slice, ...]) -> str:
        y, x = (part.indices(size) for part, size in zip(window[:2], self.shape[:2], strict=True))
        return f"y {y[0]}-{y[1]}, x {x[0]}-{x[1]} px"


class RgbFile:
    """An opened H&E file: the full image, the coarser levels it brings, its pixel size.

    Attributes
    ----------
    levels
        Windows of the full-resolution image and of the file's own coarser levels.
    um_per_px
        Micrometres per full-resolution px as the file says, or None.
    """

    def __init__(self, levels: list[RgbPixels], um_per_px: float | None, stores: list[Any]) -> None:
        self.levels = levels
        self.um_per_px = um_per_px
        self._stores = stores

    @property
    def pixels(self) -> Pixels:
        """Windows of the full-resolution image."""
        return self.levels[0]

    def close(self) -> None:
        """Release the file; windows cannot be read afterwards."""
        for store in self._stores:
            store.close()


def open_rgb(path: str | Path) -> RgbFile:
    """Open an 8-bit RGB image.

    Parameters
    ----------
    path
        TIFF, OME-TIFF or SVS (read tile by tile), PNG or JPEG (decoded at once).

    Raises
    ------
    FileMissingError
        If there is no such file.
    InputError
        If the format is not known, the file is damaged, or the pixels are not 8-bit RGB.
    """
    path = Path(path)
    check_files([path], what="H&E image", fix="Give the path of the image.")
    suffix = path.suffix.lower()
    if suffix in PLAIN_SUFFIXES:
        return _open_plain(path)
    if suffix in TIFF_SUFFIXES:
        return _open_tiff(path)
    msg = f"image {str(path)!r} has an unknown format; wanted one of {[*TIFF_SUFFIXES, *PLAIN_SUFFIXES]}: convert it."
    raise InputError(msg)


def _open_plain(path: Path) -> RgbFile:
    import imagecodecs

    try:
        array = imagecodecs.imread(str(path))
    except _DECODING_ERRORS as error:
        msg = f"image {str(path)!r} cannot be decoded ({error}): copy or export the file again."
        raise InputError(msg) from error
    return RgbFile([RgbPixels(array, axes="YXS"[: array.ndim], name=str(path))], None, [])


def _open_tiff(path: Path) -> RgbFile:
    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            axes = [level.axes for level in series.levels]
            um_per_px = _um_per_px(tif)
            _check_whole(tif, path)
        stores = [tifffile.imread(path, aszarr=True, series=0, level=level) for level in range(len(axes))]
    except _DECODING_ERRORS as error:
        if isinstance(error, InputError):
            raise
        msg = f"image {str(path)!r} is not a whole TIFF ({error}): copy or export the file again."
        raise InputError(msg) from error
    arrays = [zarr.open_array(store, mode="r") for store in stores]
    levels = [RgbPixels(array, axes=axis, name=str(path)) for array, axis in zip(arrays, axes, strict=True)]
    return RgbFile(levels, um_per_px, stores)


def _check_whole(tif: tifffile.TiffFile, path: Path) -> None:
    """A tile beyond the end of the file would be read as black pixels."""
    size = path.stat().st_size
    for level in tif.series[0].levels:
        for page in level.pages:
            if page is None:
                continue
            ends = np.add(page.dataoffsets, page.databytecounts)
            if len(ends) and int(ends.max()) > size:
                msg = (
                    f"image {str(path)!r} is truncated: its pixels reach to byte {int(ends.max())} but the file has "
                    f"{size}. Copy the file again."
                )
                raise InputError(msg)


def _um_per_px(tif: tifffile.TiffFile) -> float | None:
    """Pixel size from OME-XML, an Aperio description, or plausible TIFF resolution tags."""
    if tif.ome_metadata:
        return _from_ome(tif.ome_metadata)
    page = tif.pages.first
    aperio = re.search(r"\bMPP\s*=\s*([0-9.]+)", page.description or "")
    if aperio:
        return float(aperio.group(1))
    unit = _RESOLUTION_UNIT_UM.get(int(page.tags["ResolutionUnit"].value)) if "ResolutionUnit" in page.tags else None
    if unit is None or "XResolution" not in page.tags:
        return None
    numerator, denominator = page.tags["XResolution"].value
    um = unit * denominator / numerator if numerator else 0.0
    return um if _PLAUSIBLE_UM_PER_PX[0] <= um <= _PLAUSIBLE_UM_PER_PX[1] else None


def _from_ome(xml: str) -> float | None:
    try:
        pixels = ElementTree.fromstring(xml).find(".//{*}Pixels")
    except ElementTree.ParseError:
        return None
    if pixels is None:
        return None
    sizes = []
    for axis in "XY":
        value, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if value is None or unit not in _UM:
            return None
        sizes.append(float(value) * _UM[unit])
    return sizes[0] if np.isclose(sizes[0], sizes[1], rtol=0.01) else None
