"""Slides of scanners that only openslide reads, opened as RGB pixels: MRXS, SCN, BIF, VMS and others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.errors import InputError
from spatialsig.io.images.pixel_size import PixelSize
from spatialsig.io.images.rgb import DECODING_ERRORS, RgbFile, RgbPixels

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_WHITE = "FFFFFF"


class _Level:
    """RGBA windows of one level."""

    def __init__(self, slide: Any, level: int) -> None:
        self._slide, self._level = slide, level
        width, height = slide.level_dimensions[level]
        self.shape = (int(height), int(width), 4)
        self.dtype = np.dtype(np.uint8)
        edges = [slide.properties.get(f"openslide.level[{level}].tile-{side}") for side in ("height", "width")]
        tile = [int(edge) if edge and int(edge) > 0 else 256 for edge in edges]
        self.chunks = (min(tile[0], self.shape[0]), min(tile[1], self.shape[1]), 4)

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[np.uint8]:
        y0, y1, _ = window[0].indices(self.shape[0])
        x0, x1, _ = window[1].indices(self.shape[1])
        if y1 <= y0 or x1 <= x0:
            return np.empty((max(y1 - y0, 0), max(x1 - x0, 0), 4), np.uint8)
        factor = self._slide.level_downsamples[self._level]  # a region starts at px of the full resolution
        start = (round(x0 * factor), round(y0 * factor))
        return np.asarray(self._slide.read_region(start, self._level, (x1 - x0, y1 - y0)))


def open_wsi(path: Path) -> RgbFile:
    """Open a slide with openslide; where nothing was scanned it has the slide's background colour.

    Raises
    ------
    InputError
        If openslide is not installed, or cannot read the file.
    """
    try:
        import openslide
    except ImportError as error:
        msg = f"image {str(path)!r} needs openslide, which is not installed ({error}): pip install 'spatialsig[wsi]'."
        raise InputError(msg) from error
    try:
        slide = openslide.OpenSlide(path)
    except (openslide.OpenSlideError, *DECODING_ERRORS) as error:
        msg = (
            f"image {str(path)!r} cannot be opened by openslide ({error}): copy the file again with all files that "
            f"belong to it (MRXS: the folder of the same name), or export a TIFF."
        )
        raise InputError(msg) from error
    colour = bytes.fromhex(slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, _WHITE))
    background = np.frombuffer(colour, np.uint8)
    levels = [
        RgbPixels(_Level(slide, level), axes="YXS", name=str(path), alpha_over=background)
        for level in range(slide.level_count)
    ]
    return RgbFile(levels, _pixel_size(slide, openslide), [slide])


def _pixel_size(slide: Any, openslide: Any) -> PixelSize | None:
    names = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    try:
        sizes = [float(slide.properties[name]) for name in names]
    except (KeyError, ValueError):
        return None
    return PixelSize(*sizes) if min(sizes) > 0 else None
