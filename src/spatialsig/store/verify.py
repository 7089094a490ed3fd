"""Faults of the files of a store, found without trusting any reader.

Floor 1, above the ground floor. Used by io/_verify, store/relayout.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import pyarrow.parquet as pq
import zarr

from spatialsig._checks import first_few
from spatialsig._progress import track
from spatialsig.errors import StoreError
from spatialsig.store.lock import is_stale, lock_file, read_lock
from spatialsig.store.manifest import NAME, Entry, checksums, files_below, manifest_file, read_manifest
from spatialsig.store.metadata import ROOT_FILES, consolidated, elements_on_disk, root_document, why_unfinished
from spatialsig.store.stored.damage import undecodable
from spatialsig.store.stored.documents import copied_metadata
from spatialsig.store.swap import leftovers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

Status: TypeAlias = Literal[
    "ok", "missing chunk", "altered", "unfinished", "leftover", "not checksummed", "stale", "changed"
]
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, EOFError)


def decode(element: Path) -> tuple[Status, str]:
    """Read everything in the directory of an element.

    Returns ``"altered"`` and what cannot be read, or ``"not checksummed"``, as codecs without checksums let most
    flipped bits through; with the number of chunks that are not there, which read as zeros.
    """
    missing = total = 0
    for file in sorted(element.rglob("*.parquet")):
        if file.is_file():
            try:
                pq.ParquetFile(file).read()
            except _UNREADABLE as error:
                return "altered", f"{file.relative_to(element)} cannot be read: {error}"
    for file in sorted(element.rglob("zarr.json")):
        try:
            node = zarr.open(file.parent, mode="r", zarr_format=3)
            if isinstance(node, zarr.Array):
                if (chunk := undecodable(node)) is not None:
                    return "altered", f"{(file.parent / chunk).relative_to(element)} cannot be decoded"
                steps = node.shards or node.chunks
                expected = math.prod(-(-size // step) for size, step in zip(node.shape, steps, strict=True))
                total += expected
                missing += expected - _chunk_files(file.parent)
        except _UNREADABLE as error:
            return "altered", f"{file.parent.relative_to(element)} cannot be read: {type(error).__name__}: {error}"
    detail = f"{missing} of {total} chunks are not there: zeros, unless they were lost" if missing > 0 else ""
    return "not checksummed", detail


def _chunk_files(array: Path) -> int:
    return sum(1 for file in array.rglob("*") if file.is_file() and file.name != "zarr.json")


class Finding(NamedTuple):
    """State of one element, of the root (``element=""``), or of a file beside the store."""

    element: str
    kind: str
    status: Status
    detail: str = ""


def verify_store(path: Path) -> Iterator[Finding]:
    """Look at every file of a store of any origin and at what lies beside it.

    Elements without a manifest are decoded chunk by chunk. Yields one :class:`Finding` per element that is right, and
    one per fault of others. Raises :class:`FileMissingError` if there is nothing at ``path``, :class:`StoreError` for a file.
    """
    if path.is_file():
        root_document(path)
    yield from _beside(path)
    yield from _root(path)
    elements = list(elements_on_disk(path))
    for kind, name, finished in track(elements, f"verifying {path.name}", unit="element"):
        if finished or manifest_file(path / kind / name, kind).exists():
            yield from verify_element(path / kind / name, kind, name)
        else:
            yield Finding(name, kind, "unfinished", why_unfinished(path / kind / name, kind))


def _beside(path: Path) -> Iterator[Finding]:
    holder = read_lock(lock_file(path))
    if holder is not None and not is_stale(holder):
        return  # a writer is at work: what lies there is its own
    if holder is not None:
        yield Finding(lock_file(path).name, "", "leftover", f"lock of pid {holder.get('pid')}, which has ended")
    for entry in leftovers(path):
        yield Finding(entry.name, "", "leftover", "made by a writer that was interrupted; no part of the store")


def _root(path: Path) -> Iterator[Finding]:
    try:
        document = root_document(path)
        recorded = read_manifest(path / NAME)
    except StoreError as error:
        yield Finding("", "root", "altered", str(error))
        return
    present = [name for name in ROOT_FILES if (path / name).is_file()]
    faults = [] if recorded is None else list(_compare(path, recorded, present))
    faults = faults or list(_compare_copy(path, document))
    for status, detail in faults:
        yield Finding("", "root", status, detail)
    if not faults:
        yield Finding("", "root", "ok" if recorded is not None else "not checksummed")


def _compare_copy(path: Path, document: dict[str, Any]) -> Iterator[tuple[Status, str]]:
    """Whether the copy of all metadata in the root is that of what lies in the store."""
    if "consolidated_metadata" not in document:
        yield "unfinished", "no consolidated metadata: a commit was interrupted; the next one, or a repair, adds them"
        return
    try:
        there = consolidated(path, document)["consolidated_metadata"]["metadata"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield "altered", f"metadata cannot be read: {error}"
        return
    copied = copied_metadata(document)  # what is damaged in it is not listed
    gone = sorted(set(copied) - set(there))
    if gone:
        yield "missing chunk", f"the root lists what is not there: {first_few(gone)}"
    new = sorted(name for name in there if name not in copied)
    if new:
        yield "altered", f"the root does not list {first_few(new)}"


def verify_element(element: Path, kind: str, name: str) -> Iterator[Finding]:
    """State of one finished element."""
    try:
        recorded = read_manifest(manifest_file(element, kind))
    except StoreError as error:
        yield Finding(name, kind, "altered", str(error))
        return
    if recorded is None:
        status, detail = decode(element)
        yield Finding(name, kind, status, detail)
        return
    faults = list(_compare(element, recorded, files_below(element)))
    for status, detail in faults:
        yield Finding(name, kind, status, detail)
    if not faults:
        yield Finding(name, kind, "ok")


def _compare(root: Path, recorded: dict[str, set[Entry]], present: Iterable[str]) -> Iterator[tuple[Status, str]]:
    found = checksums(root, recorded)
    missing = sorted(set(recorded) - set(found))
    altered = sorted(name for name, entry in found.items() if entry not in recorded[name])
    extra = set(present) - set(recorded)
    partial = sorted(name for name in extra if name.endswith(".partial"))
    if missing:
        yield "missing chunk", f"{len(missing)} of {len(recorded)} files are not there: {first_few(missing)}"
    if altered:
        yield "altered", f"{len(altered)} files are not what was committed: {first_few(altered)}"
    if partial:
        yield "leftover", f"files of an interrupted writer: {first_few(partial)}"
    if extra - set(partial):
        yield "altered", f"files that were not committed: {first_few(sorted(extra - set(partial)))}"
