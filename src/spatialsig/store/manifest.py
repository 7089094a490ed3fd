"""Sizes and checksums of the files of an element, kept with it, so that what is missing or altered can be found.

The file moves with its element, so the two always belong together. In a table it lies in ``obs``: readers list the
groups of a table, never those of a data frame.

Floor 1, above the ground floor. Used by 14 modules of slide, store.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

from spatialsig._files import write_text
from spatialsig._settings import settings
from spatialsig.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

NAME = ".spatialsig-manifest"
_TITLE = "spatialsig manifest 1 crc32c"


class Entry(NamedTuple):
    """Size and CRC-32C of a file."""

    size: int
    crc: int


def entry_of(data: bytes) -> Entry:
    """Entry of a content."""
    return Entry(len(data), int(google_crc32c.value(data)))


def manifest_file(element: Path, kind: str) -> Path:
    """Where the manifest of an element lies."""
    return element / "obs" / NAME if kind == "tables" else element / NAME


def files_below(root: Path) -> Iterator[str]:
    """Paths of all files but manifests, relative to ``root``, with ``/``."""
    for directory, _, names in os.walk(root):
        base = os.path.relpath(directory, root)
        prefix = "" if base == "." else base.replace(os.sep, "/") + "/"
        yield from (prefix + name for name in names if name != NAME)


def checksums(root: Path, files: Iterable[str]) -> dict[str, Entry]:
    """Read files and return their entries; those that are not there are left out."""

    def one(file: str) -> tuple[str, Entry | None]:
        try:
            return file, entry_of((root / file).read_bytes())
        except FileNotFoundError:
            return file, None

    with ThreadPoolExecutor(max_workers=settings.threads) as pool:
        return {file: entry for file, entry in pool.map(one, files) if entry is not None}


def record(element: Path, kind: str, known: Mapping[str, Entry] | None = None) -> None:
    """Write the manifest of a complete element of this kind; files with a ``known`` entry need not be read again."""
    known = known or {}
    files = list(files_below(element))
    new = checksums(element, [file for file in files if file not in known])
    write_manifest(manifest_file(element, kind), [(f, new.get(f) or known[f]) for f in files])


def write_manifest(file: Path, entries: Iterable[tuple[str, Entry]]) -> None:
    """Write entries, one a line, below a line with the checksum of all of them."""
    body = "".join(f"{entry.crc:08x} {entry.size} {name}\n" for name, entry in sorted(set(entries)))
    write_text(file, f"{_TITLE} {entry_of(body.encode()).crc:08x}\n{body}")


def read_manifest(file: Path) -> dict[str, set[Entry]] | None:
    """Read a manifest: name -> contents that are right (several while the root is being replaced); None without one.

    Raises :class:`StoreError` if the manifest itself is damaged.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    return entries_of(data, name=str(file))


def entries_of(data: bytes, *, name: str) -> dict[str, set[Entry]]:
    """As :func:`read_manifest`, of the content of a manifest called ``name``."""
    title, _, body = data.partition(b"\n")
    if title != f"{_TITLE} {entry_of(body).crc:08x}".encode():
        msg = f"{name!r} is damaged: its checksum does not fit; the files that it lists cannot be checked."
        raise StoreError(msg)
    found: dict[str, set[Entry]] = {}
    for line in body.decode().splitlines():
        crc, size, name = line.split(" ", 2)
        found.setdefault(name, set()).add(Entry(int(size), int(crc, 16)))
    return found
