"""TIFF, OME-TIFF, SVS, NDPI and their kin opened as RGB pixels.

Floor 7, above evaluation. Used by io/images/open_rgb, io/images/plain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from spatialsig._checks import warn
from spatialsig._files import DECODING_ERRORS, content_hint
from spatialsig.data.channels import BY_NAME, channel_order, other_channels, rgb_order
from spatialsig.errors import InputError
from spatialsig.io.images.metadata import (
    pick_slide,
    tiff_orientation,
    tiff_pixel_size,
    warn_turned,
)
from spatialsig.io.images.ome import describing
from spatialsig.io.images.rgb import RgbFile, RgbPixels
from spatialsig.io.images.tiff_level import SEPARATE, Bytes, TiffLevel

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_JPEG = {6, 7, 34892, 33007}
_REFUSED = {
    0: "gray (white is zero)",
    5: "CMYK, whose colours depend on a printer's profile",
    8: "CIELAB",
    9: "CIELAB",
    10: "CIELAB",
}
_PALETTE, _YCBCR, _APERIO_YCBCR = 3, 6, 33003
_OME_RGB = {0xFF0000: 0, 0x00FF00: 1, 0x0000FF: 2}
MANY_PX = 2**28  # more pixels than this in one piece are worth a warning: 768 MiB


def open_tiff(path: Path) -> RgbFile:
    """Open the slide of a TIFF; tiles or strips are read when they are asked for.

    Raises :class:`InputError` if the file is damaged, or its pixels cannot become 8-bit RGB for sure.
    """
    file = Bytes(path)
    try:
        return _open(path, file)
    except BaseException as error:
        file.close()
        if isinstance(error, DECODING_ERRORS) and not isinstance(error, InputError):
            msg = (
                f"image {str(path)!r} is not a whole TIFF ({error}): copy or export the file again.{content_hint(path)}"
            )
            raise InputError(msg) from error
        raise


def _open(path: Path, file: Bytes) -> RgbFile:
    with tifffile.TiffFile(path) as tif:
        levels = [_pages(level, path) for level in _slide_series(tif, path).levels]
        first, page = levels[0][0], levels[0][0].keyframe
        _check_whole(levels, path)
        for pages in levels:
            _check_colours(pages[0].keyframe, path)
        stated = tiff_pixel_size(tif, first)
        channels = _channel_order(tif, levels[0])
        orientation = tiff_orientation(page)
        windows = [TiffLevel(pages, file) for pages in levels]  # tifffile prepares its decoders from the open file
    _warn_one_piece(page, path)
    _warn_aborted(first, path)
    warn_turned(path, orientation)
    pixels = [_rgb(level, page, str(path), channels) for level in windows]
    return RgbFile(pixels, stated.size, [file], why_no_size=stated.why_none)


def _rgb(level: TiffLevel, page: Any, name: str, channels: list[int] | None) -> RgbPixels:
    palette = _palette(page) if page.photometric == _PALETTE else None
    return RgbPixels(level, axes="YXS"[: len(level.shape)], name=name, palette=palette, channels=channels)


def _slide_series(tif: tifffile.TiffFile, path: Path) -> Any:
    """The image of the slide."""
    images = list(tif.series)
    if not images:
        msg = f"image {str(path)!r} holds no image: copy or export the file again."
        raise InputError(msg)
    sizes = [(str(s.name), int(s.keyframe.imagelength), int(s.keyframe.imagewidth)) for s in images]
    series = images[pick_slide(sizes, name=str(path))]
    stacked = {axis: n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXSC" and n > 1}
    if stacked:
        msg = (
            f"image {str(path)!r} is a stack of {' x '.join(map(str, stacked.values()))} images (axes {series.axes} of "
            f"shape {series.shape}); wanted one H&E: save one plane as RGB."
        )
        raise InputError(msg)
    return series


def _pages(level: Any, path: Path) -> list[Any]:
    """Pages of one level: a single one, or one per channel; what they read lazily is read now."""
    pages = list(level.pages)
    per_page = 1 if pages and pages[0] is not None and pages[0].keyframe.samplesperpixel == 1 else None
    if any(page is None for page in pages) or not (len(pages) == 1 or (per_page == 1 and len(pages) in {3, 4})):
        msg = (
            f"image {str(path)!r} has axes {level.axes} of shape {level.shape} over {len(pages)} pages; wanted 8-bit RGB "
            f"in one page or in one page per channel: export the H&E as an 8-bit RGB image."
        )
        raise InputError(msg)
    for page in pages:
        len(page.dataoffsets), len(page.databytecounts), page.jpegtables  # tags are read on first use
    return pages


def _check_whole(levels: list[list[Any]], path: Path) -> None:
    """Raise when pixels would lie beyond the end of the file."""
    size = path.stat().st_size
    if not any(np.any(page.databytecounts) for page in levels[0]):
        msg = f"image {str(path)!r} holds no pixels, all its tiles are empty: copy or export the file again."
        raise InputError(msg)
    for page in (page for pages in levels for page in pages):
        _check_size(page, path)
        ends = np.add(page.dataoffsets, page.databytecounts)
        if len(ends) and int(ends.max()) > size:
            msg = (
                f"image {str(path)!r} is truncated: its pixels reach to byte {int(ends.max())} but the file has "
                f"{size}. Copy the file again."
            )
            raise InputError(msg)


def _check_size(page: Any, path: Path) -> None:
    """Refuse a page whose header promises more tiles or strips than are listed: the size is that of another image."""
    key = page.keyframe
    height, width = int(key.imagelength), int(key.imagewidth)
    tile = (key.tilelength, key.tilewidth) if key.tilewidth else (key.rowsperstrip, width)
    planes = int(key.samplesperpixel) if key.planarconfig == SEPARATE else 1
    needed = planes * -(-height // max(int(tile[0]), 1)) * -(-width // max(int(tile[1]), 1))
    if len(page.databytecounts) < needed:
        msg = (
            f"image {str(path)!r} is damaged: {width} x {height} px are {needed} pieces, and it lists {len(page.databytecounts)}. Copy or "
            "export the file again."
        )
        raise InputError(msg)


def _warn_aborted(page: Any, path: Path) -> None:
    """Warn where tiles are filled up to one in the middle of a row and empty from there on, as no scanner leaves them out."""
    counts = np.asarray(page.databytecounts)
    filled = int(np.count_nonzero(counts))
    across = -(-page.imagewidth // page.tilewidth) if page.tilewidth else 1
    if 0 < filled < len(counts) and counts[:filled].all() and (across == 1 or filled % across):
        msg = (
            f"image {str(path)!r} looks like one whose writing was broken off: its first {filled} tiles or strips hold pixels, "
            f"and the {len(counts) - filled} after them none ({1 - filled / len(counts):.0%}), which are taken as white. Export "
            f"it again if there was tissue."
        )
        warn(msg)


def _check_colours(page: Any, path: Path) -> None:
    what = _REFUSED.get(int(page.photometric))
    if page.photometric == _YCBCR and page.compression not in _JPEG:  # no other decoder turns it into RGB
        what = "YCbCr without JPEG compression"
    if page.compression == _APERIO_YCBCR:
        what = "Aperio JPEG 2000 in YCbCr, which only openslide decodes"
    if what is not None:
        msg = f"image {str(path)!r} is {what}; wanted 8-bit RGB: export the H&E as an 8-bit RGB image."
        raise InputError(msg)


def _warn_one_piece(page: Any, path: Path) -> None:
    rows = page.imagelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
    pixels = (page.tilelength * page.tilewidth) if page.tilewidth else rows * page.imagewidth
    if pixels > MANY_PX and not page.is_contiguous:
        warn_decoded_at_once(path, pixels)


def warn_decoded_at_once(path: Path, pixels: int) -> None:
    """Warn that a file is not tiled, and of the memory that this takes."""
    msg = (
        f"image {str(path)!r} cannot be read piece by piece: {pixels / 1e6:.0f} million px are decoded at once and need "
        f"about {2 * 3 * pixels / 2**30:.1f} GiB of memory. Save it as a tiled TIFF if that is too much."
    )
    warn(msg)


def _palette(page: Any) -> NDArray[np.uint8]:
    """Colours ``(n, 3)`` of a palette, which TIFF keeps as 16-bit values."""
    colours = np.asarray(page.colormap)
    shift = 8 if colours.max() > 255 else 0
    return np.ascontiguousarray((colours >> shift).T, dtype=np.uint8)


def _channel_order(tif: tifffile.TiffFile, pages: list[Any]) -> list[int] | None:
    """Positions of red, green and blue by the names or colours that a file gives its channels; None: as they come.

    Raises :class:`InputError` if channels that are pages of their own are called something else: fluorescence, most likely.
    """
    names, colours = _named_channels(tif, pages[0])
    by_name = [BY_NAME.get(name) for name in names]
    if len(pages) == 1:  # the samples of one page are red, green and blue by what the page says
        return rgb_order(by_name)
    where = f"image {tif.filehandle.path!r}"
    order = channel_order(names, [_OME_RGB.get((colour >> 8) & 0xFFFFFF) for colour in colours], where=where)
    if order is None and any(names) and None in by_name:
        raise other_channels(where, names)
    return order


def _named_channels(tif: tifffile.TiffFile, page: Any) -> tuple[list[str], list[int]]:
    """Names of the channels and their colours, as OME or ImageJ write them; empty where they do not."""
    if tif.ome_metadata:
        described = describing(tif, page)
        channels = [] if described is None else described.findall("{*}Channel")
        names = [str(channel.get("Name", "")) for channel in channels]
        colours = [int(channel.get("Color", "-1")) for channel in channels]
    else:
        labels = (tif.imagej_metadata or {}).get("Labels") or []
        names = (
            [str(label) for label in labels] if rgb_order([BY_NAME.get(str(n).strip().lower()) for n in labels]) else []
        )
        colours = [-1] * len(names)
    return [name.strip().lower() for name in names], colours


def has_pieces(path: Path) -> bool:
    """Whether the first image of a file can be read piece by piece."""
    try:
        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            return bool(page.tilewidth) or page.rowsperstrip < page.imagelength or page.is_contiguous
    except DECODING_ERRORS as error:
        msg = f"image {str(path)!r} is not a whole TIFF ({error}): copy or export the file again."
        raise InputError(msg) from error
