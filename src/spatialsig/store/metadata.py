"""Metadata of the root of a store: whether it is one, its attributes and its elements."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from spatialsig._checks import check_files
from spatialsig._files import object_or_empty
from spatialsig.errors import InputError, StoreError
from spatialsig.store.root_metadata import KINDS, consolidated, replace_root, try_record_current

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SPATIALDATA_ATTRS = "spatialdata_attrs"
MAX_NAME = 100
_NAME = re.compile(r"[A-Za-z0-9_.-]+")

# attributes that spatialdata writes last: an element without them was never finished
_FINISHED = dict.fromkeys(KINDS, frozenset({SPATIALDATA_ATTRS})) | {"tables": frozenset({"version"})}


def root_document(path: Path) -> dict[str, Any]:
    """Metadata of the root group, as they lie on disk.

    Raises
    ------
    FileMissingError
        If there is nothing at ``path``.
    StoreError
        If ``path`` is no SpatialData store in Zarr format 3, or its root cannot be read.
    """
    check_files([path], what="SpatialData store", fix="Give the path of a directory written by `sp.io.write`.")
    file = path / "zarr.json"
    if not file.is_file():
        old = (path / ".zgroup").exists()
        what = "is a store of Zarr format 2" if old else "is not a SpatialData Zarr store (no zarr.json in it)"
        fix = "read it with spatialdata and write it again" if old else "give a directory written by `sp.io.write`"
        msg = f"{str(path)!r} {what}; {fix}."
        raise StoreError(msg)
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        attributes = document["attributes"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{str(file)!r} is damaged ({error}); wanted the JSON of a Zarr group: restore the file or the store."
        raise StoreError(msg) from error
    if SPATIALDATA_ATTRS not in attributes:
        msg = f"{str(path)!r} is a Zarr group but not a SpatialData store: attribute {SPATIALDATA_ATTRS!r} is missing."
        raise StoreError(msg)
    return dict(document)


def read_attrs(path: Path) -> dict[str, Any]:
    """Attributes of the store, without those that belong to spatialdata itself (equal to ``sdata.attrs``)."""
    attributes = root_document(path)["attributes"]
    return {key: value for key, value in attributes.items() if key != SPATIALDATA_ATTRS}


def check_name(name: str) -> None:
    """Raise :class:`InputError` unless ``name`` can name an element (and its directory)."""
    plain = _NAME.fullmatch(name) is not None and not name.startswith(("__", "."))
    if not plain or len(name) > MAX_NAME:
        msg = (
            f"element name {name!r} cannot be stored; wanted 1-{MAX_NAME} letters, digits, '_', '-' or '.', "
            f"not starting with '.' or '__'."
        )
        raise InputError(msg)


def elements_on_disk(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield ``(kind, name, finished)`` of every element directory of a store."""
    for kind in KINDS:
        if not (path / kind).is_dir():
            continue
        with os.scandir(path / kind) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        for name in names:
            yield kind, name, is_finished(path / kind / name, kind)


def is_finished(element: Path, kind: str) -> bool:
    """Whether spatialdata had written the element to its end."""
    attributes = object_or_empty(element / "zarr.json").get("attributes")
    return isinstance(attributes, dict) and _FINISHED[kind] <= attributes.keys()


def without_consolidated(document: Mapping[str, Any]) -> dict[str, Any]:
    """Root metadata without the copy of all other metadata: readers then look at the elements themselves."""
    return {key: value for key, value in document.items() if key != "consolidated_metadata"}


def consolidate(path: Path) -> None:
    """Copy the metadata of everything in the store into its root, as ``sdata.write`` does."""
    replace_root(path, consolidated(path, root_document(path)))
    try_record_current(path)
