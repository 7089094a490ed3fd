"""One writer at a time: a lock file beside the store, ignored by readers.

The file is made by linking a complete one into place, which is atomic on network file systems too (where links are
not supported it is created exclusively, then filled); no ``fcntl``.

Floor 1, above the ground floor. Used by 8 modules of cohort, store, whole_slides.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig._files import FULL, NOT_WRITABLE, writing
from spatialsig._paths import behind_links
from spatialsig._settings import settings
from spatialsig.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILE_NAME = 255  # bytes, on most file systems
_POLL_S = 0.05
_TAKEOVER_S = 30.0  # a takeover takes milliseconds; one that is older died in the middle
_held: dict[Path, threading.RLock] = {}  # one per store, so that threads of this process queue up
_depth: dict[Path, int] = {}
_tokens: set[str] = set()  # of the locks that this process holds now
_guard = threading.Lock()


def _forget() -> None:
    """Drop inherited lock state after a fork: the locks are its parent's."""
    global _guard
    _held.clear()
    _depth.clear()
    _tokens.clear()
    _guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def lock_file(path: Path) -> Path:
    """Path of the lock file of a store."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def writer_lock(path: Path, what: str) -> Iterator[None]:
    """Hold the lock of a store, which need not exist; within it the same thread may take it again.

    ``what`` is being done, another writer is told. Raises :class:`StoreError`, which names it, if another process still
    writes to the store after ``settings.lock_wait_s`` seconds.
    """
    path = behind_links(path).resolve()
    with _guard:
        thread_lock = _held.setdefault(path, threading.RLock())
    with thread_lock:
        if _depth.get(path, 0) == 0:
            token = _acquire(path, what)
        _depth[path] = _depth.get(path, 0) + 1
        try:
            with writing(path, codes=NOT_WRITABLE):
                yield
        finally:
            _depth[path] -= 1
            if _depth[path] == 0:
                _release(lock_file(path), token)


def _acquire(path: Path, what: str) -> str:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    file, token = lock_file(path), secrets.token_hex(8)
    deadline = time.monotonic() + settings.lock_wait_s
    while not _create(file, _entry(token, what)):
        holder = read_lock(file)
        if holder is None:
            continue  # released between the two looks
        if is_stale(holder):
            _take_away(file, holder)
        elif time.monotonic() >= deadline:
            raise StoreError(_held_message(path, holder))
        else:
            time.sleep(_POLL_S)
    _tokens.add(token)
    return token


def _held_message(path: Path, holder: dict[str, Any]) -> str:
    return (
        f"store {str(path)!r} is being written by another process: {holder.get('what')}, pid {holder.get('pid')} on "
        f"{holder.get('host')!r} since {holder.get('since')}. Wait for it (`sp.settings.lock_wait_s` seconds are "
        f"waited for), or, if that process no longer exists, remove {str(lock_file(path))!r}."
    )


def _entry(token: str, what: str) -> dict[str, Any]:
    pid = os.getpid()
    return {
        "token": token,
        "pid": pid,
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "started": _started(pid),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "what": what,
    }


def _create(file: Path, entry: dict[str, Any]) -> bool:
    """Make the lock file with its content at once; False if there is one."""
    text = json.dumps(entry)
    own = file.with_name(f"{file.name}-{entry['token']}")
    if len(os.fsencode(own.name)) > MAX_FILE_NAME:
        msg = f"store {str(file.with_name(file.name.removeprefix('.').removesuffix('.lock')))!r} has too long a name; choose a shorter one."
        raise StoreError(msg)
    try:
        _write_new(own, text)
        os.link(own, file)
    except FileExistsError:
        return False
    except OSError as error:
        if not own.exists() or error.errno in FULL:
            raise StoreError(_not_writable(file, error)) from error
        return _create_exclusively(file, text)  # no hard links on this file system: created, then filled
    finally:
        with suppress(OSError):  # of a place where nothing can be written, so that there is none
            own.unlink(missing_ok=True)
    return True


def _write_new(file: Path, text: str) -> None:
    """Write a file that must not exist; nothing is left of it if that fails."""
    with file.open("x", encoding="utf-8") as new:
        try:
            new.write(text)
            new.flush()
        except OSError:
            file.unlink(missing_ok=True)
            raise


def _not_writable(file: Path, error: OSError) -> str:
    store = file.with_name(file.name.removeprefix(".").removesuffix(".lock"))
    fix = "Free some space on the disk" if error.errno in FULL else "Copy the store to a place that you may write to"
    return f"store {str(store)!r} cannot be written: {error.strerror} in directory {str(file.parent)!r}. {fix}."


def _create_exclusively(file: Path, text: str) -> bool:
    try:
        _write_new(file, text)
    except FileExistsError:
        return False
    return True


def read_lock(file: Path) -> dict[str, Any] | None:
    """Who holds a lock; None where there is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, OSError):
        return {}  # being written, or damaged: held by somebody unknown
    return dict(found) if isinstance(found, dict) else {}


def is_stale(holder: dict[str, Any]) -> bool:
    """Whether the process that took the lock is known to be gone; always False for a lock from another host."""
    if holder.get("host") != socket.gethostname():
        return False
    if holder.get("boot") != _boot_id():
        return True
    if holder.get("pid") == os.getpid() and holder.get("token") not in _tokens:
        return True  # of an earlier process of this number, or this one could not remove it
    pid = int(holder.get("pid", -1))
    lives = process_lives(pid)
    if lives is None:
        return False
    return not lives or holder.get("started") != _started(pid)  # the pid has been reused


def process_lives(pid: int) -> bool | None:
    """Whether a process of this machine lives; None where nobody tells: another user's, or on Windows.

    There, signal 0 would not ask a process but end it.
    """
    if sys.platform == "win32":
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return None
    return True


def dead_lock_files(path: Path) -> list[Path]:
    """Temporary lock files left by processes that have ended."""
    name = lock_file(path).name
    made = [entry for entry in path.parent.iterdir() if entry.name.startswith((f"{name}-", f"{name}.takeover-"))]
    return [file for file in made if is_stale(read_lock(file) or {})]


def _take_away(file: Path, holder: dict[str, Any]) -> None:
    """Remove a stale lock, unless somebody else does: only the process that creates the takeover file may."""
    takeover = file.with_name(f"{file.name}.takeover-{holder['token']}")
    try:
        own = takeover.open("x", encoding="utf-8")
    except FileExistsError:
        try:
            old = time.time() - takeover.stat().st_mtime > _TAKEOVER_S
            if old or is_stale(read_lock(takeover) or {}):
                takeover.unlink(missing_ok=True)
        except FileNotFoundError:
            return
        time.sleep(_POLL_S)
        return
    try:  # from here on it is ours, and goes whatever happens
        with own:
            own.write(json.dumps(_entry(holder["token"], "taking over")))
        if (read_lock(file) or {}).get("token") == holder["token"]:
            file.unlink(missing_ok=True)
    finally:
        takeover.unlink(missing_ok=True)


def _release(file: Path, token: str) -> None:
    _tokens.discard(token)
    with suppress(OSError):  # the work is done; a lock that cannot be removed counts as stale from now on
        if (read_lock(file) or {}).get("token") == token:
            file.unlink(missing_ok=True)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process started, in ticks since the boot; empty where the system does not say, or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
