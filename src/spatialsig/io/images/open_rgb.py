"""H&E files of every format opened as windows of RGB pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spatialsig._checks import check_files
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from spatialsig.io.images.rgb import RgbFile, RgbPixels

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".svs", ".qptiff")
NDPI_SUFFIX = ".ndpi"
OPENSLIDE_SUFFIXES = (".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".czi", ".dcm")
PLAIN_SUFFIXES = (".png", ".jpg", ".jpeg")
ZARR_SUFFIX = ".zarr"
SUFFIXES = (*TIFF_SUFFIXES, NDPI_SUFFIX, *OPENSLIDE_SUFFIXES, *PLAIN_SUFFIXES, ZARR_SUFFIX)


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
    file = _open(path, backend)
    for i, level in enumerate(file.levels):
        level.reopens_by = (_reopen, (str(path.resolve()), i, backend))
    return file


def _reopen(path: str, level: int, backend: Literal["openslide"] | None) -> RgbPixels:
    return open_rgb(path, backend=backend).levels[level]


def _open(path: Path, backend: Literal["openslide"] | None) -> RgbFile:
    check_files([path], what="H&E image", fix="Give the path of the image.")
    suffix = path.suffix.lower()
    if path.is_file() and path.stat().st_size == 0:
        msg = f"image {str(path)!r} is not a whole file, it is empty: copy or export the file again."
        raise InputError(msg)
    if backend == "openslide":
        return _open_wsi(path)
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
        return _open_wsi(path)
    msg = f"image {str(path)!r} has an unknown format; wanted one of {list(SUFFIXES)}: convert it."
    raise InputError(msg)


def _open_wsi(path: Path) -> RgbFile:
    from spatialsig.io.images.wsi import open_wsi

    return open_wsi(path)


def _open_directory(path: Path) -> RgbFile:
    from spatialsig.io.images.ngff import is_zarr, open_ngff

    if is_zarr(path):
        return open_ngff(path)
    msg = f"image {str(path)!r} is a directory but no OME-Zarr; wanted a file, or a directory with a Zarr hierarchy."
    raise InputError(msg)


def _open_ndpi(path: Path) -> RgbFile:
    """Open an NDPI; without restart markers a level is a single JPEG, which openslide alone reads in pieces."""
    from spatialsig.io.images.tiff import has_pieces, open_tiff

    return open_tiff(path) if has_pieces(path) else _open_wsi(path)
