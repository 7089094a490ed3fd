"""How large the pixels of a file are: OME-XML, Aperio, ImageJ and TIFF tags say it in four ways."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from spatialsig.io._rgb import PixelSize

if TYPE_CHECKING:
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
