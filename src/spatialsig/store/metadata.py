"""Metadata of the root of a store: read, replaced so that they always fit their checksums, and the elements they list.

Floor 1, above the ground floor. Used by 22 modules of cli, cohort, evaluation, io, pl, pp, slide, store, whole_slides.
"""

from __future__ import annotations

import json
import os
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig._checks import NAME_RULE, check_files, first_few, names_element
from spatialsig._files import flush_entry, write_text
from spatialsig._known import what_is
from spatialsig.errors import InputError, StoreError
from spatialsig.store.atomic import link_or_copy
from spatialsig.store.manifest import NAME, checksums, entry_of, read_manifest, write_manifest
from spatialsig.store.stored.documents import FILE, FORMAT_2, KINDS, attributes_or_empty, document_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from spatialsig.store.manifest import Entry

ROOT_FILES = (FILE, *(f"{kind}/{FILE}" for kind in KINDS))
SPATIALDATA_ATTRS = "spatialdata_attrs"
# attributes that spatialdata writes last: an element without them was never finished
_FINISHED = dict.fromkeys(KINDS, frozenset({SPATIALDATA_ATTRS})) | {"tables": frozenset({"version"})}


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

    ``directory`` holds the names; it exists, on the same file system.
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
    found = {name: document_of(path / name / FILE) for name in nodes(path)}
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
        if document_of(path / node / FILE)["node_type"] != "group":
            continue  # what lies in an array are chunks
        with os.scandir(path / node) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_folder(entry))
        waiting += [f"{node}/{name}" for name in names if (path / node / name / FILE).is_file()]
    return found


def check_path(path: Path, *, name: str = "store") -> None:
    """Raise :class:`StoreError` where the libraries below would look for a store in another place, or cannot name it."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        msg = f"{name} {str(path.absolute())!r}: a part of the path is not UTF-8, which a store cannot keep; rename it, or choose another."
        raise StoreError(msg) from None
    if "::" in str(path.absolute()):
        msg = f"{name} {str(path)!r}: '::' in a path is read as a chain of addresses; rename that directory, or choose another."
        raise StoreError(msg)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one; not a link that leads back to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def check_links(path: Path) -> None:
    """Raise :class:`StoreError` for elements that are links and lead nowhere: what writes would take them for deleted."""
    lost = []
    for place in (path, *(path / kind for kind in KINDS)):
        if not place.is_dir():
            continue
        with os.scandir(place) as entries:
            lost += [Path(entry.path) for entry in entries if entry.is_symlink() and not os.path.exists(entry.path)]
    if lost:
        links = first_few([f"{link.relative_to(path)} to {os.readlink(link)!r}" for link in sorted(lost)])
        msg = (
            f"store {str(path)!r} has links to what is not there ({links}): mount its disk, or mend or remove the link."
        )
        raise StoreError(msg)


def stores_in(directory: Path) -> list[Path]:
    """Stores that lie side by side in a directory; none in one that is a store itself, or was."""
    entries = sorted(directory.iterdir()) if directory.is_dir() else []
    if any(entry.name in (FILE, *KINDS) for entry in entries):
        return []
    return [entry for entry in entries if (entry / FILE).is_file() and not entry.name.startswith(".")]


def root_document(path: Path) -> dict[str, Any]:
    """Metadata of the root group, as they lie on disk.

    Raises :class:`FileMissingError` if there is nothing at ``path``, and :class:`StoreError` if it is no SpatialData
    store in Zarr format 3, its root cannot be read, or one of its elements is a link that leads nowhere.
    """
    check_files([path], what="SpatialData store", fix="Give the path of a directory written by `sp.io.write`.")
    check_path(path)
    if path.is_file():
        msg = f"{str(path)!r} is a file; give the directory of a store.{what_is(path)}"
        raise StoreError(msg)
    check_links(path)
    file = path / "zarr.json"
    if not file.is_file():
        old = (path / ".zgroup").exists()
        what = "is a store of Zarr format 2" if old else "is not a SpatialData Zarr store (no zarr.json in it)"
        fix = "read it with spatialdata and write it again" if old else "give a directory written by `sp.io.write`"
        if not old and (inside := stores_in(path)):
            fix = f"give one of the {len(inside)} in it ({first_few([store.name for store in inside])}); functions of many slides take `sp.Cohort` of it"
        msg = f"{str(path)!r} {what}; {fix}.{'' if old else what_is(path)}"
        raise StoreError(msg)
    document = document_of(file)
    if SPATIALDATA_ATTRS not in document.get("attributes", {}):
        msg = f"{str(path)!r} is a Zarr group but not a SpatialData store: attribute {SPATIALDATA_ATTRS!r} is missing."
        raise StoreError(msg)
    return document


def read_attrs(path: Path) -> dict[str, Any]:
    """Attributes of the store, without those that belong to spatialdata itself (equal to ``sdata.attrs``)."""
    attributes = root_document(path)["attributes"]
    return {key: value for key, value in attributes.items() if key != SPATIALDATA_ATTRS}


def check_name(name: str) -> None:
    """Raise :class:`InputError` unless ``name`` can name an element (and its directory)."""
    if not names_element(name):
        msg = f"element name {name!r} cannot be stored; wanted {NAME_RULE}."
        raise InputError(msg)


@contextmanager
def quiet_zarr() -> Iterator[None]:
    """Writing without what Zarr says about its next version."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*autosharding.*", category=UserWarning)
        yield


@contextmanager
def quiet_names() -> Iterator[None]:
    """Without what AnnData says of a gene name that stands there twice: what needs each once says so itself, and what to do."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variable names are not unique", category=UserWarning)
        yield


def check_new_names(new: Iterable[str], there: Iterable[str] = ()) -> None:
    """Raise :class:`InputError` unless these names can name elements beside those that are there, on any file system."""
    there = set(there)
    spelt = {name.casefold(): name for name in there}
    for name in new:
        if name in there:
            continue
        check_name(name)
        other = spelt.setdefault(name.casefold(), name)
        if other != name:
            msg = (
                f"element name {name!r} differs from {other!r} only in upper and lower case, which many file systems do not "
                f"tell apart; choose another name."
            )
            raise InputError(msg)


def elements_on_disk(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield ``(kind, name, finished)`` of every element directory of a store."""
    for kind in KINDS:
        if not (path / kind).is_dir():
            continue
        with os.scandir(path / kind) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_folder(entry))
        for name in names:
            yield kind, name, is_finished(path / kind / name, kind)


def is_finished(element: Path, kind: str) -> bool:
    """Whether spatialdata had written the element to its end."""
    return _FINISHED[kind] <= attributes_or_empty(element / FILE).keys()


def why_unfinished(element: Path, kind: str) -> str:
    """What an element lacks that is not finished, and what to do about it."""
    foreign = any((element / name).exists() for name in FORMAT_2)
    table = attributes_or_empty(element / FILE)
    if kind == "tables" and (foreign or table.get("encoding-type") == "anndata"):
        how = "in Zarr format 2" if foreign else "without what links it to its shapes"
        name = repr(element.name)
        return (
            f"it was written {how}, as anndata alone does (or its writer was killed): table = anndata.read_zarr({str(element)!r}), "
            f"move that directory out of the store and call `sp.io.repair`, then sdata = sp.io.read(...); "
            f"sdata[{name}] = table; sdata.write_element({name})"
        )
    return "its metadata are not complete or not readable; `sp.io.repair` moves it out of the store"


def without_consolidated(document: Mapping[str, Any]) -> dict[str, Any]:
    """Root metadata while elements are swapped in: without the copy of all others, so that readers look at the elements."""
    return {key: value for key, value in document.items() if key != "consolidated_metadata"}


def consolidate(path: Path, attrs: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Copy the metadata of everything in the store into its root, as ``sdata.write`` does, and set attributes with them.

    ``attrs`` are entries of mappings of mappings, ``{attribute: {section: {name: value}}}``; what stands beside stays.
    """
    document = root_document(path)
    for attribute, sections in (attrs or {}).items():
        for section, entries in sections.items():
            if entries:
                kept = document["attributes"].setdefault(attribute, {})
                kept[section] = kept.get(section, {}) | dict(entries)
    replace_root(path, consolidated(path, document))
    try_record_current(path)
