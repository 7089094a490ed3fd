"""How the pixels of an H&E lie on disk: small chunks that hold all channels, compressed lightly and checksummed.

A patch of 224-256 px touches few chunks of 256 px, and the checksum turns a flipped bit into an error of every
reader instead of wrong pixels.
"""

from __future__ import annotations

from typing import Any

CHUNK_PX = 256
CHANNELS = ("r", "g", "b")
COARSEST_PX = 1024  # the pyramid ends at the first level that fits a screen
ZSTD_LEVEL = 1


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


def array_spec(height: int, width: int) -> dict[str, Any]:
    """Arguments of ``zarr.create_array`` for one level, ``(c, y, x)`` uint8."""
    from zarr.codecs import ZstdCodec

    return {
        "shape": (len(CHANNELS), height, width),
        "chunks": (len(CHANNELS), CHUNK_PX, CHUNK_PX),
        "dtype": "uint8",
        "compressors": [ZstdCodec(level=ZSTD_LEVEL, checksum=True)],
        "dimension_names": ("c", "y", "x"),
        "fill_value": 0,
        "chunk_key_encoding": {"name": "default", "separator": "/"},
        "config": {"write_empty_chunks": True},  # so that a chunk that is not there is always a fault
    }
