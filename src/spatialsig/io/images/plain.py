"""PNG and JPEG files decoded into RGB pixels: they have no tiles, so the whole image at once.

Floor 7, above evaluation. Used by io/images/open_rgb.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING

from spatialsig._files import DECODING_ERRORS, content_hint
from spatialsig.errors import InputError
from spatialsig.io.images.metadata import warn_turned
from spatialsig.io.images.rgb import RgbFile, RgbPixels
from spatialsig.io.images.tiff import MANY_PX, warn_decoded_at_once

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL.JpegImagePlugin import JpegImageFile

_PNG = b"\x89PNG\r\n\x1a\n"
_EXIF = (b"Exif\x00", b"eXIf")
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def open_plain(path: Path) -> RgbFile:
    """Decode a PNG or JPEG into RGB pixels; :class:`InputError` if it is damaged, gray, transparent or CMYK."""
    data = path.read_bytes()
    try:
        array = _decode_jpeg(data, path) if data.startswith(_JPEG) else _decode_png(data, path)
    except InputError:
        raise
    except DECODING_ERRORS as error:
        msg = f"image {str(path)!r} cannot be decoded ({error}): copy or export the file again.{content_hint(path)}"
        raise InputError(msg) from error
    warn_turned(path, _orientation(data))
    return RgbFile([RgbPixels(array, axes="YXS"[: array.ndim], name=str(path))], None, [])


def _orientation(data: bytes) -> int:
    """Orientation in the EXIF of a PNG or JPEG that was decoded; 1 without one, or where it is damaged."""
    from PIL import ExifTags, Image

    if not any(mark in data for mark in _EXIF):
        return 1  # a PNG would be decoded to its end to find that out
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except (SyntaxError, Image.DecompressionBombError, *DECODING_ERRORS):
        return 1


def _decode_jpeg(data: bytes, path: Path) -> NDArray[np.uint8]:
    import imagecodecs

    header, pixels_at = _jpeg_header(data)
    if header.layers == 4:
        msg = (
            f"image {str(path)!r} is a CMYK JPEG, whose colours depend on a printer's profile; wanted 8-bit RGB: "
            f"export the H&E as an 8-bit RGB image."
        )
        raise InputError(msg)
    _warn_many_pixels(path, header.height * header.width)
    if data.rfind(_JPEG_END) < pixels_at:  # a thumbnail in the header has an end of its own
        msg = "the JPEG data end before the image does"
        raise ValueError(msg)
    array: NDArray[np.uint8] = imagecodecs.jpeg8_decode(data)
    return array


def _jpeg_header(data: bytes) -> tuple[JpegImageFile, int]:
    """Size and number of channels of a JPEG, and the byte where its compressed pixels begin."""
    from PIL.JpegImagePlugin import JpegImageFile

    stream = io.BytesIO(data)
    try:
        return JpegImageFile(stream), stream.tell()
    except (SyntaxError, *DECODING_ERRORS) as error:  # a syntax error, Pillow says, is what it cannot read
        msg = "it has no whole JPEG header"
        raise ValueError(msg) from error


def _decode_png(data: bytes, path: Path) -> NDArray[np.uint8]:
    import imagecodecs

    if not data.startswith(_PNG) or len(data) < 33:
        msg = f"it begins with {data[:8]!r}, which is neither PNG nor JPEG" if data else "it is empty"
        raise ValueError(msg)
    # not by Pillow, which refuses the file for a damaged note that libpng leaves out
    width, height = struct.unpack(">II", data[16:24])
    _warn_many_pixels(path, height * width)
    array: NDArray[np.uint8] = imagecodecs.png_decode(data)
    return array


def _warn_many_pixels(path: Path, pixels: int) -> None:
    if pixels > MANY_PX:
        warn_decoded_at_once(path, pixels)
