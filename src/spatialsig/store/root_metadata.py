"""Replace the metadata of a store's root so that they always fit their checksums, also after an interruption."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from spatialsig._files import flush_entry, write_text
from spatialsig.errors import StoreError
from spatialsig.store.atomic import link_or_copy
from spatialsig.store.manifest import NAME, checksums, entry_of, read_manifest, write_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spatialsig.store.manifest import Entry

FILE = "zarr.json"
KINDS = ("images", "labels", "points", "shapes", "tables")
ROOT_FILES = (FILE, *(f"{kind}/{FILE}" for kind in KINDS))


def as_text(document: Mapping[str, Any]) -> str:
    """Metadata as they are written."""
    return json.dumps(document, indent=2)


def record_coming(path: Path, coming: Mapping[str, str]) -> None:
    """Record the contents that files of the root are about to get, beside all that are right now."""
    now = {name: {entry} for name, entry in checksums(path, ROOT_FILES).items()}
    before = _recorded(path)
    entries = [(name, entry) for known in (now, before) for name, found in known.items() for entry in found]
    write_manifest(path / NAME, entries + [(name, entry_of(text.encode())) for name, text in coming.items()])


def record_current(path: Path) -> None:
    """Record the contents that files of the root have now, and no others."""
    write_manifest(path / NAME, checksums(path, ROOT_FILES).items())


def replace_root(path: Path, document: Mapping[str, Any]) -> None:
    """Replace the root's metadata; at no moment do they differ from what is recorded."""
    text = as_text(document)
    record_coming(path, {FILE: text})
    write_text(path / FILE, text)


def try_record_current(path: Path) -> None:
    """Settle after the last change; if it fails, the record lists more than it needs to, which harms nobody."""
    with suppress(OSError):
        record_current(path)


class KeptRoot:
    """Second names of the files of a root, to put them back by renames alone: that works on a full disk too.

    Parameters
    ----------
    path
        Store.
    directory
        Existing directory of the same file system, for the names.
    """

    def __init__(self, path: Path, directory: Path) -> None:
        self.path, self.directory = path, directory
        self._files = [name for name in (FILE, f"labels/{FILE}", NAME) if (path / name).exists()]
        for name in self._files:
            link_or_copy(path / name, self._kept(name))

    def put_back(self) -> None:
        """Make every file what it was; the record comes last, as all earlier ones list these contents too."""
        for name in self._files:
            os.replace(self._kept(name), self.path / name)
        if NAME not in self._files:
            (self.path / NAME).unlink(missing_ok=True)
        for name in self._files:
            with suppress(OSError):  # what made the commit fail may make this fail too
                flush_entry((self.path / name).parent)

    def _kept(self, name: str) -> Path:
        return self.directory / f"before-{name.replace('/', '-')}"


def _recorded(path: Path) -> dict[str, set[Entry]]:
    try:
        return read_manifest(path / NAME) or {}
    except StoreError:
        return {}


def consolidated(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """Root metadata with a copy of those of everything in the store, as ``sdata.write`` leaves them."""
    found = {name: json.loads((path / name / FILE).read_text(encoding="utf-8")) for name in nodes(path)}
    for node in found.values():
        if node["node_type"] == "group":
            node["consolidated_metadata"] = _inline({})
    return {**document, "consolidated_metadata": _inline(found)}


def _inline(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": metadata}


def nodes(path: Path) -> list[str]:
    """Paths of all groups and arrays below a store, relative to it; shallow ones first."""
    found: list[str] = []
    waiting = [kind for kind in KINDS if (path / kind / FILE).is_file()]
    while waiting:
        node = waiting.pop(0)
        found.append(node)
        if json.loads((path / node / FILE).read_text(encoding="utf-8"))["node_type"] != "group":
            continue  # what lies in an array are chunks
        with os.scandir(path / node) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        waiting += [f"{node}/{name}" for name in names if (path / node / name / FILE).is_file()]
    return found
