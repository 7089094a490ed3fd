"""Pixel sizes read from the metadata of images: OME-XML, Aperio, ImageJ and TIFF tags."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from spatialsig._checks import check_positive
from spatialsig.errors import InputError, SpatialsigWarning

if TYPE_CHECKING:
    from pathlib import Path

    import tifffile

UM = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "\\u00B5m": 1.0,  # as ImageJ writes it
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "mm": 1e3,
    "millimeter": 1e3,
    "millimetre": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "metre": 1e6,
    "inch": 25_400.0,
}
_RESOLUTION_UNIT_UM = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre
_PLAUSIBLE_UM_PER_PX = (0.05, 5.0)  # a TIFF resolution outside is a default of 72 dpi, not a measurement
_SAME_SIZE_RTOL = 0.01


class PixelSize(NamedTuple):
    """Edges of a full-resolution pixel, um."""

    x_um: float
    y_um: float

    @property
    def is_square(self) -> bool:
        """Whether one number describes both edges (1 % apart at most)."""
        return bool(np.isclose(self.x_um, self.y_um, rtol=_SAME_SIZE_RTOL))


def tiff_pixel_size(tif: tifffile.TiffFile, page: Any, index: int) -> PixelSize | None:
    """Pixel size of the image number ``index`` of a TIFF, whose first page is ``page``."""
    if tif.ome_metadata:
        return ome_pixel_size(tif.ome_metadata, index)
    aperio = re.search(r"\bMPP\s*=\s*([0-9.]+)", page.description or "")
    if aperio:
        return PixelSize(float(aperio.group(1)), float(aperio.group(1)))
    imagej = str((tif.imagej_metadata or {}).get("unit", ""))
    unit = UM.get(imagej) or _RESOLUTION_UNIT_UM.get(_tag(page, "ResolutionUnit"))
    sizes = [unit / r if unit and r else 0.0 for r in (_ratio(page, "XResolution"), _ratio(page, "YResolution"))]
    plausible = all(_PLAUSIBLE_UM_PER_PX[0] <= size <= _PLAUSIBLE_UM_PER_PX[1] for size in sizes)
    return PixelSize(*sizes) if plausible else None


def ome_pixel_size(xml: str, index: int) -> PixelSize | None:
    """``PhysicalSizeX``, ``PhysicalSizeY`` and their units of image number ``index``."""
    try:
        images = ElementTree.fromstring(xml).findall(".//{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return None
    if not images:
        return None
    pixels = images[min(index, len(images) - 1)]
    sizes = []
    for axis in "XY":
        value, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if value is None or unit not in UM:
            return None
        sizes.append(float(value) * UM[unit])
    return PixelSize(*sizes)


def _tag(page: Any, name: str) -> int:
    return int(page.tags[name].value) if name in page.tags else 0


def _ratio(page: Any, name: str) -> float:
    if name not in page.tags:
        return 0.0
    numerator, denominator = page.tags[name].value
    return numerator / denominator if denominator else 0.0


def choose_um_per_px(path: Path | None, *, um_per_px: float | None, in_file: PixelSize | None) -> float:
    """Micrometres per full-resolution px: as the caller says, otherwise as the file does.

    Raises
    ------
    InputError
        If neither says it, or the file says different edges for x and y.
    """
    name = "array" if path is None else str(path)
    if um_per_px is not None:
        check_positive(um_per_px=um_per_px)
        if in_file is not None and not np.allclose(um_per_px, in_file, rtol=0.05):
            says = " x ".join(f"{edge:.4g}" for edge in in_file[: 1 if in_file.is_square else 2])
            msg = f"`um_per_px={um_per_px:g}` is used, but image {name!r} says {says} um per px; check which is right."
            warnings.warn(msg, SpatialsigWarning, stacklevel=3)
        return float(um_per_px)
    if in_file is None:
        msg = f"image {name!r} does not say how large its pixels are; pass `um_per_px=` (um per full-resolution px)."
        raise InputError(msg)
    if not in_file.is_square:
        msg = (
            f"image {name!r} says that its pixels are {in_file.x_um:.4g} x {in_file.y_um:.4g} um (x, y); wanted square ones: "
            f"resample the image, or pass `um_per_px=` if the file is wrong."
        )
        raise InputError(msg)
    check_positive(um_per_px=in_file.x_um)
    return in_file.x_um
