"""What the metadata of an image say: which picture is the slide, how its channels lie, how large its pixels are.

Floor 7. Used by 8 modules of io.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from spatialsig._checks import check_positive, warn
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import tifffile

_BESIDE_THE_SLIDE = ("label", "macro", "thumbnail", "overview", "map", "barcode", "preview")
_MUCH_SMALLER = 4  # times fewer pixels than the slide: an overview, whatever its name
BY_NAME = {"red": 0, "r": 0, "green": 1, "g": 1, "blue": 2, "b": 2}
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
    "in": 25_400.0,
    "dm": 1e5,
    "pm": 1e-6,
    "Å": 1e-4,
    "\u212b": 1e-4,  # the sign of the unit, which is another character than the letter
}
_RESOLUTION_UNIT_UM = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre
_PLAUSIBLE_UM_PER_PX = (
    0.05,
    25.0,
)  # no scanner of slides is finer, and outside it a TIFF resolution is a default of 72 dpi
_SAME_SIZE_RTOL = 0.01
_TURNS = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored along a diagonal",
    6: "turned by 90 degrees clockwise",
    7: "mirrored along the other diagonal",
    8: "turned by 90 degrees counter-clockwise",
}


def pick_slide(images: Sequence[tuple[str, int, int]], *, name: str) -> int:
    """Index of the one image, of ``(name, height, width)``, that is the slide; :class:`InputError` if two could be."""
    possible = [
        i for i, (label, *_) in enumerate(images) if not any(word in label.lower() for word in _BESIDE_THE_SLIDE)
    ]
    area = {i: images[i][1] * images[i][2] for i in possible}
    if not area:
        msg = f"image {name!r} holds only {[label for label, *_ in images]}; wanted the scan of a slide."
        raise InputError(msg)
    best = max(area, key=lambda i: area[i])
    rivals = [
        i for i in possible if i != best and area[i] * _MUCH_SMALLER > area[best] and not _reduced(images, best, i)
    ]
    if rivals:
        sizes = [f"{images[i][1]} x {images[i][2]}" for i in [best, *rivals]]
        msg = (
            f"image {name!r} holds {len(sizes)} images of {', '.join(sizes)} px (y, x), and it is not clear which one "
            f"is the slide: save the slide alone as a TIFF."
        )
        raise InputError(msg)
    return best


def _reduced(images: Sequence[tuple[str, int, int]], full: int, small: int) -> bool:
    """Whether one image is half the other, as the next level of a pyramid."""
    (_, height, width), (_, half_height, half_width) = images[full], images[small]
    return abs(height - 2 * half_height) <= 2 and abs(width - 2 * half_width) <= 2


def rgb_order(colours: Sequence[int | None]) -> list[int] | None:
    """Positions of red, green and blue among channels with these colours (0 to 2); None unless each is there once."""
    if sorted(colour for colour in colours if colour is not None) != [0, 1, 2]:
        return None
    return [list(colours).index(channel) for channel in range(3)]


def other_channels(name: str, labels: list[str]) -> InputError:
    """Error for an image whose channels are called something else: fluorescence, most likely."""
    return InputError(
        f"image {name!r} has channels {labels}; wanted red, green and blue: give the colour scan of the H&E."
    )


def warn_turned(path: Path, orientation: int) -> None:
    """Warn where a file says that viewers shall turn or mirror its pixels (TIFF and EXIF orientation other than 1)."""
    if orientation in _TURNS:
        msg = (
            f"image {str(path)!r} says that viewers shall show it {_TURNS[orientation]} (orientation {orientation}). Its "
            f"pixels are taken as they are stored, as tifffile, openslide and spatialdata-io do: an alignment or positions "
            f"made in a viewer that turns it do not fit. Save it without the tag; `sp.pp.qc_alignment` tells whether it fits."
        )
        warn(msg)


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
    aperio = re.search(r"\bMPP\s*=\s*([^|\s]+)", page.description or "")
    if aperio:
        return stated_size([(aperio.group(1), "um")] * 2)
    imagej = str((tif.imagej_metadata or {}).get("unit", ""))
    unit = UM.get(imagej) or _RESOLUTION_UNIT_UM.get(_tag(page, "ResolutionUnit"))
    sizes = [unit / r if unit and r else 0.0 for r in (_ratio(page, "XResolution"), _ratio(page, "YResolution"))]
    plausible = all(_PLAUSIBLE_UM_PER_PX[0] <= size <= _PLAUSIBLE_UM_PER_PX[1] for size in sizes)
    return PixelSize(*sizes) if plausible else None


def ome_images(xml: str) -> list[ElementTree.Element]:
    """``Pixels`` of every image that OME-XML describes; none where it is no XML, of which nothing can be taken."""
    try:
        return ElementTree.fromstring(xml).findall(".//{*}Image/{*}Pixels")
    except ElementTree.ParseError:
        return []


def ome_pixel_size(xml: str, index: int) -> PixelSize | None:
    """``PhysicalSizeX``, ``PhysicalSizeY`` and their units of image number ``index``."""
    images = ome_images(xml)
    if not images:
        return None
    pixels = images[min(index, len(images) - 1)]
    stated = [(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"]
    return stated_size(stated)


def stated_size(stated: Sequence[tuple[str | None, str]]) -> PixelSize | None:
    """Edges of a pixel as a file states them, value and unit; None where it states none, or one that cannot be meant."""
    sizes = [_number(str(value)) * UM.get(unit.strip(), np.nan) for value, unit in stated]
    if not all(size > 0 for size in sizes):  # nothing, no number, or a unit that says nothing, such as "pixel"
        return None
    if all(_PLAUSIBLE_UM_PER_PX[0] <= size <= _PLAUSIBLE_UM_PER_PX[1] for size in sizes):
        return PixelSize(*sizes)
    listed = " x ".join(f"{value!r} {unit}" for value, unit in dict.fromkeys(stated))
    msg = (
        f"an image states a pixel size of {listed}, which is not taken: scans of slides have {_PLAUSIBLE_UM_PER_PX[0]:g} to "
        f"{_PLAUSIBLE_UM_PER_PX[1]:g} um per px. Pass `um_per_px=` where a size is needed."
    )
    warn(msg)
    return None


def _number(text: str) -> float:
    """Number in a text, with a decimal point or a decimal comma; NaN where it is none."""
    plain = text.strip()
    try:
        return float(plain.replace(",", ".") if plain.count(",") == 1 and "." not in plain else plain)
    except ValueError:
        return np.nan


def tiff_orientation(page: Any) -> int:
    """How viewers shall turn a page of a TIFF; 1: not at all."""
    return _tag(page, "Orientation") or 1


def _tag(page: Any, name: str) -> int:
    return int(page.tags[name].value) if name in page.tags else 0


def _ratio(page: Any, name: str) -> float:
    if name not in page.tags:
        return 0.0
    numerator, denominator = page.tags[name].value
    return numerator / denominator if denominator else 0.0


def choose_um_per_px(path: Path | None, *, um_per_px: float | None, in_file: PixelSize | None) -> float:
    """Micrometres per full-resolution px: as the caller says, otherwise as the file does; ``assemble`` compares the two.

    Raises :class:`InputError` if neither says it, or the file says different edges for x and y.
    """
    name = "array" if path is None else str(path)
    if um_per_px is not None:
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
