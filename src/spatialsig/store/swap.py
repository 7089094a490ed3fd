"""Swap directories of a store for new ones that were made ready beside it."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from spatialsig.store.atomic import exchange, flush_directory, flush_tree, write_text
from spatialsig.store.manifest import record
from spatialsig.store.metadata import consolidate, elements_on_disk, root_document, without_consolidated
from spatialsig.store.root import FILE, announce, as_text, replace_root, restore_root
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
    """Swap the staged elements in; on any exception swap them back."""
    before = (path / FILE).read_text(encoding="utf-8")
    undo: list[tuple[Path, Path, bool]] = []
    try:
        replace_root(path, without_consolidated(document))
        for name, kind in kinds.items():
            live, new = path / kind / name, staging / kind / name
            _require_kind(path, staging, kind)
            replaces = live.exists()
            if replaces:
                exchange(new, live)
            else:
                os.rename(new, live)
            undo.append((new, live, replaces))
            flush_directory(live.parent)
        list_labels(path)
        consolidate(path)
    except BaseException:
        for new, live, replaces in reversed(undo):
            if replaces:
                exchange(new, live)
            else:
                os.rename(live, new)
        list_labels(path)
        restore_root(path, before)
        raise


def _require_kind(path: Path, staging: Path, kind: str) -> None:
    """Give a store its first group of a kind, by one rename."""
    file = f"{kind}/{FILE}"
    if (path / file).exists():
        return
    group = staging / f"group-{kind}"
    group.mkdir()
    shutil.copyfile(staging / file, group / FILE)
    flush_tree(group)
    announce(path, {file: (group / FILE).read_text(encoding="utf-8")})
    os.rename(group, path / kind)


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
        announce(path, {name: as_text(document)})
        write_text(path / name, as_text(document))
