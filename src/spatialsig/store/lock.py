"""One writer at a time: a lock file beside a store, ignored by readers, or in a directory that a run works in.

The file is made by linking a complete one into place, which is atomic on network file systems too (where links are
not supported it is created exclusively, then filled); no ``fcntl``.

Floor 1, above the ground floor. Used by 15 modules of cohort, evaluation, pipeline, store, tl, train, whole_slides.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig._files import FULL, NOT_WRITABLE, writing
from spatialsig._paths import behind_links
from spatialsig._processes import boot_id, process_lives, started_at
from spatialsig._settings import settings
from spatialsig.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_FILE_NAME = 255  # bytes, on most file systems
_POLL_S = 0.05
_FILLED_S = 1.0  # a lock file that is made where links are not supported is empty for an instant
_RUN = "run"  # in place of the name of a store
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
    with _locked(path, what, _wait_for_store), writing(behind_links(path).resolve(), codes=NOT_WRITABLE):
        yield


@contextmanager
def run_lock(directory: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Hold a directory in which a run keeps what it has done, and which is made; the same thread may take it again.

    Raises :class:`StoreError` at once, which names the other process, where one works in it: two would overwrite each other.
    """
    with file_lock(Path(directory) / _RUN, what):
        yield


@contextmanager
def file_lock(file: Path, what: str) -> Iterator[None]:
    """As :func:`run_lock`, of one file that is written."""
    with _locked(file, what, _refuse_second):
        yield


@contextmanager
def _locked(path: Path, what: str, busy: Callable[[Path, dict[str, Any], float], None]) -> Iterator[None]:
    """Hold a lock; ``busy`` is told of each look at one that others hold, and since when this is, and raises in the end."""
    path = behind_links(path).resolve()
    with _guard:
        thread_lock = _held.setdefault(path, threading.RLock())
    if busy is _refuse_second:
        if not thread_lock.acquire(blocking=False):  # another thread of this process
            _refuse_second(path, read_lock(lock_file(path)) or {}, 0.0)
    else:
        thread_lock.acquire()
    try:
        if _depth.get(path, 0) == 0:
            token = _acquire(path, what, busy)
        _depth[path] = _depth.get(path, 0) + 1
        try:
            yield
        finally:
            _depth[path] -= 1
            if _depth[path] == 0:
                _release(lock_file(path), token)
    finally:
        thread_lock.release()


def _acquire(path: Path, what: str, busy: Callable[[Path, dict[str, Any], float], None]) -> str:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    file, token = lock_file(path), secrets.token_hex(8)
    began = time.monotonic()
    while not _create(file, _entry(token, what)):
        holder = read_lock(file)
        if holder is None:
            continue  # released between the two looks
        if is_stale(holder):
            _take_away(file, holder)
        else:
            busy(path, holder, time.monotonic() - began)
            time.sleep(_POLL_S)
    _tokens.add(token)
    return token


def _wait_for_store(path: Path, holder: dict[str, Any], waited_s: float) -> None:
    """Go on waiting for a writer of a store, or refuse."""
    if waited_s >= settings.lock_wait_s:
        msg = (
            f"store {str(path)!r} is being written by another process: {_who(holder)}. Wait for it (`sp.settings.lock_wait_s` "
            f"seconds are waited for), or, {_if_gone(path, holder)}."
        )
        raise StoreError(msg)


def _refuse_second(path: Path, holder: dict[str, Any], waited_s: float) -> None:
    """Refuse a second run in one directory, or a second writer of a file; one that is just being made is looked at again."""
    if not holder and waited_s < _FILLED_S:
        return
    place = path.parent if path.name == _RUN else path
    msg = (
        f"{str(place)!r} is in use by another process: {_who(holder)}; two at once would overwrite each other. Wait for it, choose "
        f"another place, or, {_if_gone(path, holder)}."
    )
    raise StoreError(msg)


def _who(holder: dict[str, Any]) -> str:
    if not holder.get("pid"):
        return "its lock file does not say by which, as it is damaged, or is being written"
    return f"{holder.get('what')}, pid {holder.get('pid')} on {holder.get('host')!r} since {holder.get('since')}"


def _if_gone(path: Path, holder: dict[str, Any]) -> str:
    here = socket.gethostname()
    unseen = f" (which {here!r} cannot see)" if holder.get("host") not in (here, None) else ""
    return f"if that process no longer exists{unseen}, remove {str(lock_file(path))!r}"


def _entry(token: str, what: str) -> dict[str, Any]:
    pid = os.getpid()
    return {
        "token": token,
        "pid": pid,
        "host": socket.gethostname(),
        "boot": boot_id(),
        "started": started_at(pid),
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
    locked = file.with_name(file.name.removeprefix(".").removesuffix(".lock"))
    place = str(locked.parent) if locked.name == _RUN else f"store {str(locked)!r}"
    fix = "Free some space on the disk" if error.errno in FULL else "Copy the store to a place that you may write to"
    return f"{place} cannot be written: {error.strerror} in directory {str(file.parent)!r}. {fix}."


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
    if holder.get("boot") != boot_id():
        return True
    if holder.get("pid") == os.getpid() and holder.get("token") not in _tokens:
        return True  # of an earlier process of this number, or this one could not remove it
    pid = holder.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False  # damaged
    lives = process_lives(pid)
    if lives is None:
        return False
    return not lives or holder.get("started") != started_at(pid)  # the pid has been reused


def dead_lock_files(path: Path) -> list[Path]:
    """Temporary lock files left by processes that have ended."""
    name = lock_file(path).name
    made = [entry for entry in path.parent.iterdir() if entry.name.startswith((f"{name}-", f"{name}.takeover-"))]
    return [file for file in made if is_stale(read_lock(file) or {})]


def _take_away(file: Path, holder: dict[str, Any]) -> None:
    """Remove a stale lock, unless somebody else does: only the process that creates the takeover file may."""
    takeover = file.with_name(f"{file.name}.takeover-{holder.get('token')}")
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
            own.write(json.dumps(_entry(str(holder.get("token")), "taking over")))
        if (read_lock(file) or {}).get("token") == holder.get("token"):
            file.unlink(missing_ok=True)
    finally:
        takeover.unlink(missing_ok=True)


def _release(file: Path, token: str) -> None:
    _tokens.discard(token)
    with suppress(OSError):  # the work is done; a lock that cannot be removed counts as stale from now on
        if (read_lock(file) or {}).get("token") == token:
            file.unlink(missing_ok=True)
