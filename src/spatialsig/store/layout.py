"""Layouts of pixels on disk: small chunks that hold all channels, checksummed, compressed lightly or not at all.

A patch of 224-256 px touches few chunks of 256 px, and the checksum turns a flipped bit into an error of every
reader instead of wrong pixels.

Floor 1, above the ground floor. Used by 19 modules of atlas, data, io, pl, pp, slide, store.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numba
import numpy as np
from xarray import DataArray, DataTree

from spatialsig._checks import check_choice
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike, NDArray

CHUNK_PX = 256
MIN_CHUNK_PX = 64
MAX_CHUNK_PX = 1024
CHANNELS = ("r", "g", "b")
COARSEST_PX = 1024  # the pyramid ends at the first level that fits a screen
ZSTD_LEVEL = 1
FAST_LEVEL = -1  # no entropy coding: decoded three times as fast as level 1
MAX_GROWTH = 1.1  # bytes of a chunk at the fast level per byte at level 1, up to which it is taken
SAMPLED = 8  # this part of a chunk is encoded at both levels to choose one

MAX_OFF_PX, MAX_OFF_SHARE = 2, 0.05  # by which the edges of a level may differ from those of an even reduction

LayoutName: TypeAlias = Literal["default", "speed"]
LAYOUTS: tuple[LayoutName, ...] = ("default", "speed")


@dataclass(frozen=True)
class Layout:
    """Chunking and coding of the levels of an image; make one with :func:`as_layout`.

    Parameters
    ----------
    name
        ``"default"``: zstd with checksum, of level 1, or of level -1 for chunks that it makes hardly larger (they are
        decoded three times as fast). ``"speed"``: bytes as they are, followed by their CRC-32C; larger on disk, and
        several times faster to read.
    chunk_px
        Edge of a chunk along y and x; a chunk holds all channels.
    """

    name: LayoutName = "default"
    chunk_px: int = CHUNK_PX

    def chunk_shape(self, dims: Sequence[str], shape: Sequence[int]) -> tuple[int, ...]:
        """Chunk of an array: all channels, ``chunk_px`` along y and x, one plane of anything else."""
        edge = {"c": shape[dims.index("c")] if "c" in dims else 1, "y": self.chunk_px, "x": self.chunk_px}
        return tuple(edge.get(dim, 1) for dim in dims)

    def array_spec(
        self, shape: Sequence[int], dims: Sequence[str] = ("c", "y", "x"), *, dtype: DTypeLike = "uint8"
    ) -> dict[str, Any]:
        """Arguments of ``zarr.create_array`` for one level."""
        from zarr.codecs import Crc32cCodec, ZstdCodec

        codec = ZstdCodec(level=ZSTD_LEVEL, checksum=True) if self.name == "default" else Crc32cCodec()
        return {
            "shape": tuple(shape),
            "chunks": self.chunk_shape(dims, shape),
            "dtype": np.dtype(dtype),
            "compressors": [codec],
            "dimension_names": tuple(dims),
            "fill_value": 0,
            "chunk_key_encoding": {"name": "default", "separator": "/"},
            "config": {"write_empty_chunks": True},  # so that a chunk that is not there is always a fault
        }

    def encode(self, chunk: NDArray[Any]) -> bytes:
        """Bytes of one whole chunk that the codecs of :meth:`array_spec` decode; zstd decodes what any level made."""
        import google_crc32c  # what zarr's own codec uses

        raw = np.ascontiguousarray(chunk, chunk.dtype.newbyteorder("<"))
        if self.name == "default":
            return _zstd(raw, _level(raw))
        data = raw.tobytes()
        return data + int(google_crc32c.value(data)).to_bytes(4, "little")


def _level(raw: NDArray[Any]) -> int:
    """The level for a chunk, as the middle of it tells: encoding all of it twice would cost more than writing it."""
    flat = raw.reshape(-1)
    middle = flat[(len(flat) - len(flat) // SAMPLED) // 2 :][: len(flat) // SAMPLED]
    fast, small = len(_zstd(middle, FAST_LEVEL)), len(_zstd(middle, ZSTD_LEVEL))
    return FAST_LEVEL if fast <= MAX_GROWTH * small else ZSTD_LEVEL


def _zstd(raw: NDArray[Any], level: int) -> bytes:
    from numcodecs.zstd import compress  # type: ignore[import-untyped]

    frame: bytes = compress(raw, level, True)  # noqa: FBT003 (with checksum; positional in numcodecs)
    return frame


DEFAULT = Layout()


def as_layout(layout: Layout | LayoutName | str, *, chunk_px: int | None = None) -> Layout:
    """Layout of a name (or of a layout), with chunks of ``chunk_px``, a power of two from 64 to 1,024; by default 256.

    Raises :class:`InputError` if the name is not known, or the edge is another one.
    """
    if isinstance(layout, Layout):
        return as_layout(layout.name, chunk_px=chunk_px or layout.chunk_px)
    check_choice(layout, LAYOUTS, name="layout")
    edge = CHUNK_PX if chunk_px is None else chunk_px
    if not (MIN_CHUNK_PX <= edge <= MAX_CHUNK_PX and edge & (edge - 1) == 0):
        msg = f"`chunk_px={edge!r}` cannot be used; wanted a power of two from {MIN_CHUNK_PX} to {MAX_CHUNK_PX}."
        raise InputError(msg)
    return Layout("speed" if layout == "speed" else "default", edge)


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes ``(height, width)`` of all pyramid levels, each half of the one before, rounded down.

    There are at least two levels (so that the image is a multi-scale one), unless an edge is a single pixel.

    >>> level_shapes(3000, 2001)
    [(3000, 2001), (1500, 1000), (750, 500)]
    """
    shapes = [(height, width)]
    while min(shapes[-1]) > 1 and (len(shapes) == 1 or max(shapes[-1]) > COARSEST_PX):
        shapes.append((shapes[-1][0] // 2, shapes[-1][1] // 2))
    return shapes


def levels_of(element: object) -> list[DataArray]:
    """Levels of an image or of labels, in the order they stand; none for another element."""
    if isinstance(element, DataTree):
        return [level for scale in element.children.values() for level in scale.data_vars.values()]
    return [element] if isinstance(element, DataArray) else []


def check_level_sizes(shapes: Sequence[tuple[int, ...]], *, name: str, same_part: bool = True) -> None:
    """Raise :class:`InputError` if a level ``(height, width)`` is larger than the one before: readers take the first as the full one.

    With ``same_part`` also if edges shrink so differently that a level cannot show the same part of the slide.
    """
    shapes = [shape[:2] for shape in shapes]
    sizes = ", ".join(f"{height} x {width}" for height, width in shapes)
    for before, level in itertools.pairwise(shapes):
        if level[0] > before[0] or level[1] > before[1]:
            msg = (
                f"{name} has levels of {sizes} px (y, x); wanted the finest first and none larger than the one before: "
                f"write its levels in this order, or give the finest alone."
            )
            raise InputError(msg)
    for height, width in shapes[1:] if same_part else ():
        factor = min(shapes[0][0] / height, shapes[0][1] / width)
        off = (abs(shapes[0][0] / factor - height), abs(shapes[0][1] / factor - width))
        if any(miss > max(MAX_OFF_PX, MAX_OFF_SHARE * edge) for miss, edge in zip(off, (height, width), strict=True)):
            msg = (
                f"{name} has levels of {sizes} px (y, x), of which {height} x {width} has other proportions than the first: "
                f"it does not show the same part. Make the levels anew from the finest."
            )
            raise InputError(msg)


def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mean of each 2 x 2 block of ``(c, y, x)``, rounded half up; an odd last row or column is left out.

    >>> halve(np.array([[[0, 1, 9], [2, 3, 9]]], np.uint8))
    array([[[2]]], dtype=uint8)
    """
    channels, height, width = pixels.shape
    out = np.empty((channels, height // 2, width // 2), np.uint8)
    _mean_2x2(pixels, out)
    return out


@numba.njit(cache=True, nogil=True)
def _mean_2x2(pixels: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    channels, height, width = out.shape
    for c in range(channels):
        for y in range(height):
            upper, lower, mean = pixels[c, 2 * y], pixels[c, 2 * y + 1], out[c, y]
            for x in range(width):
                total = np.uint16(upper[2 * x]) + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1]
                mean[x] = (total + 2) >> 2
