"""Read a store of another machine: tables and shapes whole, images and labels lazily.

``spatialdata`` reads a copy of the metadata, tables and shapes from a temporary folder, so that every element is what it
would be of a store of this machine; the pixels of images and labels, of which the folder holds none, are then put in place of theirs.

Floor 1, above the ground floor. Used by io/_store.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import zarr
from spatialdata import SpatialData, read_zarr

from spatialsig._checks import first_few, warn
from spatialsig._hashing import json_hash
from spatialsig.errors import FileMissingError, StoreError
from spatialsig.store.layout import levels_of
from spatialsig.store.manifest import entries_of, entry_of, manifest_file
from spatialsig.store.metadata import SPATIALDATA_ATTRS, as_text, quiet_names, without_consolidated
from spatialsig.store.remote.pixels import RemotePixels
from spatialsig.store.stored.damage import chunk_names
from spatialsig.store.stored.documents import FILE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from spatialsig.store.remote.places import Place

_PIXELS, _WHOLE = ("images", "labels"), ("shapes", "tables")
_PARQUET = "shapes.parquet"
_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def read_remote(place: Place) -> SpatialData:
    """The object in memory; its images and labels fetch what is asked of them, its points are left out.

    Raises
    ------
    FileMissingError
        If no store is at the address.
    StoreError
        If it cannot be reached, is damaged, or was changed while it was read.

    Warns
    -----
    SpatialsigWarning
        Naming the points that are not read.
    """
    document = _root(place)
    nodes = _nodes(place, document)
    with TemporaryDirectory() as folder:
        copy = Path(folder)
        _write(copy / FILE, as_text(document).encode())
        for name, node in nodes.items():
            _write(copy / name / FILE, as_text(without_consolidated(node)).encode())
        _fetch_whole(place, copy, nodes)
        sdata = _read_copy(place, copy)
    if _root(place) != document:
        msg = f"store {place.name!r} was changed while it was read; read it again when its writer has finished."
        raise StoreError(msg)
    _put_pixels(sdata, place, nodes, stamp=json_hash(document))
    sdata.path = None
    _say_points(place, nodes)
    return sdata


def _root(place: Place) -> dict[str, Any]:
    text = place.fetch(FILE)
    if text is None:
        msg = f"there is no store at {place.name!r}, which has no {FILE}: give the address of the folder of a store (Zarr format 3)."
        raise FileMissingError(msg)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"what lies at {place.name!r} is no store: its {FILE} is no JSON. Check the address; a page of errors may answer in its place."
        raise StoreError(msg) from error
    if not isinstance(document, dict) or SPATIALDATA_ATTRS not in (document.get("attributes") or {}):
        msg = f"what lies at {place.name!r} is no SpatialData store: attribute {SPATIALDATA_ATTRS!r} is missing."
        raise StoreError(msg)
    return document


def _nodes(place: Place, document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Metadata of every group and array below the root: addresses cannot be listed, so that they must stand in it."""
    nodes = (document.get("consolidated_metadata") or {}).get("metadata")
    if not isinstance(nodes, dict):
        msg = (
            f"store {place.name!r} has no copy of its metadata in its root, without which its elements cannot be found: it is being "
            "written, or its writer left that out. Call `sp.io.repair` where the store lies, and copy it to that place again."
        )
        raise StoreError(msg)
    for name, node in nodes.items():
        parts = PurePosixPath(name).parts
        if not isinstance(node, dict) or "\\" in name or {"/", ".."} & set(parts) or not parts:
            msg = f"store {place.name!r} is damaged: the metadata in its root name a part {name!r}. Copy it to that place again."
            raise StoreError(msg)
    return nodes


def _fetch_whole(place: Place, copy: Path, nodes: Mapping[str, Any]) -> None:
    """Fetch every file of tables and shapes, and check those whose size and checksum were recorded."""
    elements = {name: PurePosixPath(name).parts[0] for name in nodes if name.count("/") == 1 and _is_whole(name)}
    lists = {name: manifest_file(Path(name), kind).as_posix() for name, kind in elements.items()}
    held = dict(place.fetch_all(lists.values()))
    recorded: dict[str, Any] = {}
    for name, file in lists.items():
        text = held[file]
        known = {} if text is None else entries_of(text, name=f"{place.name}/{file}")
        recorded |= {f"{name}/{part}": entries for part, entries in known.items()}
    for file, content in place.fetch_all(_files_of(copy, nodes)):
        _check(place, file, content, recorded.get(file))
        if content is not None:
            _write(copy / file, content)


def _is_whole(name: str) -> bool:
    return name.partition("/")[0] in _WHOLE


def _files_of(copy: Path, nodes: Mapping[str, Any]) -> Iterator[str]:
    """Chunks of the arrays of tables and shapes, none of which is in the copy, and the files of shapes."""
    for name, node in nodes.items():
        if _is_whole(name) and node.get("node_type") == "array":
            yield from (f"{name}/{chunk}" for chunk in chunk_names(zarr.open_array(copy / name, mode="r")))
        elif name.startswith("shapes/") and name.count("/") == 1 and not any(n.startswith(f"{name}/") for n in nodes):
            yield f"{name}/{_PARQUET}"


def _check(place: Place, file: str, content: bytes | None, recorded: Any) -> None:
    if content is None and (recorded is not None or file.endswith(_PARQUET)):
        what = "is not there, though it was written"
    elif content is not None and recorded is not None and entry_of(content) not in recorded:
        what = "is damaged: it is not what was written"
    else:
        return
    msg = f"'{place.name}/{file}' {what}. Copy the store to that place again."
    raise StoreError(msg)


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _read_copy(place: Place, copy: Path) -> SpatialData:
    try:
        with quiet_names():
            return read_zarr(copy, selection=(*_PIXELS, *_WHOLE))
    except _FAILURES as error:
        said = str(error).replace(str(copy), place.name)
        msg = f"store {place.name!r} cannot be read: {type(error).__name__}: {said}. Copy it to that place again."
        raise StoreError(msg) from error


def _put_pixels(sdata: SpatialData, place: Place, nodes: Mapping[str, Any], *, stamp: str) -> None:
    for kind in _PIXELS:
        for key, element in getattr(sdata, kind).items():
            attributes = nodes[f"{kind}/{key}"]["attributes"]
            datasets = attributes.get("ome", attributes)["multiscales"][0]["datasets"]
            for level, dataset in zip(levels_of(element), datasets, strict=True):
                name = f"{kind}/{key}/{dataset['path']}"
                level.data = RemotePixels(place, name, as_text(nodes[name]), stamp).lazy()


def _say_points(place: Place, nodes: Mapping[str, Any]) -> None:
    points = [name for name in nodes if name.startswith("points/") and name.count("/") == 1]
    if points:
        msg = (
            f"{first_few(points)} of store {place.name!r} are not read: points of an address cannot be listed. Copy the store to this "
            "machine where you need them."
        )
        warn(msg)
