"""What a crash of the machine may not change: everything is on the disk before a rename shows it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from spatialsig.store import atomic, commit, swap
from spatialsig.store.commit import commit_elements, create_store, write_attrs
from spatialsig.store.parts import commit_table_parts

from .conftest import squares, table, whole


class Disk:
    """Knows which files, as they are now, have been flushed, and looks at every rename into the store."""

    def __init__(self, store: Path) -> None:
        self.store, self.flushed, self.faults = store, set(), []
        self.unflushed_directories: set[Path] = set()
        self.moves = 0
        for file in store.rglob("*"):
            self.flushed.add(self.state(file))

    @staticmethod
    def state(file: Path) -> tuple[int, int, int]:
        found = file.stat()
        return found.st_ino, found.st_mtime_ns if file.is_file() else 0, found.st_size if file.is_file() else 0

    def tree(self, root: Path) -> None:
        self.flushed |= {self.state(file) for file in [root, *root.rglob("*")]}

    def file(self, descriptor: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self.flushed.add(self.state(place))
        self.unflushed_directories.discard(place)

    def moves_in(self, source: Path, target: Path) -> None:
        if not (target == self.store or target.is_relative_to(self.store)):
            return
        self.moves += 1
        new = [file for file in [source, *source.rglob("*")] if file.is_file()]
        self.faults += [f"{file} -> {target}" for file in new if self.state(file) not in self.flushed]
        if target.name == "zarr.json" and target.parent == self.store:
            # the root says what is there: that has to be on the disk by now
            self.faults += [f"root before {place}" for place in self.unflushed_directories - {self.store}]
        self.unflushed_directories.add(target.parent)


@pytest.fixture
def disk(kept_stores, tmp_path, monkeypatch):
    disk = Disk(Path(shutil.copytree(kept_stores / "ours.zarr", tmp_path / "s.zarr")))

    def before(place, name, note) -> None:
        original = getattr(place, name)

        def noted(*args):
            note(*args)
            return original(*args)

        monkeypatch.setattr(place, name, noted)

    before(os, "fsync", disk.file)
    for module in (swap, commit):
        before(module, "flush_tree", disk.tree)
    for name in ("rename", "replace"):
        before(os, name, lambda a, b: disk.moves_in(Path(a), Path(b)))
    before(atomic, "_exchange_at_once", disk.moves_in)
    return disk


ACTIONS = {
    "attributes": lambda path: write_attrs(path, {"a": 1}),
    "add": lambda path: commit_elements(path, {"new": squares(2), "table2": table(2)}),
    "replace": lambda path: commit_elements(path, {"squares": squares(2), "table": table(2)}),
    "parts": lambda path: commit_table_parts(path, "table", obsm={"x": np.zeros((4, 3))}),
    "overwrite": lambda path: create_store(path, whole(), overwrite=True),
}


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs the names of open files")
@pytest.mark.parametrize("action", ACTIONS)
def test_every_file_is_flushed_before_the_rename_that_shows_it(disk, action) -> None:
    ACTIONS[action](disk.store)
    assert disk.moves > 0
    assert disk.faults == []
    assert disk.unflushed_directories == set()


def test_a_flushed_tree_is_all_of_it(tmp_path, monkeypatch) -> None:
    """Without `syncfs` every file and every directory is flushed, one by one."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_text("1")
    (tmp_path / "a" / "b" / "y").write_text("2")
    seen = []
    original = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(os.fstat(fd).st_ino), original(fd)))
    monkeypatch.setattr(atomic, "_libc", lambda: None)
    atomic.flush_tree(tmp_path / "a")
    assert set(seen) == {file.stat().st_ino for file in [tmp_path / "a", *(tmp_path / "a").rglob("*")]}


def test_a_flush_that_fails_is_an_error(tmp_path, monkeypatch) -> None:
    class Libc:
        @staticmethod
        def syncfs(_descriptor) -> int:
            atomic.ctypes.set_errno(5)
            return -1

    monkeypatch.setattr(atomic, "_libc", Libc)
    with pytest.raises(OSError, match="Input/output error"):
        atomic.flush_tree(tmp_path)
