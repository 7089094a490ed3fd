"""Make a damaged store readable again; what cannot be kept in it is moved beside it, never deleted.

Floor 1, above the ground floor. Used by io/_verify.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from spatialdata import __version__ as spatialdata_version

from spatialsig._checks import check_files
from spatialsig._files import object_or_empty, write_text
from spatialsig._known import what_is
from spatialsig.errors import StoreError
from spatialsig.store.foreign import is_draft
from spatialsig.store.lock import lock_file, writer_lock
from spatialsig.store.manifest import NAME, checksums, entry_of, manifest_file, read_manifest
from spatialsig.store.metadata import (
    ROOT_FILES,
    SPATIALDATA_ATTRS,
    as_text,
    check_links,
    consolidate,
    consolidated,
    elements_on_disk,
    record_coming,
    record_current,
    root_document,
    why_unfinished,
)
from spatialsig.store.stored.documents import FILE, FORMAT_2, KINDS, attributes_or_empty, copied_metadata
from spatialsig.store.swap import leftovers, list_labels, quarantine, restore_interrupted_swaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONTAINER_VERSION = "0.2"  # of spatialdata stores in Zarr format 3
LOST = (
    "What stood in its attributes is lost: name and patient of the slide, folds, how patches were cut, what was made from "
    "what. Bring `zarr.json` back from a copy, or import the slide again."
)


class Action(NamedTuple):
    """One thing that was done."""

    element: str
    kind: str
    action: str
    detail: str = ""


def repair_store(path: Path) -> Iterator[Action]:
    """Repair a store that a killed ``sdata.write`` or ``write_element`` left; yields one :class:`Action` per change.

    Raises :class:`FileMissingError` if there is nothing at ``path`` and nothing to give back, and :class:`StoreError`
    if it is something else than a store, or another process writes to it.
    """
    with writer_lock(path, "repairing"):
        for entry in restore_interrupted_swaps(path):
            yield Action("", "root", "restored", f"the store, from {entry.name}")
        check_files([path], what="SpatialData store", fix="Give the path of a directory written by `sp.io.write`.")
        _require_store(path)
        readable = _finished(path)
        yield from _quarantine_leftovers(path)
        yield from _restore_metadata(path)
        yield from _quarantine_unfinished(path)
        yield from _repair_root(path)
        _prove_nothing_lost(path, readable)


def _finished(path: Path) -> set[str]:
    return {f"{kind}/{name}" for kind, name, finished in elements_on_disk(path) if finished}


def _prove_nothing_lost(path: Path, before: set[str]) -> None:
    """Every element that could be read before is there and listed in the root."""
    listed = root_document(path)["consolidated_metadata"]["metadata"]
    lost = sorted(name for name in before if name not in _finished(path) or name not in listed)
    if lost:
        msg = f"the repair of {str(path)!r} left {lost} unreadable; what was moved lies beside the store. Please report this."
        raise StoreError(msg)


def _require_store(path: Path) -> None:
    """Never touch what was not meant to be a store."""
    if not path.is_dir():
        msg = f"{str(path)!r} is a file; give the directory of a store.{what_is(path)}"
        raise StoreError(msg)
    check_links(path)
    known = {FILE, *KINDS}
    tables = [file for name in FORMAT_2 for file in path.glob(f"tables/*/{name}")]
    if (path / FILE).is_file() and tables:
        element = tables[0].parent
        msg = f"{str(path)!r}: table {element.name!r} cannot be repaired, nothing was changed: {why_unfinished(element, 'tables')}."
        raise StoreError(msg)
    old = [name for name in FORMAT_2 if (path / name).exists() or any(path.glob(f"*/*/{name}"))]
    if old:
        msg = (
            f"{str(path)!r} is a store of Zarr format 2 ({old[0]} lies in it), which is not repaired; nothing was changed. "
            "Read it with spatialdata and write it again, and repair that store if it needs to be."
        )
        raise StoreError(msg)
    names = {entry.name for entry in path.iterdir() if not entry.name.startswith(".") and not is_draft(entry)}
    if FILE in names and names - known:
        msg = f"{str(path)!r} holds {sorted(names - known)[:5]}, which no store does: move them out first; nothing was changed."
        raise StoreError(msg)
    if not names or names - known or not names & known:
        msg = f"{str(path)!r} is not a SpatialData Zarr store: it holds {sorted(names)[:5]}; nothing was changed.{what_is(path)}"
        raise StoreError(msg)


def _quarantine_leftovers(path: Path) -> Iterator[Action]:
    left = [entry for entry in leftovers(path) if not entry.name.startswith(lock_file(path).name)]
    if left:
        quarantine_dir = quarantine(left, path)
        for entry in left:
            yield Action(entry.name, "", "moved", f"leftover, to {quarantine_dir.name}")


def _restore_metadata(path: Path) -> Iterator[Action]:
    """Write metadata files whose checksum no longer fits from their copy in the root, if that one fits."""
    try:
        copies = copied_metadata(root_document(path))
    except StoreError:
        return
    for kind, name, _ in elements_on_disk(path):
        element = path / kind / name
        for file, right in _altered_metadata(element, kind):
            node = f"{kind}/{name}/{file}".removesuffix(f"/{FILE}")
            copy = {key: value for key, value in copies.get(node, {}).items() if key != "consolidated_metadata"}
            for text in (as_text(copy), json.dumps(copy)):
                if entry_of(text.encode()) in right:
                    write_text(element / file, text)
                    yield Action(name, kind, "restored", f"{file}, from its copy in the root")
                    break


def _altered_metadata(element: Path, kind: str) -> list[tuple[str, Any]]:
    try:
        recorded = read_manifest(manifest_file(element, kind)) or {}
    except StoreError:
        return []
    files = [file for file in recorded if file == FILE or file.endswith(f"/{FILE}")]
    found = checksums(element, files)
    return [(file, recorded[file]) for file in files if found.get(file) not in recorded[file]]


def _quarantine_unfinished(path: Path) -> Iterator[Action]:
    broken = [(kind, name) for kind, name, finished in elements_on_disk(path) if not finished]
    if broken:
        quarantine_dir = quarantine([path / kind / name for kind, name in broken], path)
        for kind, name in broken:
            yield Action(name, kind, "moved", f"unfinished, to {quarantine_dir.name}")


def _repair_root(path: Path) -> Iterator[Action]:
    for kind in KINDS:
        if (path / kind).is_dir() and not _is_group(path / kind / FILE):
            _write(path, f"{kind}/{FILE}", _group({}))
            yield Action("", kind, "written", f"metadata of the group {kind!r}")
    try:
        document = root_document(path)
    except StoreError as error:
        version = {"version": CONTAINER_VERSION, "spatialdata_software_version": spatialdata_version}
        attributes = attributes_or_empty(path / FILE)
        document = _group(attributes | {SPATIALDATA_ATTRS: version})
        _write(path, FILE, document)
        lost = "" if attributes else f" {LOST}"
        yield Action("", "root", "written", f"root metadata: {error}{lost}")
    list_labels(path)
    if document.get("consolidated_metadata") != consolidated(path, document)["consolidated_metadata"]:
        consolidate(path)
        yield Action("", "root", "written", "consolidated metadata")
    elif not _root_is_as_recorded(path):
        record_current(path)
        yield Action("", "root", "recorded", "the root's metadata as they are now; look at its attributes")


def _root_is_as_recorded(path: Path) -> bool:
    try:
        recorded = read_manifest(path / NAME)
    except StoreError:
        return False
    found = checksums(path, ROOT_FILES)
    return recorded is None or all({entry} == recorded.get(name) for name, entry in found.items())


def _write(path: Path, name: str, document: Mapping[str, Any]) -> None:
    record_coming(path, {name: as_text(document)})
    write_text(path / name, as_text(document))


def _group(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}


def _is_group(file: Path) -> bool:
    return object_or_empty(file).get("node_type") == "group"
