"""PNG and JPEG: no tiles, so that the whole image is decoded at once."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from spatialsig._errors import InputError
from spatialsig.io.images.rgb import DECODING_ERRORS, RgbFile, RgbPixels
from spatialsig.io.images.tiff import MANY_PX, warn_decoded_at_once

if TYPE_CHECKING:
    from pathlib import Path

_PNG = b"\x89PNG\r\n\x1a\n"
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_START_OF_SCAN = 0xDA
_STANDALONE = {0x01, *range(0xD0, 0xDA)}


class Header(NamedTuple):
    """What a file says before its pixels."""

    height: int
    width: int
    n_channels: int  # 0: unknown
    pixels_at: int  # byte where the compressed pixels begin


def open_plain(path: Path) -> RgbFile:
    """Decode a PNG or JPEG.

    Raises
    ------
    InputError
        If the file is damaged, gray, transparent or CMYK.
    """
    import imagecodecs

    data = path.read_bytes()
    try:
        header = _read_header(data)
        if header.n_channels == 4 and data.startswith(_SOI):
            msg = (
                f"image {str(path)!r} is a CMYK JPEG, whose colours depend on a printer's profile; wanted 8-bit RGB: "
                f"export the H&E as an 8-bit RGB image."
            )
            raise InputError(msg)
        if header.height * header.width > MANY_PX:
            warn_decoded_at_once(path, header.height * header.width)
        if data.startswith(_SOI) and data.rfind(_EOI) < header.pixels_at:
            msg = "the JPEG data end before the image does"
            raise ValueError(msg)
        decode = imagecodecs.jpeg8_decode if data.startswith(_SOI) else imagecodecs.png_decode
        array = decode(data)
    except DECODING_ERRORS as error:
        if isinstance(error, InputError):
            raise
        msg = f"image {str(path)!r} cannot be decoded ({error}): copy or export the file again."
        raise InputError(msg) from error
    return RgbFile([RgbPixels(array, axes="YXS"[: array.ndim], name=str(path))], None, [])


def _read_header(data: bytes) -> Header:
    if data.startswith(_PNG) and len(data) >= 33:
        width, height = struct.unpack(">II", data[16:24])
        return Header(height, width, 0, 33)
    if data.startswith(_SOI):
        return _read_jpeg_header(data)
    msg = f"it begins with {data[:8]!r}, which is neither PNG nor JPEG" if data else "it is empty"
    raise ValueError(msg)


def _read_jpeg_header(data: bytes) -> Header:
    at, found = 2, None
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # fill bytes
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        if marker in _START_OF_FRAME and at + 10 <= len(data):
            height, width, n = struct.unpack(">HHB", data[at + 5 : at + 10])
            found = (height, width, n)
        at += 2 + length
        if marker == _START_OF_SCAN and found is not None:
            return Header(*found, at)
    msg = "it has no whole JPEG header"
    raise ValueError(msg)
