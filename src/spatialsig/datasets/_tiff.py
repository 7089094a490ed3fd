"""OME-TIFF as 10x writes it: tiled, the pyramid in SubIFDs, pixel size in the OME-XML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import tifffile

from spatialsig._settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_SMALLEST_PX = 256  # the pyramid stops before a side gets shorter


@numba.njit(cache=True, nogil=True)
def _halve(image: NDArray[Any], out: NDArray[Any]) -> None:
    for row in range(out.shape[0]):
        for col in range(out.shape[1]):
            for channel in range(out.shape[2]):
                total = 2
                for down in range(2):
                    for right in range(2):
                        total += image[2 * row + down, 2 * col + right, channel]
                out[row, col, channel] = total // 4


def halve(image: NDArray[Any]) -> NDArray[Any]:
    """Mean of every 2 x 2 pixels of ``(height, width[, channels])``; an odd last row or column is dropped."""
    deep = image if image.ndim == 3 else image[..., None]
    out = np.empty((deep.shape[0] // 2, deep.shape[1] // 2, deep.shape[2]), dtype=image.dtype)
    _halve(deep, out)
    return out if image.ndim == 3 else out[..., 0]


def _levels(image: NDArray[Any]) -> int:
    return max(int(np.log2(min(image.shape[:2]) / _SMALLEST_PX)), 0)


def _reduced(image: NDArray[Any], n: int) -> Iterator[NDArray[Any]]:
    for _ in range(n):
        image = halve(image)
        yield image


def _write(path: Path, image: NDArray[Any], metadata: dict[str, Any], options: dict[str, Any]) -> None:
    n = _levels(image)
    options |= {"maxworkers": settings.threads}
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as tif:
        tif.write(image, subifds=n, metadata=metadata, **options)
        for level in _reduced(image, n):
            tif.write(level, subfiletype=1, metadata=None, **options)


def _physical_size(um_per_px: float) -> dict[str, Any]:
    return {
        "PhysicalSizeX": um_per_px,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": um_per_px,
        "PhysicalSizeYUnit": "µm",
    }


def write_he(path: Path, image: NDArray[np.uint8], *, um_per_px: float, quality: int = 90) -> None:
    """Write an H&E ``(height, width, 3)`` as JPEG tiles."""
    options = {
        "tile": (512, 512),
        "photometric": "rgb",
        "compression": "jpeg",
        "compressionargs": {"level": quality},
    }
    _write(path, image, {"axes": "YXS", **_physical_size(um_per_px)}, options)


def write_morphology(path: Path, image: NDArray[np.uint16], *, um_per_px: float) -> None:
    """Write a 16-bit DAPI image ``(height, width)`` as lossless JPEG 2000 tiles."""
    options = {
        "tile": (1024, 1024),
        "photometric": "minisblack",
        "compression": "jpeg2000",
        "compressionargs": {"reversible": True, "codecformat": "j2k"},
    }
    metadata = {"axes": "YX", "Channel": {"Name": ["DAPI"]}, **_physical_size(um_per_px)}
    _write(path, image, metadata, options)
