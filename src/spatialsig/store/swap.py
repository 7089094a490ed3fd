"""Directories of a store swapped for new ones, which were made ready in a sibling of it; what interruptions leave there.

Floor 1, above the ground floor. Used by store/commit, store/parts, store/relayout, store/repair, store/verify.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from spatialsig._checks import warn
from spatialsig._files import flush_entry, write_text
from spatialsig._paths import behind_links
from spatialsig._processes import process_lives
from spatialsig.errors import StoreError
from spatialsig.store.atomic import ASIDE, exchange, flush_tree, link_or_copy, name_before
from spatialsig.store.foreign import check_replaced, is_draft, is_staged
from spatialsig.store.lock import dead_lock_files
from spatialsig.store.manifest import record
from spatialsig.store.metadata import (
    KeptRoot,
    as_text,
    consolidate,
    elements_on_disk,
    record_coming,
    replace_root,
    root_document,
    without_consolidated,
)
from spatialsig.store.stored.documents import FILE, KINDS, check_not_lost, copied_metadata, document_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from spatialsig.store.manifest import Entry


def whole_root(path: Path, *, but: Collection[str] = ()) -> dict[str, Any]:
    """:func:`root_document` of a store that is to be changed: of what its root lists, no metadata file may be lost.

    Otherwise the group and all in it would be left out of what is written. Elements ``but`` which are replaced may. Raises :class:`StoreError` that names the file.
    """
    document = root_document(path)
    nodes = {*KINDS, *copied_metadata(document)}
    check_not_lost(path, (node for node in nodes if "/".join(node.split("/")[:2]) not in but))
    return document


@contextmanager
def staging_directory(path: Path) -> Iterator[Path]:
    """Sibling directory of a store, gone afterwards whatever happens."""
    staging = path.with_name(f"{_prefix(path)}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _prefix(path: Path) -> str:
    return f".{path.name}.staging-"


def leftovers(path: Path) -> list[Path]:
    """Everything beside a store and in its root that an interrupted writer left; meaningful while nobody writes."""
    beside = [entry for entry in path.parent.iterdir() if entry.name.startswith(_prefix(path))]
    return sorted([*beside, *_taken_away(path), *_partial(path), *dead_lock_files(path)])


def _partial(path: Path) -> list[Path]:
    return [entry for pattern in ("*.partial", "*/*.partial") for entry in path.glob(pattern) if is_draft(entry)]


def _taken_away(path: Path) -> list[Path]:
    """Stores that a swap in steps took away from ``path``; none that a user named so."""
    found = [entry for entry in path.parent.iterdir() if name_before(entry) == path.name]
    return sorted(entry for entry in found if entry.is_dir() and is_staged(entry))


def _abandoned(path: Path) -> list[Path]:
    """Staging directories of writers that have ended."""
    beside = [entry for entry in path.parent.iterdir() if entry.name.startswith(_prefix(path)) and entry.is_dir()]
    return sorted(
        entry
        for entry in beside
        if not entry.is_symlink() and not _is_alive(entry.name.removeprefix(_prefix(path))) and is_staged(entry)
    )


def restore_interrupted_swaps(path: Path) -> list[Path]:
    """Put back what interrupted swaps had taken away; return from where."""
    given = []
    for entry in _taken_away(path):
        if not path.exists():
            os.rename(entry, path)
            given.append(entry)
    for staging in _abandoned(path):
        for aside in sorted(staging.glob(f"*/*{ASIDE}*")):
            name = name_before(aside)
            live = path / aside.parent.name / (name or "")
            if name is not None and path.exists() and not live.exists():
                os.rename(aside, live)
                given.append(aside)
    return given


def clear_leftovers(path: Path) -> None:
    """Remove what interrupted writers left; first give back what they had taken away. Call it with the lock held."""
    if not path.parent.is_dir():
        return
    restore_interrupted_swaps(path)
    for entry in _abandoned(path):
        shutil.rmtree(entry, ignore_errors=True)
    for file in _partial(path) + dead_lock_files(path):
        file.unlink(missing_ok=True)


def _is_alive(owner: str) -> bool:
    """Whether the process that made a staging directory may still be writing."""
    host, pid, token = owner.rsplit("-", 2) if owner.count("-") >= 2 else (owner, "", "")
    if host != socket.gethostname() or not pid.isdecimal() or re.fullmatch("[0-9a-f]+", token) is None:
        return True  # cannot be known from here, or the directory was named by somebody else
    return process_lives(int(pid)) is not False


def quarantine_unfinished(path: Path) -> None:
    """Move elements that another writer never finished out of the store: they would make it unreadable."""
    broken = [f"{kind}/{name}" for kind, name, finished in elements_on_disk(path) if not finished]
    if broken:
        quarantine_dir = quarantine([path / name for name in broken], path)
        msg = f"{str(path)!r}: moved unfinished {broken} to {str(quarantine_dir)!r}."
        warn(msg)


def quarantine(entries: Iterable[Path], path: Path) -> Path:
    """Move files and directories into a new directory beside a store; nothing is deleted."""
    quarantine_dir = path.with_name(f".{path.name}.quarantine-{secrets.token_hex(4)}")
    for entry in entries:
        inside = entry.relative_to(path) if entry.is_relative_to(path) else entry.name
        (quarantine_dir / inside).parent.mkdir(parents=True, exist_ok=True)
        os.rename(entry, quarantine_dir / inside)
    return quarantine_dir


def swap_in(
    path: Path,
    kinds: Mapping[str, str],
    write: Callable[[Path], Mapping[str, Mapping[str, Entry]] | None],
    attrs: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Replace or add elements of these kinds, by name, each by one rename. The caller holds the lock of the store.

    ``write`` is called with a directory beside the store, in which it makes ``<kind>/<name>`` of every element, and
    ``<kind>/zarr.json``. It may return, per element, the manifest entries of files that it knows. ``attrs``, entries of
    attributes of the store, are set in the moment in which the last element is in place. After any exception the store
    is as it was.
    """
    document = root_document(path)
    clear_leftovers(path)
    quarantine_unfinished(path)
    with staging_directory(path) as staging:
        for name, kind in kinds.items():
            _check_link(path / kind / name)
        known = write(staging) or {}
        check_replaced(path, staging, kinds)
        for name, kind in kinds.items():
            record(staging / kind / name, kind, known.get(name))
        flush_tree(staging)
        _install(path, staging, kinds, document, attrs or {})


def _check_link(live: Path) -> None:
    """An element that is a link is replaced where it lies, which takes one rename and therefore the same file system."""
    there = live.resolve()
    if there.exists() and there.stat().st_dev != live.parent.parent.stat().st_dev:
        msg = (
            f"{str(live)!r} leads to {str(there)!r} on another disk, where nothing can be swapped in one step: put the element "
            f"in the place of the link, or delete both, and call this again."
        )
        raise StoreError(msg)


def _install(
    path: Path,
    staging: Path,
    kinds: Mapping[str, str],
    document: Mapping[str, Any],
    attrs: Mapping[str, Mapping[str, Any]],
) -> None:
    """Swap the staged elements in; on any exception swap them back, which takes no space on the disk."""
    kept = KeptRoot(path, staging)
    plain = staging / "plain-root"  # what the root is while elements are swapped
    undo: list[Callable[[], None]] = []
    try:
        replace_root(path, without_consolidated(document))
        link_or_copy(path / FILE, plain)
        for name, kind in kinds.items():
            _require_kind(path, staging, kind, undo)
            _put_in(staging / kind / name, behind_links(path / kind / name), undo)
        list_labels(path)
        consolidate(path, attrs)
    except BaseException:
        if plain.exists():
            os.replace(plain, path / FILE)
        for step in reversed(undo):
            step()
        for kind in sorted(set(kinds.values())):
            with suppress(OSError):
                flush_entry(path / kind)
        kept.put_back()
        raise


def _put_in(new: Path, live: Path, undo: list[Callable[[], None]]) -> None:
    if live.exists():
        exchange(new, live)
        undo.append(lambda: exchange(new, live))
    else:
        os.rename(new, live)
        undo.append(lambda: os.rename(live, new))
    flush_entry(live.parent)


def _require_kind(path: Path, staging: Path, kind: str, undo: list[Callable[[], None]]) -> None:
    """Give a store its first group of a kind, by one rename."""
    file = f"{kind}/{FILE}"
    if (path / file).exists():
        return
    group = staging / f"group-{kind}"
    group.mkdir()
    shutil.copyfile(staging / file, group / FILE)
    flush_tree(group)
    record_coming(path, {file: (group / FILE).read_text(encoding="utf-8")})
    os.rename(group, path / kind)
    undo.append(lambda: os.rename(path / kind, group))
    flush_entry(path)


def list_labels(path: Path) -> None:
    """OME-Zarr lists the labels of a group by name: make the list fit the directory."""
    name = f"labels/{FILE}"
    if not (path / name).exists():
        return
    document = document_of(path / name)
    names = [name for kind, name, _ in elements_on_disk(path) if kind == "labels"]
    ome = document.setdefault("attributes", {}).setdefault("ome", {})
    if sorted(ome.get("labels", [])) != names:
        ome["labels"] = names
        record_coming(path, {name: as_text(document)})
        write_text(path / name, as_text(document))
