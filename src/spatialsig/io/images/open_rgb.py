"""H&E files of every format opened as windows of RGB pixels.

Floor 7, above evaluation. Used by 11 modules of io, pipeline, whole_slides.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialsig._checks import check_files
from spatialsig._files import DECODING_ERRORS
from spatialsig._known import what_is
from spatialsig.errors import InputError
from spatialsig.io.images.metadata import Stated, stated_size, tiff_orientation, warn_turned
from spatialsig.io.images.rgb import RgbFile, RgbPixels, Seen, seen

if TYPE_CHECKING:
    from numpy.typing import NDArray

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".svs", ".qptiff")
NDPI_SUFFIX = ".ndpi"
OPENSLIDE_SUFFIXES = (".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".czi", ".dcm")
WITH_FOLDER = (".mrxs", ".vms", ".vmu")  # whose pixels lie in other files: in the folder of the same name, or beside
PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg")
ZARR_SUFFIX = ".zarr"
PACKED_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
SUFFIXES = (*TIFF_SUFFIXES, NDPI_SUFFIX, *OPENSLIDE_SUFFIXES, *PLAIN_SUFFIXES, ZARR_SUFFIX)
_WHITE = "FFFFFF"


def open_rgb(path: str | Path, *, backend: Literal["openslide"] | None = None) -> RgbFile:
    """Open an H&E image as windows of RGB pixels.

    Parameters
    ----------
    path
        TIFF, OME-TIFF, SVS or NDPI (read tile by tile or strip by strip); MRXS, SCN, BIF, VMS, CZI, DICOM (through
        openslide); an OME-Zarr directory (chunk by chunk); PNG or JPEG (decoded at once).
    backend
        Read with openslide whatever the format; by default only what tifffile cannot read.

    Raises
    ------
    FileMissingError
        If there is no such file.
    InputError
        If the format is not known, needs openslide which is not installed, the file is damaged, or the pixels cannot
        become 8-bit RGB for sure.
    """
    path = Path(path)
    place = str(path.resolve())
    seen_as = seen(place)
    file = _open(path, backend)
    for i, level in enumerate(file.levels):
        level.seen_as, level.reopens_by = seen_as, (_reopen, (place, i, backend, seen_as))
    return file


def image_name(path: Path) -> str:
    """Name of an image without its format, so that ``P1.sectionA.ome.tif`` and ``P1.sectionB.ome.tif`` stay two slides."""
    stem = path.name
    for ending in (*SUFFIXES, ".ome"):
        stem = stem[: -len(ending)] if stem.lower().endswith(ending) and len(stem) > len(ending) else stem
    return stem


def _reopen(path: str, level: int, backend: Literal["openslide"] | None, seen_as: Seen | None) -> RgbPixels:
    pixels = open_rgb(path, backend=backend).levels[level]
    pixels.seen_as = seen_as  # a file that took its place meanwhile is not read as if it were the same
    return pixels


def _open(path: Path, backend: Literal["openslide"] | None) -> RgbFile:
    check_files([path], what="H&E image", fix="Give the path of the image.")
    suffix = path.suffix.lower()
    if path.is_file() and path.stat().st_size == 0:
        msg = f"image {str(path)!r} is not a whole file, it is empty: copy or export the file again."
        raise InputError(msg)
    if backend == "openslide":
        return open_wsi(path)
    if path.is_dir():
        return _open_directory(path)
    if suffix in PLAIN_SUFFIXES:
        from spatialsig.io.images.plain import open_plain

        return open_plain(path)
    if suffix in TIFF_SUFFIXES:
        from spatialsig.io.images.tiff import open_tiff

        return open_tiff(path)
    if suffix == NDPI_SUFFIX:
        return _open_ndpi(path)
    if suffix in OPENSLIDE_SUFFIXES:
        return open_wsi(path)
    what = what_is(path)
    fix = "unpack it, and give the image or the directory in it" if suffix in PACKED_SUFFIXES else "convert it"
    wanted = "" if what else f"; wanted one of {list(SUFFIXES)}: {fix}"
    msg = f"image {str(path)!r} has an unknown format{wanted}.{what}"
    raise InputError(msg)


def _open_directory(path: Path) -> RgbFile:
    from spatialsig.io.images.ngff import is_zarr, open_ngff

    if is_zarr(path):
        return open_ngff(path)
    msg = f"image {str(path)!r} is a directory but no OME-Zarr; wanted a file, or a directory with a Zarr hierarchy.{what_is(path)}"
    raise InputError(msg)


def _open_ndpi(path: Path) -> RgbFile:
    """Open an NDPI; without restart markers a level is a single JPEG, which openslide alone reads in pieces."""
    from spatialsig.io.images.tiff import has_pieces, open_tiff

    return open_tiff(path) if has_pieces(path) else open_wsi(path)


class _OpenslideLevel:
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

    Raises :class:`InputError` if openslide is not installed, or cannot read the file.
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
    _warn_turned(path)
    colour = bytes.fromhex(slide.properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, _WHITE))
    background = np.frombuffer(colour, np.uint8)
    levels = [
        RgbPixels(_OpenslideLevel(slide, level), axes="YXS", name=str(path), alpha_over=background)
        for level in range(slide.level_count)
    ]
    stated = _openslide_pixel_size(slide, openslide, str(path))
    return RgbFile(levels, stated.size, [slide], why_no_size=stated.why_none)


def _warn_turned(path: Path) -> None:
    """Openslide leaves out the orientation of what is a TIFF inside (SCN, BIF, NDPI)."""
    import tifffile

    with suppress(*DECODING_ERRORS), tifffile.TiffFile(path) as tif:
        warn_turned(path, tiff_orientation(tif.pages.first))


def _openslide_pixel_size(slide: Any, openslide: Any, name: str) -> Stated:
    names = (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    return stated_size([(slide.properties.get(each), "um") for each in names], name=name)
