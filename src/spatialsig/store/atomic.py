"""Renames that either happen or do not, and the flushes that make them last.

Floor 1, above the ground floor. Used by 6 modules of models, store, whole_slides.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
from contextlib import contextmanager, suppress
from os import link
from pathlib import Path
from typing import TYPE_CHECKING

from spatialsig._files import draft_beside, flush_entry, writing

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
ASIDE = ".aside-"  # beside the new content: what an interrupted swap in steps has taken away


def exchange(first: Path, second: Path) -> None:
    """Swap two existing directories of one file system.

    One system call on Linux, so that no reader ever finds neither; elsewhere, and on file systems that cannot swap,
    renames with a name in between, undone when one of them fails.
    """
    if not _exchange_at_once(first, second):
        _exchange_in_steps(first, second)


@contextmanager
def replaced_directory(directory: Path) -> Iterator[Path]:
    """Give an empty directory beside ``directory``, and put it in its place once it is filled and on the disk."""
    with writing(directory), draft_beside(directory) as draft:
        yield draft
        flush_tree(draft)
        draft.chmod(0o755)
        if directory.exists():
            exchange(draft, directory)
        else:
            draft.replace(directory)
        flush_entry(directory.parent)


def _exchange_at_once(first: Path, second: Path) -> bool:
    """Swap with ``renameat2``; False where the system or the file system does not know it."""
    libc = _libc()
    if libc is None or not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    if done == 0:
        return True
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


def _exchange_in_steps(first: Path, second: Path) -> None:
    aside = first.with_name(f"{second.name}{ASIDE}{secrets.token_hex(4)}")
    os.rename(second, aside)
    try:
        os.rename(first, second)
    except OSError:
        os.rename(aside, second)
        raise
    os.rename(aside, first)


def name_before(aside: Path) -> str | None:
    """Name of what a swap in steps renamed to ``aside``; None where no swap gave that name."""
    name, _, token = aside.name.rpartition(ASIDE)
    return name if name and re.fullmatch("[0-9a-f]+", token) else None


def link_or_copy(old: Path, new: Path) -> None:
    """Make a second name of a file, or a copy of the same time on file systems without hard links."""
    try:
        link(old, new)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:
        shutil.copyfile(old, new)
        with suppress(OSError):  # by its time a reader knows that the file is the same
            os.utime(new, ns=(os.stat(old).st_atime_ns, os.stat(old).st_mtime_ns))


def flush_tree(root: Path) -> None:
    """Bring everything below ``root`` to the disk, before a rename makes it visible."""
    libc = _libc()
    if libc is not None and hasattr(libc, "syncfs"):  # one call instead of one per chunk file
        descriptor = os.open(root, os.O_RDONLY)
        try:
            done = libc.syncfs(descriptor)
        finally:
            os.close(descriptor)
        if done != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(root))
        return
    for directory, _, names in os.walk(root):
        for name in names:
            with (Path(directory) / name).open("rb+") as file:
                os.fsync(file.fileno())
        flush_entry(Path(directory))


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
