"""Metadata files of a store, read with errors that name them, and what to do about one that is damaged.

Floor 1, above the ground floor. Used by 15 modules of data, io, slide, store.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from spatialsig._files import object_or_empty
from spatialsig.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FILE = "zarr.json"
FORMAT_2 = (".zgroup", ".zattrs", ".zmetadata", ".zarray")  # files of the Zarr format before
KINDS = ("images", "labels", "points", "shapes", "tables")
_NODES = ("array", "group")


def object_of(file: Path) -> dict[str, Any]:
    """Object of a JSON file of a store; :class:`StoreError` that names the file and the fix where it holds none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise damaged(file, "it is no JSON") from error
    if not isinstance(value, dict):
        raise damaged(file, f"it holds a {type(value).__name__} instead of an object")
    return value


def document_of(file: Path) -> dict[str, Any]:
    """Metadata of a group or an array of Zarr format 3; errors as of :func:`object_of`."""
    found = object_of(file)
    if found.get("node_type") not in _NODES:
        raise damaged(file, f"its node_type is {found.get('node_type')!r} instead of one of {list(_NODES)}")
    if not isinstance(found.get("attributes", {}), dict):
        raise damaged(file, f"its attributes are a {type(found['attributes']).__name__} instead of an object")
    return found


def attributes_or_empty(file: Path) -> dict[str, Any]:
    """Attributes of a group or an array; empty where the file is missing or damaged."""
    found = object_or_empty(file).get("attributes")
    return found if isinstance(found, dict) else {}


def damaged(file: Path, why: str) -> StoreError:
    """The error for a metadata file that cannot be read."""
    return StoreError(f"{str(file)!r} is damaged ({why}); wanted the JSON of a Zarr group or array. {what_to_do(file)}")


def lost(file: Path) -> StoreError:
    """The error for a metadata file that is not there, of a group or array that is."""
    return StoreError(
        f"{str(file)!r} is missing; wanted the JSON of the Zarr group or array in its folder. {what_to_do(file)}"
    )


def check_not_lost(store: Path, nodes: Iterable[str]) -> None:
    """Raise :func:`lost` for the first of the groups and arrays of a store that is there without its metadata of any format."""
    for node in sorted(nodes, key=lambda name: (name.count("/"), name)):
        place = store / node
        if any((place / name).is_file() for name in (FILE, *FORMAT_2)) or not place.is_dir():
            continue
        if any(each.is_dir() for each in place.iterdir()):
            raise lost(place / FILE)


def what_to_do(file: Path) -> str:
    """How to get a damaged file back."""
    store, _ = owner(file)
    if store is None:
        return "Copy or export the image again."
    lists = f"`sp.io.verify({str(store)!r})` lists all that is damaged."
    return f"Restore the store from a copy, or import the slide again; {lists}"


def owner(file: Path) -> tuple[Path | None, Path]:
    """The store and the element that a file belongs to; no store for an image elsewhere."""
    for element in file.parents:
        if element.parent.name in KINDS and (element.parent.parent / FILE).exists():
            return element.parent.parent, element
    of_root = file.parent.parent if file.parent.name in KINDS else file.parent
    is_store = any((of_root / kind).is_dir() for kind in KINDS)
    return (of_root if is_store else None), file.parent


def copied_metadata(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The copy of all metadata that a root keeps, by node; without what is damaged in it."""
    copy = document.get("consolidated_metadata")
    found = copy.get("metadata") if isinstance(copy, dict) else None
    return {name: node for name, node in found.items() if isinstance(node, dict)} if isinstance(found, dict) else {}
