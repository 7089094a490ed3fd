"""Replace the metadata of a store's root so that they always fit their checksums, also after an interruption."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from spatialsig.store.atomic import write_text
from spatialsig.store.manifest import NAME, checksums, entry_of, write_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "zarr.json"
KINDS = ("images", "labels", "points", "shapes", "tables")
ROOT_FILES = (FILE, *(f"{kind}/{FILE}" for kind in KINDS))


def as_text(document: Mapping[str, Any]) -> str:
    """Metadata as they are written."""
    return json.dumps(document, indent=2)


def announce(path: Path, coming: Mapping[str, str]) -> None:
    """Record the contents that files of the root have now, and those that they are about to get."""
    entries = list(checksums(path, ROOT_FILES).items())
    write_manifest(path / NAME, entries + [(name, entry_of(text.encode())) for name, text in coming.items()])


def settle(path: Path) -> None:
    """Record the contents that files of the root have now."""
    announce(path, {})


def replace_root(path: Path, document: Mapping[str, Any]) -> None:
    """Replace the root's metadata; at no moment do they differ from what is recorded."""
    text = as_text(document)
    announce(path, {FILE: text})
    write_text(path / FILE, text)
    settle(path)


def restore_root(path: Path, text: str) -> None:
    """Put the root's metadata back as they were."""
    announce(path, {FILE: text})
    write_text(path / FILE, text)
    settle(path)


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
