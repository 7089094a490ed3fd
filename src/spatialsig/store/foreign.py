"""What other people and programs put into a store, which nothing of ours may delete.

Floor 1, above the ground floor. Used by models/directory, store/commit, store/repair, store/swap, whole_slides/guard.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from spatialsig._checks import first_few
from spatialsig._files import object_or_empty
from spatialsig.errors import StoreError
from spatialsig.store.manifest import NAME
from spatialsig.store.metadata import is_folder
from spatialsig.store.stored.documents import FILE, FORMAT_2, KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SYSTEM = re.compile(r"\.DS_Store|\._.*|\.nfs.*|\.fuse_hidden.*|Thumbs\.db|desktop\.ini", re.IGNORECASE)
# as `replaced` and Zarr name what they write before it is whole
_DRAFT = re.compile(rf"(zarr|{re.escape(FILE)}|{re.escape(NAME)})\.[0-9a-f]+\.partial")
_STAGED = re.compile(r"(group|before)-.+|plain-root")  # beside the kinds in a staging directory
_NODE = (FILE, *FORMAT_2)
_CHUNK = re.compile(r"c|[\d.]+")
_PARQUET = re.compile(r"_.+|.+\.parquet")


def is_of_system(name: str) -> bool:
    """Whether a file is one that the system puts into every folder by itself."""
    return _SYSTEM.fullmatch(name) is not None


def is_draft(entry: Path) -> bool:
    """Whether this is what an interrupted writer left of a file of metadata."""
    return _DRAFT.fullmatch(entry.name) is not None and entry.is_file() and not entry.is_symlink()


def is_staged(directory: Path) -> bool:
    """Whether a directory beside a store holds only what writers put there."""
    with os.scandir(directory) as entries:
        return all(
            _is_known(e) or _STAGED.fullmatch(e.name) is not None or (e.name in KINDS and _holds_elements(e))
            for e in entries
        )


def _holds_elements(kind: os.DirEntry[str]) -> bool:
    if not is_folder(kind):
        return False
    with os.scandir(kind.path) as entries:
        return all(is_folder(entry) or _is_known(entry) for entry in entries)


def check_only_ours(path: Path) -> None:
    """Raise :class:`StoreError` naming what somebody else put into a store that would be replaced, links included."""
    _refuse(path, [*_in_root(path), *(entry for kind in KINDS for entry in _in_kind(path / kind))])


def check_replaced(path: Path, new: Path, kinds: Mapping[str, str]) -> None:
    """Raise :class:`StoreError` naming what lies in elements of these kinds and is not in those that ``new`` has for them."""
    lost: list[Path] = []
    for name, kind in kinds.items():
        found = _in_node(path / kind / name) if (path / kind / name).is_dir() else iter(())
        lost += [entry for entry in found if not (new / entry.relative_to(path)).exists()]
    _refuse(path, lost)


def _refuse(path: Path, entries: list[Path]) -> None:
    if entries:
        names = first_few(
            sorted(f"{entry.relative_to(path)}{' (a link)' if entry.is_symlink() else ''}" for entry in entries)
        )
        msg = (
            f"store {str(path)!r} holds {names}, which no store does and which would be deleted with what is replaced: "
            f"move it elsewhere, or choose another path."
        )
        raise StoreError(msg)


def _in_root(path: Path) -> Iterator[Path]:
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_symlink() or not (_is_known(entry) or (entry.name in KINDS and is_folder(entry))):
                yield from _held(entry)


def _in_kind(kind: Path) -> Iterator[Path]:
    if not kind.is_dir():
        return
    with os.scandir(kind) as entries:
        for entry in entries:
            if _is_known(entry):
                continue
            if entry.is_symlink() or not _is_node(entry):
                yield from _held(entry)
            else:
                yield from _in_node(Path(entry.path))


def _in_node(node: Path) -> Iterator[Path]:
    """What lies in a group or an array of Zarr and is no part of it."""
    metadata = object_or_empty(node / FILE)
    is_array = metadata.get("node_type") == "array" or (node / ".zarray").exists()
    with os.scandir(node) as entries:
        for entry in entries:
            if _is_known(entry):
                continue
            if entry.is_symlink() and is_folder(entry):
                yield Path(entry.path)
            elif is_array and _CHUNK.fullmatch(entry.name):
                yield from _beside(entry, _CHUNK)
            elif not is_array and entry.name.endswith(".parquet"):
                yield from _beside(entry, _PARQUET)
            elif _is_node(entry):
                yield from _in_node(Path(entry.path))
            else:
                yield from _held(entry)


def _beside(entry: os.DirEntry[str], ours: re.Pattern[str]) -> Iterator[Path]:
    """Files in a folder of chunks that are named like none."""
    if not is_folder(entry):
        return
    with os.scandir(entry.path) as inside:
        for one in inside:
            if ours.fullmatch(one.name):
                yield from _beside(one, ours)
            elif not _is_known(one):
                yield from _held(one)


def _held(entry: os.DirEntry[str]) -> Iterator[Path]:
    """The entry, unless it is a folder without any file in it: nothing would be lost."""
    path = Path(entry.path)
    if entry.is_symlink() or not is_folder(entry) or any(not inside.is_dir() for inside in path.rglob("*")):
        yield path


def _is_known(entry: os.DirEntry[str]) -> bool:
    """Whether this is a file of metadata, a draft of one, or one of the system's own."""
    if entry.name not in {*_NODE, NAME} and not _DRAFT.fullmatch(entry.name) and not is_of_system(entry.name):
        return False
    return not is_folder(entry)


def _is_node(entry: os.DirEntry[str]) -> bool:
    return is_folder(entry) and any(os.path.exists(os.path.join(entry.path, name)) for name in _NODE)
