"""Siblings of a store in which new content is made ready, and what is left of them after an interruption."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spatialsig.errors import SpatialsigWarning
from spatialsig.store.atomic import ASIDE
from spatialsig.store.lock import dead_lock_files
from spatialsig.store.metadata import elements_on_disk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


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
    mine = (_prefix(path), f"{path.name}{ASIDE}")
    beside = [entry for entry in path.parent.iterdir() if entry.name.startswith(mine)]
    return sorted(beside + _partial(path) + dead_lock_files(path))


def _partial(path: Path) -> list[Path]:
    return [*path.glob("*.partial"), *path.glob("*/*.partial")]


def restore_interrupted_swaps(path: Path) -> list[Path]:
    """Put back what interrupted swaps had taken away; return from where."""
    given = []
    for entry in sorted(path.parent.iterdir()):
        if entry.name.startswith(f"{path.name}{ASIDE}") and not path.exists():
            os.rename(entry, path)
            given.append(entry)
        if entry.name.startswith(_prefix(path)) and not _is_alive(entry.name.removeprefix(_prefix(path))):
            for aside in sorted(entry.glob(f"*/*{ASIDE}*")):
                live = path / aside.parent.name / aside.name.split(ASIDE)[0]
                if path.exists() and not live.exists():
                    os.rename(aside, live)
                    given.append(aside)
    return given


def clear_leftovers(path: Path) -> None:
    """Remove what interrupted writers left; first give back what they had taken away. Call it with the lock held."""
    if not path.parent.is_dir():
        return
    restore_interrupted_swaps(path)
    for entry in path.parent.iterdir():
        if entry.name.startswith(_prefix(path)) and not _is_alive(entry.name.removeprefix(_prefix(path))):
            shutil.rmtree(entry, ignore_errors=True)
    for file in _partial(path) + dead_lock_files(path):
        file.unlink(missing_ok=True)


def _is_alive(owner: str) -> bool:
    """Whether the process that made a staging directory may still be writing."""
    host, pid, _ = owner.rsplit("-", 2) if owner.count("-") >= 2 else (owner, "", "")
    if host != socket.gethostname():
        return True  # cannot be known from here
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def quarantine_unfinished(path: Path) -> None:
    """Move elements that another writer never finished out of the store: they would make it unreadable."""
    broken = [f"{kind}/{name}" for kind, name, finished in elements_on_disk(path) if not finished]
    if broken:
        quarantine_dir = quarantine([path / name for name in broken], path)
        msg = f"{str(path)!r}: moved unfinished {broken} to {str(quarantine_dir)!r}."
        warnings.warn(msg, SpatialsigWarning, stacklevel=5)


def quarantine(entries: Iterable[Path], path: Path) -> Path:
    """Move files and directories into a new directory beside a store; nothing is deleted."""
    quarantine_dir = path.with_name(f".{path.name}.quarantine-{secrets.token_hex(4)}")
    for entry in entries:
        inside = entry.relative_to(path) if entry.is_relative_to(path) else entry.name
        (quarantine_dir / inside).parent.mkdir(parents=True, exist_ok=True)
        os.rename(entry, quarantine_dir / inside)
    return quarantine_dir
