"""What the metadata of an image say: which picture is the slide, how its channels lie, how large its pixels are.

Floor 7, above evaluation. Used by 8 modules of io.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spatialsig._checks import check_positive, warn
from spatialsig.errors import InputError
from spatialsig.io.images.ome import describing, ome_images, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from xml.etree import ElementTree

    import tifffile

_BESIDE_THE_SLIDE = ("label", "macro", "thumbnail", "overview", "map", "barcode", "preview")
_MUCH_SMALLER = 4  # times fewer pixels than the slide: an overview, whatever its name
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
    "thou": 25.4,
    "pt": 25_400.0 / 72,
    "pm": 1e-6,
    "Å": 1e-4,
    "\u212b": 1e-4,  # the sign of the unit, which is another character than the letter
}
_RESOLUTION_UNIT_UM = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre
_NO_LENGTHS = {"pixel", "reference frame", "none", ""}  # units that say nothing
_PLAUSIBLE_UM_PER_PX = (0.05, 25.0)  # no scanner of slides is finer
_PLAUSIBLE_RESOLUTION = (0.05, 5.0)  # outside it a resolution is that of a printer or a screen: 72 to 4,800 dpi
_TWO_SIZES = 0.05  # share by which two statements in one file may differ
_UM_AT_1X, _OTHER_MAGNIFICATION = 10.0, 2.5  # scanners differ by a factor of 2 in what they call 20x
_MPP = re.compile(r"\bMPP[ _-]?([XY]?)\s*=\s*([^|\r\n]+)", re.IGNORECASE)  # some vendors write each axis: MPPX, MPP Y
_APPMAG = re.compile(r"\bAppMag\s*=\s*([^|\s]+)", re.IGNORECASE)
_MICRONS = re.compile(r"\s*(um|µm|μm|microns?)(\s*(/|per)\s*(px|pixel))?$", re.IGNORECASE)
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

    @property
    def listed(self) -> str:
        """Size as a message says it."""
        return f"{' x '.join(dict.fromkeys(f'{edge:.4g}' for edge in self))} um"


class Stated(NamedTuple):
    """What a file says of the size of its pixels: the size, or why none can be taken of what it says."""

    size: PixelSize | None
    why_none: str = ""  # a clause whose subject is the image; empty where it says nothing


def tiff_pixel_size(tif: tifffile.TiffFile, page: Any) -> Stated:
    """Pixel size of the image of a TIFF whose first page is ``page``; warns where the file says two.

    What is written for this purpose comes first: OME metadata, then a scanner's description, then the resolution.
    """
    said: list[tuple[str, Stated]] = []
    if tif.ome_metadata:
        said.append(("its OME metadata", _ome_size(tif, page)))
    description, name = page.description or "", tif.filehandle.path
    said += _described(description, name)
    said.append(("its resolution", _resolution(tif, page)))
    sizes = [(what, one.size) for what, one in said if one.size is not None]
    if tif.ome_metadata and said[0][1].size is None and len(sizes):
        sizes = []  # a resolution beside OME metadata is what a library fills in
    if not sizes:
        return Stated(None, next((one.why_none for _, one in said if one.why_none), ""))
    _warn_two_sizes(name, sizes, description)
    return Stated(sizes[0][1])


def _described(description: str, name: str) -> Iterator[tuple[str, Stated]]:
    """Sizes that a scanner describes: one number for both edges, or one for each."""
    axes: dict[str, str] = {}
    for axis, value in _MPP.findall(description):
        if axis:
            axes.setdefault(axis.upper(), value)
        else:
            yield f"MPP = {value.strip()}", stated_size([(value, "um")] * 2, name=name)
    if axes:
        words = " and ".join(f"MPP{axis} = {value.strip()}" for axis, value in sorted(axes.items()))
        both = stated_size([(axes.get(axis), "um") for axis in "XY"], name=name)
        yield words, both if len(axes) == 2 else Stated(None, f"states {words} alone, and no size of the other edge,")


def _warn_two_sizes(name: str, sizes: list[tuple[str, PixelSize]], description: str) -> None:
    what, size = sizes[0]
    others = [f"{other.listed} ({by})" for by, other in sizes[1:] if not np.allclose(other, size, rtol=_TWO_SIZES)]
    magnification = _APPMAG.search(description)
    if magnification and (number := _number(magnification[1])) > 0:
        usual = _UM_AT_1X / number
        if max(usual / size.x_um, size.x_um / usual) > _OTHER_MAGNIFICATION:
            others.append(f"about {usual:g} um (AppMag = {number:g})")
    if others:
        msg = (
            f"image {name!r} says two things of the size of its pixels: {size.listed} ({what}), but "
            f"{' and '.join(dict.fromkeys(others))}. The first is taken: pass `um_per_px=` if it is wrong."
        )
        warn(msg)


def _resolution(tif: tifffile.TiffFile, page: Any) -> Stated:
    """Size by the resolution of a TIFF, in the unit of ImageJ or of the tag, unless no scan of a slide has it."""
    own = UM.get(str((tif.imagej_metadata or {}).get("unit", "")))
    low, high = _PLAUSIBLE_UM_PER_PX if own else _PLAUSIBLE_RESOLUTION
    unit = own or _RESOLUTION_UNIT_UM.get(_tag(page, "ResolutionUnit"))
    sizes = [unit / r if unit and r else 0.0 for r in (_ratio(page, "XResolution"), _ratio(page, "YResolution"))]
    if all(low <= size <= high for size in sizes):
        return Stated(PixelSize(*sizes))
    what = f"has a resolution of {PixelSize(*sizes).listed} per px, which is that of a printer or a screen,"
    return Stated(None, what if all(sizes) else "")


def _ome_size(tif: tifffile.TiffFile, page: Any) -> Stated:
    pixels = describing(tif, page)
    if pixels is None:
        return Stated(None, "has OME metadata that describe other images, not this one,")
    size = size_of(pixels)
    if size is not None and size != (page.imagelength, page.imagewidth):
        described = " x ".join(map(str, size))
        return Stated(
            None,
            f"has {page.imagelength} x {page.imagewidth} px (y, x), but its OME metadata describe one of {described} px, "
            f"whose pixel size is not its own,",
        )
    return _ome_stated(pixels, tif.filehandle.path)


def ome_pixel_size(xml: str, index: int, *, name: str) -> PixelSize | None:
    """``PhysicalSizeX``, ``PhysicalSizeY`` and their units of image number ``index`` of a description."""
    images = ome_images(xml)
    return _ome_stated(images[index], name).size if index < len(images) else None


def _ome_stated(pixels: ElementTree.Element, name: str) -> Stated:
    sizes = [(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY"]
    return stated_size(sizes, name=name)


def stated_size(stated: Sequence[tuple[str | None, str]], *, name: str) -> Stated:
    """Edges of a pixel as the file ``name`` states them, value and unit, x before y; one that cannot be meant is warned of."""
    told = [(value, unit) for value, unit in stated if value and unit.strip().lower() not in _NO_LENGTHS]
    if not told:
        return Stated(None)
    listed = " x ".join(dict.fromkeys(f"{value!r} {unit}" if value else "nothing" for value, unit in stated))
    sizes = [_number(str(value)) * UM.get(unit.strip(), np.nan) for value, unit in stated]
    if not all(size > 0 for size in sizes):
        return Stated(None, f"states a pixel size of {listed} (x, y), of which no length can be taken,")
    if all(_PLAUSIBLE_UM_PER_PX[0] <= size <= _PLAUSIBLE_UM_PER_PX[1] for size in sizes):
        return Stated(PixelSize(*sizes))
    msg = (
        f"image {name!r} states a pixel size of {listed}, which is not taken: scans of slides have {_PLAUSIBLE_UM_PER_PX[0]:g} to "
        f"{_PLAUSIBLE_UM_PER_PX[1]:g} um per px. Pass `um_per_px=` where a size is needed."
    )
    warn(msg)
    return Stated(None, f"states a pixel size of {listed}, which no scan of a slide has,")


def _number(text: str) -> float:
    """Number in a text, with a decimal point or a decimal comma, with or without um after it; NaN where it is none."""
    plain = _MICRONS.sub("", text.strip())
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


def choose_um_per_px(
    path: Path | None, *, um_per_px: float | None, in_file: PixelSize | None, why_none: str = ""
) -> float:
    """Micrometres per full-resolution px: as the caller says, otherwise as the file does; ``assemble`` compares the two.

    ``why_none`` says what is wrong with what the file states, as :class:`Stated` does.
    Raises :class:`InputError` if neither says it, or the file says different edges for x and y.
    """
    name = "array" if path is None else str(path)
    if um_per_px is not None:
        return float(um_per_px)
    if in_file is None:
        fault = f"{why_none} and so" if why_none else ""
        msg = (
            f"image {name!r} {fault} does not say how large its pixels are; pass `um_per_px=` (um per full-resolution px)."
        ).replace("  ", " ")
        raise InputError(msg)
    if not in_file.is_square:
        msg = (
            f"image {name!r} says that its pixels are {in_file.x_um:.4g} x {in_file.y_um:.4g} um (x, y); wanted square ones: "
            f"resample the image, or pass `um_per_px=` if the file is wrong."
        )
        raise InputError(msg)
    check_positive(um_per_px=in_file.x_um)
    return in_file.x_um
