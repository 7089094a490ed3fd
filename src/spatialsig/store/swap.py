"""Swap directories of a store for new ones that were made ready beside it."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

from spatialsig.store.atomic import exchange, flush_directory, flush_tree, write_text
from spatialsig.store.metadata import consolidate, elements_on_disk, root_document, without_consolidated
from spatialsig.store.staging import clear_leftovers, quarantine_unfinished, staging_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any


def swap_in(path: Path, kinds: Mapping[str, str], write: Callable[[Path], None]) -> None:
    """Replace or add elements, each by one rename.

    Parameters
    ----------
    path
        Live store.
    kinds
        Name -> kind of the elements.
    write
        Called with a directory beside the store, in which it makes ``<kind>/<name>`` of every element, and
        ``<kind>/zarr.json``.

    Returns
    -------
    None; the elements and the consolidated metadata are on disk. After any exception the store is as it was.
    """
    document = root_document(path)
    clear_leftovers(path)
    quarantine_unfinished(path)
    with staging_directory(path) as staging:
        write(staging)
        flush_tree(staging)
        _install(path, staging, kinds, document)


def _install(path: Path, staging: Path, kinds: Mapping[str, str], document: Mapping[str, Any]) -> None:
    """Swap the staged elements in; on any exception swap them back."""
    root = path / "zarr.json"
    before = root.read_text(encoding="utf-8")
    undo: list[tuple[Path, Path, bool]] = []
    try:
        write_text(root, without_consolidated(document))
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
        _list_labels(path)
        consolidate(path)
    except BaseException:
        for new, live, replaces in reversed(undo):
            if replaces:
                exchange(new, live)
            else:
                os.rename(live, new)
        write_text(root, before)
        _list_labels(path)
        raise


def _require_kind(path: Path, staging: Path, kind: str) -> None:
    """Give a store its first group of a kind, by one rename."""
    if (path / kind / "zarr.json").exists():
        return
    group = staging / f"group-{kind}"
    group.mkdir()
    shutil.copyfile(staging / kind / "zarr.json", group / "zarr.json")
    flush_tree(group)
    os.rename(group, path / kind)


def _list_labels(path: Path) -> None:
    """OME-Zarr lists the labels of a group by name: make the list fit the directory."""
    file = path / "labels" / "zarr.json"
    if not file.exists():
        return
    document = json.loads(file.read_text(encoding="utf-8"))
    names = [name for kind, name, _ in elements_on_disk(path) if kind == "labels"]
    ome = document["attributes"].setdefault("ome", {})
    if sorted(ome.get("labels", [])) != names:
        ome["labels"] = names
        write_text(file, json.dumps(document, indent=2))
