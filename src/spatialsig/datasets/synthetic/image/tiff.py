"""OME-TIFF as 10x writes it: tiled, the pyramid in SubIFDs, pixel size in the OME-XML.

Floor 8, above io, pl, pp, tl. Used by 3 modules of datasets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import numba
import numpy as np
import tifffile

from spatialsig._settings import settings

if TYPE_CHECKING:
    import uuid
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_SMALLEST_PX = 256  # the pyramid stops before a side gets shorter
_OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


@dataclass(frozen=True)
class Channel:
    """One stain of a multi-file image: its name and purpose, and the file that holds it."""

    name: str
    purpose: str
    file: str
    uuid: uuid.UUID


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


def _write(path: Path, image: NDArray[Any], options: dict[str, Any], **first: Any) -> None:
    """Write a pyramid; ``first`` are options of the full resolution only."""
    n_reduced = max(int(np.log2(min(image.shape[:2]) / _SMALLEST_PX)), 0)
    options |= {"maxworkers": settings.threads}
    with tifffile.TiffWriter(path, bigtiff=True, ome="description" not in first) as tif:
        tif.write(image, subifds=n_reduced, **first, **options)
        for _ in range(n_reduced):
            image = halve(image)
            tif.write(image, subfiletype=1, metadata=None, **options)


def _physical_size(um_per_px: float) -> dict[str, Any]:
    return {
        "PhysicalSizeX": um_per_px,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": um_per_px,
        "PhysicalSizeYUnit": "µm",
    }


def write_he(path: Path, image: NDArray[np.uint8], *, um_per_px: float, quality: int = 90) -> None:
    """Write an H&E ``(height, width, 3)`` as JPEG tiles."""
    options = {"tile": (512, 512), "photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": quality}}
    _write(path, image, options, metadata={"axes": "YXS", **_physical_size(um_per_px)})


def _ome_xml(shape: tuple[int, int], channels: Sequence[Channel], number: int, um_per_px: float) -> str:
    """OME-XML that names the files of all channels, as 10x writes it into each of them."""
    size = " ".join(f"{name}={quoteattr(str(value))}" for name, value in _physical_size(um_per_px).items())
    listed = "".join(
        f'<Channel ID="Channel:{index}" Name={quoteattr(channel.name)} SamplesPerPixel="1">'
        f'<AnnotationRef ID="Annotation:{index}"/></Channel>'
        for index, channel in enumerate(channels)
    )
    planes = "".join(
        f'<TiffData FirstZ="0" FirstT="0" FirstC="{index}" IFD="0" PlaneCount="1">'
        f"<UUID FileName={quoteattr(channel.file)}>{channel.uuid.urn}</UUID></TiffData>"
        for index, channel in enumerate(channels)
    )
    purposes = "".join(
        f'<MapAnnotation ID="Annotation:{index}"><Value><M K="Purpose">{channel.purpose}</M></Value></MapAnnotation>'
        for index, channel in enumerate(channels)
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{_OME}" UUID="{channels[number].uuid.urn}">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="{shape[1]}" '
        f'SizeY="{shape[0]}" SizeZ="1" SizeC="{len(channels)}" SizeT="1" {size}>{listed}{planes}</Pixels></Image>'
        f"<StructuredAnnotations>{purposes}</StructuredAnnotations></OME>"
    )


def write_morphology(
    path: Path, image: NDArray[np.uint16], channels: Sequence[Channel], number: int, *, um_per_px: float
) -> None:
    """Write channel ``number`` of a 16-bit image ``(height, width)`` as lossless JPEG 2000 tiles."""
    options = {
        "tile": (1024, 1024),
        "photometric": "minisblack",
        "compression": "jpeg2000",
        "compressionargs": {"reversible": True, "codecformat": "j2k"},
    }
    xml = _ome_xml((image.shape[0], image.shape[1]), channels, number, um_per_px)
    _write(path, image, options, description=xml.encode(), metadata=None)
