"""Swap directories of a store for new ones that were made ready beside it."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from spatialsig._files import flush_entry, write_text
from spatialsig.store.atomic import exchange, flush_tree, link_or_copy
from spatialsig.store.manifest import record
from spatialsig.store.metadata import consolidate, elements_on_disk, root_document, without_consolidated
from spatialsig.store.root_metadata import FILE, KeptRoot, as_text, record_coming, replace_root
from spatialsig.store.staging import clear_leftovers, quarantine_unfinished, staging_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from spatialsig.store.manifest import Entry


def swap_in(
    path: Path, kinds: Mapping[str, str], write: Callable[[Path], Mapping[str, Mapping[str, Entry]] | None]
) -> None:
    """Replace or add elements, each by one rename. The caller holds the lock of the store.

    Parameters
    ----------
    path
        Live store.
    kinds
        Name -> kind of the elements.
    write
        Called with a directory beside the store, in which it makes ``<kind>/<name>`` of every element, and
        ``<kind>/zarr.json``. May return, per element, the manifest entries of files that it knows.

    Returns
    -------
    None; the elements and the consolidated metadata are on disk. After any exception the store is as it was.
    """
    document = root_document(path)
    clear_leftovers(path)
    quarantine_unfinished(path)
    with staging_directory(path) as staging:
        known = write(staging) or {}
        for name, kind in kinds.items():
            record(staging / kind / name, kind, known.get(name))
        flush_tree(staging)
        _install(path, staging, kinds, document)


def _install(path: Path, staging: Path, kinds: Mapping[str, str], document: Mapping[str, Any]) -> None:
    """Swap the staged elements in; on any exception swap them back, which takes no space on the disk."""
    kept = KeptRoot(path, staging)
    plain = staging / "plain-root"  # what the root is while elements are swapped
    undo: list[Callable[[], None]] = []
    try:
        replace_root(path, without_consolidated(document))
        link_or_copy(path / FILE, plain)
        for name, kind in kinds.items():
            _require_kind(path, staging, kind, undo)
            _put_in(staging / kind / name, path / kind / name, undo)
        list_labels(path)
        consolidate(path)
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
    document = json.loads((path / name).read_text(encoding="utf-8"))
    names = [name for kind, name, _ in elements_on_disk(path) if kind == "labels"]
    ome = document["attributes"].setdefault("ome", {})
    if sorted(ome.get("labels", [])) != names:
        ome["labels"] = names
        record_coming(path, {name: as_text(document)})
        write_text(path / name, as_text(document))
