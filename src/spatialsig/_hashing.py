"""Hashes of content: the same values give the same hash, on any machine and in any version.

All are SHA-256, except the short ones that checkpoints have always held. Checksums of chunks and of the files of a store
are something else: they tell damage and not identity (``store/manifest.py``).

Ground floor. Used by 29 modules of 11 rooms.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

END_BYTES = 2**20  # bytes hashed at each end of a large file


def content_hash(parts: Iterable[str | bytes | NDArray[Any]], *, short: bool = False) -> str:
    """Hash of texts, bytes and the values of arrays one after the other, as hex digits.

    Parameters
    ----------
    parts
        Text counts as UTF-8, an array as its values in row-major order without shape and type.
    short
        Sixteen bytes of BLAKE2b, as in checkpoints, in place of SHA-256.
    """
    digest = hashlib.blake2b(digest_size=16) if short else hashlib.sha256()
    for part in parts:
        digest.update(_bytes_of(part))
    return digest.hexdigest()


def _bytes_of(part: str | bytes | NDArray[Any]) -> bytes | memoryview:
    if isinstance(part, str):
        return part.encode()
    return part if isinstance(part, bytes) else np.ascontiguousarray(part).reshape(-1).view(np.uint8).data


def array_hash(*arrays: NDArray[Any]) -> str:
    """SHA-256 of the shapes, types and bytes of arrays, as hex digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str((array.shape, array.dtype.str)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def json_hash(value: object) -> str:
    """SHA-256 of a value as JSON, as hex digits; other objects are hashed by ``str()``."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing_of(folder: Path) -> list[list[object]]:
    """:func:`stamp_of` all files in a folder and below it; links to folders are not followed, as they may lead back."""
    return [
        stamp_of(file, folder) for file in sorted(Path(at, name) for at, _, names in os.walk(folder) for name in names)
    ]


def stamp_of(file: Path, folder: Path) -> list[object]:
    """Name in a folder, size and time of change of a file, which is not read; of a dead link only the name."""
    name = file.relative_to(folder).as_posix()
    try:
        stat = file.stat()
    except OSError:
        return [name]
    return [name, stat.st_size, stat.st_mtime_ns]


def file_ends_hash(path: Path) -> str:
    """SHA-256 of size, first and last MiB of a file: fast, the same after a copy, and blind to changes in between."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(END_BYTES)
        file.seek(max(END_BYTES, size - END_BYTES))
        return content_hash([str(size), first, file.read()])
