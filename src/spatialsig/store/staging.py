"""Siblings of a store in which new content is made ready, and what is left of them after an interruption."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spatialsig._errors import SpatialsigWarning
from spatialsig.store.atomic import ASIDE
from spatialsig.store.metadata import elements_on_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def clear_leftovers(path: Path) -> None:
    """Remove what interrupted writers left beside the store; first give back what they had taken away."""
    if not path.parent.is_dir():
        return
    for entry in sorted(path.parent.iterdir()):
        if entry.name.startswith(f"{path.name}{ASIDE}") and not path.exists():
            os.rename(entry, path)
    leftovers = [entry for entry in path.parent.iterdir() if entry.name.startswith(_prefix(path))]
    for staging in leftovers:
        if _is_alive(staging.name.removeprefix(_prefix(path))):
            continue
        for aside in staging.glob(f"*/*{ASIDE}*"):
            live = path / aside.parent.name / aside.name.split(ASIDE)[0]
            if path.exists() and not live.exists():
                os.rename(aside, live)
        shutil.rmtree(staging, ignore_errors=True)


def _is_alive(owner: str) -> bool:
    """Whether the process that made a staging directory may still be writing."""
    host, pid, _ = owner.rsplit("-", 2)
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
    broken = [(kind, name) for kind, name, finished in elements_on_disk(path) if not finished]
    if not broken:
        return
    shelter = path.with_name(f".{path.name}.quarantine-{secrets.token_hex(4)}")
    for kind, name in broken:
        (shelter / kind).mkdir(parents=True, exist_ok=True)
        os.rename(path / kind / name, shelter / kind / name)
    msg = f"{str(path)!r}: moved unfinished {[f'{kind}/{name}' for kind, name in broken]} to {str(shelter)!r}."
    warnings.warn(msg, SpatialsigWarning, stacklevel=4)
