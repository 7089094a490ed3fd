"""Levels of an image that stays in its file, decoded tile by tile: each tile once while neighbours need it.

Through dask a whole block of tiles is decoded for every batch of patches that touches it.

Floor 2, above geometry, nn, signatures, stats, store. Used by 5 modules of data, io.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from spatialsig.store.layout import halve

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE_PX = 512  # of a file that is decoded at once
MAX_CHUNK_BYTES = 64 * 2**20  # strips of a wide image that are larger are left to dask
MAX_HALVINGS = 2  # a tile of a level that is computed takes 4, 16, ... of the file's


class FilePixels(Protocol):
    """Windows ``(h, w, 3)`` uint8 of a level that a file holds."""

    shape: tuple[int, int, int]
    chunks: (
        tuple[int, ...] | None
    )  # height and width decoded at once; None for a file that was decoded when it was opened
    read_as: dict[str, int]  # name of each lazy array that reads it -> how often its pixels are halved there

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[np.uint8]:
        """Pixels of ``[y0:y1, x0:x1]``."""
        ...


_files: WeakValueDictionary[str, FilePixels] = WeakValueDictionary()  # name of a lazy array -> what it reads


def remember(array: Any, pixels: FilePixels, *, halvings: int = 0) -> None:
    """Keep in mind that a lazy array ``(3, y, x)`` is a level of a file, or what remains of one after so many 2 x 2 means.

    Whatever is done to the array afterwards gives it another name, by which it is not known.
    """
    pixels.read_as[array.name] = halvings
    _files[array.name] = pixels


@dataclass(frozen=True)
class FileLevel:
    """A level of a file, in the chunks of it that are decoded at once."""

    pixels: FilePixels
    halvings: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        height, width = (edge >> self.halvings for edge in self.pixels.shape[:2])
        return 3, height, width

    @property
    def chunk(self) -> tuple[int, int, int]:
        """Channels, height and width of a chunk."""
        tile = self.pixels.chunks or (TILE_PX, TILE_PX)
        return 3, int(tile[0]), int(tile[1])

    def decode(self, index: tuple[int, int, int], out: NDArray[np.uint8]) -> None:
        """Decode chunk ``index`` into ``out``, of the chunk's size; what lies beyond the image is left as it is."""
        _, height, width = self.shape
        y0, x0 = (number * edge for number, edge in zip(index[1:], self.chunk[1:], strict=True))
        y1, x1 = min(y0 + self.chunk[1], height), min(x0 + self.chunk[2], width)
        out[:, : y1 - y0, : x1 - x0] = self[:, y0:y1, x0:x1]

    def __getitem__(self, box: tuple[slice, slice, slice]) -> NDArray[np.uint8]:
        """Pixels ``[:, y0:y1, x0:x1]``."""
        (y0, y1, _), (x0, x1, _) = (part.indices(n) for part, n in zip(box[1:], self.shape[1:], strict=True))
        k = self.halvings
        found = self.pixels[y0 << k : y1 << k, x0 << k : x1 << k].transpose(2, 0, 1)
        for _ in range(k):
            found = halve(np.ascontiguousarray(found))
        return found


def file_level(array: Any) -> FileLevel | None:
    """The level of a file that a lazy array is, as it was opened; None for any other array."""
    pixels = _files.get(getattr(array, "name", ""))
    if pixels is None:
        return None
    level = FileLevel(pixels, pixels.read_as[array.name])
    fits = level.halvings <= MAX_HALVINGS and int(np.prod(level.chunk)) <= MAX_CHUNK_BYTES
    return level if fits and level.shape == tuple(array.shape) else None
