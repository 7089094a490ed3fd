"""Windows of one TIFF image decoded from its tiles or strips, from any number of threads at once.

Floor 7, above evaluation. Used by io/images/tiff.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_JPEG = {6, 7, 34892, 33007}
_UNCOMPRESSED = 1
SEPARATE = 2
_RAW_ROWS = 256  # of an uncompressed image any rows can be read


class Bytes:
    """Ranges of bytes of an open file; threads share it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._lock = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset``."""
        if hasattr(os, "pread"):  # no shared position, hence no lock
            data = os.pread(self._file.fileno(), count, offset)
        else:
            with self._lock:
                self._file.seek(offset)
                data = self._file.read(count)
        if len(data) < count:
            msg = f"the file ends {count - len(data)} bytes too early"
            raise ValueError(msg)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class TiffLevel:
    """An image ``(y, x, s)`` of one TIFF page, or of one page per channel, decoded where it is asked for.

    Tiles that a scanner left out are white, as background is.

    Parameters
    ----------
    pages
        One page with all channels, or one page per channel (``tifffile`` pages or frames, read completely).
    file
        Where their bytes are.
    """

    def __init__(self, pages: list[Any], file: Bytes) -> None:
        page = pages[0].keyframe
        self._page, self._pages, self._file = page, pages, file
        self._height, self._width = int(page.imagelength), int(page.imagewidth)
        self._separate = page.planarconfig == SEPARATE and page.samplesperpixel > 1
        self._per_segment = 1 if self._separate else int(page.samplesperpixel)
        self._samples = samples = int(page.samplesperpixel) if len(pages) == 1 else len(pages)
        self.dtype = np.dtype(page.dtype)
        self.shape: tuple[int, ...] = (self._height, self._width, samples)[: 3 if samples > 1 else 2]
        self._raw = not page.is_tiled and page.compression == _UNCOMPRESSED and page.is_contiguous
        tile = (page.tilelength, page.tilewidth) if page.tilewidth else (page.rowsperstrip, self._width)
        if self._raw:
            tile = (_RAW_ROWS, self._width)
        self._tile = (min(int(tile[0]), self._height), min(int(tile[1]), self._width))
        self.chunks = (*self._tile, samples)[: len(self.shape)]
        self._across = -(-self._width // int(tile[1]))
        self._down = -(-self._height // int(tile[0]))
        page.decode  # noqa: B018 - made here: making it is not thread-safe and needs the open file

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[Any]:
        """Pixels of ``[y0:y1, x0:x1]``."""
        y0, y1, _ = window[0].indices(self._height)
        x0, x1, _ = window[1].indices(self._width)
        out = np.empty((max(y1 - y0, 0), max(x1 - x0, 0), self._samples), self.dtype)
        if out.size:
            for first, page, plane in self._planes():
                into = out[:, :, first : first + self._per_segment]
                self._fill(into, page, plane, y0, x0)
        return out[..., 0] if len(self.shape) == 2 else out

    def _planes(self) -> list[tuple[int, Any, int]]:
        """First channel, page and plane of all that holds channels of its own."""
        if self._separate:
            return [(s, self._pages[0], s) for s in range(self._samples)]
        return [(s, page, 0) for s, page in enumerate(self._pages)]

    def _fill(self, out: NDArray[Any], page: Any, plane: int, y0: int, x0: int) -> None:
        height, width = self._tile
        y1, x1 = y0 + out.shape[0], x0 + out.shape[1]
        for row in range(y0 // height, -(-y1 // height)):
            for column in range(x0 // width, -(-x1 // width)):
                top, left = row * height, column * width
                segment = self._segment(page, plane, row, column)
                ys, xs = slice(max(top, y0), min(top + height, y1)), slice(max(left, x0), min(left + width, x1))
                into = out[ys.start - y0 : ys.stop - y0, xs.start - x0 : xs.stop - x0]
                if segment is None:
                    into[...] = np.iinfo(self.dtype).max
                else:
                    into[...] = segment[ys.start - top : ys.stop - top, xs.start - left : xs.stop - left]

    def _segment(self, page: Any, plane: int, row: int, column: int) -> NDArray[Any] | None:
        """One tile or strip ``(y, x, s)``; None where the file holds none."""
        if self._raw:
            return self._raw_rows(page, plane, row)
        index = (plane * self._down + row) * self._across + column
        count = int(page.databytecounts[index])
        if count == 0:
            return None
        data = self._file.read(int(page.dataoffsets[index]), count)
        options: dict[str, Any] = {}
        if self._page.compression in _JPEG:
            header = self._page.jpegheader
            options = {"jpegtables": page.jpegtables, "jpegheader": header}
            check_jpeg_end(data, whole=header is None)
        decoded: NDArray[Any] = self._page.decode(data, index, **options)[0]
        tile: NDArray[Any] = decoded[0]
        return tile

    def _raw_rows(self, page: Any, plane: int, row: int) -> NDArray[Any]:
        top = row * self._tile[0]
        rows = min(self._tile[0], self._height - top)
        per_row = self._width * self._per_segment * self.dtype.itemsize
        start = int(page.dataoffsets[0]) + (plane * self._height + top) * per_row
        stored = self.dtype.newbyteorder(self._page.parent.byteorder)
        values = np.frombuffer(self._file.read(start, rows * per_row), stored)
        return values.reshape(rows, self._width, self._per_segment)


def check_jpeg_end(data: bytes, *, whole: bool = True) -> None:
    """Raise when a JPEG stops early: decoders fill what is missing with gray and say nothing."""
    if whole and b"\xff\xd9" not in data[-64:]:
        msg = "the JPEG data end before the image does"
        raise InputError(msg)
