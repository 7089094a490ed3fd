"""The H&E of a slide as levels of small compressed tiles that fit into so many bytes.

Floor 8, above io, pl, pp, tl. Used by atlas/page.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from spatialsig.pl.drawing.slide_panels import background, block_mean, to_uint8
from spatialsig.store.layout import levels_of
from spatialsig.store.stored.damage import computed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from xarray import DataArray, DataTree

EDGE = 512  # px of a tile
QUALITY = 78
COARSEST = 700  # px: a level whose longest edge is not longer is the last
SAMPLE_PX = 1024  # longest edge of what tells how well an image can be compressed
PYRAMID = 4 / 3  # px of all levels for each of the finest


@dataclass(frozen=True)
class Tiles:
    """One level: tiles of ``EDGE`` px by row and column, base64 of WebP; those at the right and the bottom are smaller."""

    scale: float  # full-resolution px for each of its px
    width: int
    height: int
    rows: list[list[str]]

    @property
    def n_chars(self) -> int:
        """Length of all tiles as text."""
        return sum(len(tile) for row in self.rows for tile in row)


def pyramid(
    image: DataArray | DataTree, *, slide: str, max_px: int, max_chars: int, told: Callable[[int], object]
) -> list[Tiles]:
    """Levels of an H&E, finest first: as fine as ``max_px`` along the longest edge and ``max_chars`` of text allow.

    The image is read once, in strips of the level that is shown finest. ``told`` is given the px rows that were done.
    """
    levels = sorted(levels_of(image), key=lambda level: -level.sizes["x"])
    full = levels[0].sizes
    box = (0.0, 0.0, float(full["x"]), float(full["y"]))
    sample = background(image, box, slide=slide, max_px=SAMPLE_PX).rgb
    chars_per_px = len(_encoded(sample)) / (sample.shape[0] * sample.shape[1]) * PYRAMID
    longest = min(max_px, _edge_within(max_chars / chars_per_px, full["x"] / full["y"]))
    while True:
        found = list(_levels(levels, longest, told))
        if sum(level.n_chars for level in found) <= max_chars or longest <= COARSEST:
            return found
        longest //= 2  # finer px are harder to compress than those of the sample, which is rare


def _edge_within(n_px: float, aspect: float) -> int:
    """Longest edge of an image of that many px."""
    return max(COARSEST, int(np.sqrt(n_px * max(aspect, 1 / aspect))))


def _levels(levels: list[DataArray], longest: int, told: Callable[[int], object]) -> Iterator[Tiles]:
    level, step = _source(levels, longest)
    width, height = level.sizes["x"] // step, level.sizes["y"] // step
    scale = levels[0].sizes["x"] / level.sizes["x"] * step
    rows, halves = [], []
    for top in range(0, height, EDGE):
        bottom = min(top + EDGE, height)
        strip = computed(level[:3, top * step : bottom * step, : width * step])
        pixels = to_uint8(block_mean(strip, step))
        rows.append(_row(pixels))
        halves.append(_halved(pixels))
        told(bottom - top)
    yield Tiles(scale, width, height, rows)
    pixels = np.concatenate(halves)
    while max(width, height) > COARSEST:
        (height, width), scale = pixels.shape[:2], 2 * scale
        yield Tiles(scale, width, height, [_row(pixels[top : top + EDGE]) for top in range(0, height, EDGE)])
        pixels = _halved(pixels)


def _source(levels: list[DataArray], longest: int) -> tuple[DataArray, int]:
    """Level to read, and how many of its px make one that is shown: the finest that is not longer, from the coarsest level that holds it."""
    options = [
        (max(level.sizes["x"], level.sizes["y"]) // step, number, step)
        for number, level in enumerate(levels)
        for step in (2**k for k in range(16))
        if max(level.sizes["x"], level.sizes["y"]) // step <= longest
        and min(level.sizes["x"], level.sizes["y"]) >= step
    ]
    _, number, step = max(options)
    return levels[number], step


def _row(pixels: NDArray[np.uint8]) -> list[str]:
    return [_encoded(pixels[:, left : left + EDGE]) for left in range(0, pixels.shape[1], EDGE)]


def _halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half as many px along each edge; what is one px wide stays."""
    even = pixels[: max(pixels.shape[0] // 2 * 2, 1), : max(pixels.shape[1] // 2 * 2, 1)]
    if min(even.shape[:2]) < 2:
        return even
    return np.moveaxis(block_mean(np.moveaxis(even, -1, 0), 2), 0, -1)


def _encoded(pixels: NDArray[np.uint8]) -> str:
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, format="WEBP", quality=QUALITY, method=2)
    return base64.b64encode(data.getvalue()).decode("ascii")
