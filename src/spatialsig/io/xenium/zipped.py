"""Zarr stores in zip files, whose checksums cover every byte that is read; damage becomes an error that names the file.

Floor 7, above evaluation. Used by io/xenium/atera, io/xenium/polygons, io/xenium/segmentation.
"""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import zarr
from zarr.storage import ZipStore

from spatialsig._files import content_hint
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, ValueError, KeyError, TypeError, RuntimeError, IndexError,
    AttributeError, NotImplementedError, MemoryError, OverflowError, EOFError,
)  # fmt: skip


@contextmanager
def open_zip(file: Path, *, hint: str = "") -> Iterator[Any]:
    """Open the root group of a zipped Zarr (v2); :class:`InputError`, which ends with ``hint``, if it is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of zarr, on zip files with a name twice
            _check_root(file)
            with ZipStore(file, mode="r") as store:
                yield zarr.open_group(store, mode="r", zarr_format=2)
    except InputError:
        raise
    except _DAMAGE as error:
        msg = (
            f"{str(file)!r} is damaged ({type(error).__name__}: {error}): copy it from the output of the instrument "
            f"again.{content_hint(file)}{hint}"
        )
        raise InputError(msg) from error


def _check_root(file: Path) -> None:
    """Raise where the file is no zip, and where the group lies in a folder of the zip, as after packing it again."""
    with zipfile.ZipFile(file) as zipped:
        names = zipped.namelist()
    inner = [name for name in names if name.endswith("/.zgroup") and name.count("/") == 1]
    if ".zgroup" not in names and len(inner) == 1 and not names[0].startswith("__MACOSX"):
        msg = f"all is in its folder {inner[0].removesuffix('.zgroup')!r}, as when a zip is unpacked and packed again"
        raise ValueError(msg)


def check_names(file: Path) -> None:
    """Raise unless every file of a zip has one name in both places: under another, Zarr would take it for zeros."""
    with zipfile.ZipFile(file) as zipped:
        for entry in zipped.infolist():
            zipped.open(entry).close()
