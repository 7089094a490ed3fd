"""Real limits of the disk, real second writers, and stores that the plain writers left half-written.

Used by the benchmarks and by tests/faults_store.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spatialdata as sd
from store_breaks import contents
from store_faults import (
    ACTIONS,
    FINE,
    N_CELLS,
    check,
    copy_of,
    elements,
    forked,
    squares,
    table,
    versions,
    whole,
)

import spatialsig as sp
from spatialsig.errors import StoreError
from spatialsig.store.commit import write_attrs
from spatialsig.store.lock import lock_file, writer_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = 4096


def limit_run(base: Path, directory: Path, action: str, limits: list[int]) -> dict[str, Any]:
    """Let no file grow beyond a limit (``RLIMIT_FSIZE``): writes are cut short by the system itself."""

    @contextmanager
    def limited(limit: int) -> Iterator[None]:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))

    def work() -> dict[str, Any]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        return _starve(base, directory, action, limits, limited, {errno.EFBIG})

    return _answer(work, action)


def space_run(base: Path, directory: Path, action: str, free_pages: list[int]) -> dict[str, Any]:
    """Fill a small file system, so that writes fail with ``ENOSPC``; ``skipped`` where none may be mounted."""
    directory.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(directory)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        return {"action": action, "tried": 0, "failures": [], "skipped": mounted.stderr.strip()}

    @contextmanager
    def limited(pages: int) -> Iterator[None]:
        found = os.statvfs(directory)
        ballast = directory / "ballast"  # takes all but so many pages
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, (found.f_bavail - pages) * PAGE)
        try:
            yield
        finally:
            ballast.unlink()

    try:
        return _answer(lambda: _starve(base, directory, action, free_pages, limited, {errno.ENOSPC}), action)
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def _answer(work: Callable[[], dict[str, Any]], action: str) -> dict[str, Any]:
    answer = forked(work, limit=3600.0)
    return dict(answer.get("result") or {"action": action, "tried": 0, "failures": [answer]})


def _starve(
    base: Path,
    directory: Path,
    action: str,
    amounts: list[int],
    limited: Callable[[int], Any],
    wanted: set[int],
) -> dict[str, Any]:
    """Do it with too little of something; the store must be as it was, and doing it again must work."""
    failures: list[dict[str, Any]] = []
    tried = done = 0
    for amount in amounts:
        store = copy_of(base, directory / f"{action}-{amount}")
        before = contents(store)
        try:
            with limited(amount):
                ACTIONS[action](store, 2)
        except Exception as raised:  # noqa: BLE001 (looked at)
            tried += 1
            if not _is_about(raised, wanted):
                failures.append({"amount": amount, "error": f"hidden: {raised!r}"})
            if contents(store) != before:
                failures.append({"amount": amount, "error": "the store has changed"})
        else:
            done += 1
        try:
            check(store, action)
        except Exception:  # noqa: BLE001 (counted)
            failures.append({"amount": amount, "error": traceback.format_exc()[-600:]})
        shutil.rmtree(store.parent)
    return {"action": action, "tried": tried, "done": done, "failures": failures}


def _is_about(raised: BaseException | None, wanted: set[int]) -> bool:
    while raised is not None:
        texts = [os.strerror(code) for code in wanted]
        if getattr(raised, "errno", None) in wanted or any(text in str(raised) for text in texts):
            return True
        raised = raised.__cause__ or raised.__context__
    return False


def second_writer_run(base: Path, directory: Path) -> dict[str, Any]:
    """One process writes; another one wants to, and is told who does; when the first is killed, it may."""
    store = copy_of(base, directory)
    started = directory / "started"

    def first() -> None:
        with writer_lock(store, "writing ['table']"):
            started.touch()
            time.sleep(60)

    pid = os.fork()
    if pid == 0:
        try:
            first()
        finally:
            os._exit(0)
    while not started.exists():
        time.sleep(0.005)

    def second() -> str:
        sp.settings.lock_wait_s = 0.2
        try:
            write_attrs(store, {"spatialsig": {"version": 2}})
        except StoreError as error:
            return str(error)
        return "written"

    try:
        told = forked(second)
        read = forked(lambda: versions(store))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    after = forked(second)
    names = [f"pid {pid}", socket.gethostname(), "writing ['table']", str(lock_file(store))]
    return {
        "names_missing": [name for name in names if name not in told.get("result", "")],
        "readers_wait": read["ended"] != "exit 0",
        "after_the_kill": after.get("result"),
    }


def plain_run(directory: Path, n: int, seed: int) -> dict[str, Any]:
    """Kill ``sdata.write`` and ``write_element`` at random moments, repair, and look for what was complete."""
    rng = random.Random(seed)
    directory.mkdir(parents=True)
    whole_store = directory / "plain.zarr"
    took = {
        "write": forked(lambda: _plain_write(whole_store, directory / "log"))["seconds"],
        "write_element": forked(lambda: _plain_add(_copy(whole_store, directory / "t"), directory / "log2"))["seconds"],
    }
    counts: dict[str, int] = {}
    failures = []
    for i in range(n):
        what = ("write", "write_element")[i % 2]
        work, log = directory / f"plain-{i}", directory / f"log-{i}"
        work.mkdir()
        store = work / "s.zarr"
        delay = rng.uniform(0.15, 1.0) * took[what]
        if what == "write":
            forked(lambda s=store, g=log: _plain_write(s, g), kill_after=delay)
        else:
            _copy(whole_store, work)
            forked(lambda s=store, g=log: _plain_add(s, g), kill_after=delay)
            forked(lambda s=store, g=log: _plain_more(s, g))
        if not store.exists():
            counts[f"{what}: nothing there"] = counts.get(f"{what}: nothing there", 0) + 1
            continue
        complete = log.read_text().split() if log.exists() else []
        complete += ["he", "cells", "dots", "squares", "table"] if what == "write_element" else []
        answer = forked(lambda s=store, c=complete: _repaired(s, c))
        state = answer.get("result", "failed")
        counts[f"{what}: {state}"] = counts.get(f"{what}: {state}", 0) + 1
        if "result" not in answer:
            failures.append({"what": what, "delay": delay, "complete": complete, "error": answer.get("error", answer)})
        shutil.rmtree(work)
    return {"n": n, "states": counts, "failures": failures}


def _copy(store: Path, directory: Path) -> Path:
    return Path(shutil.copytree(store, directory / "s.zarr"))


def _logged(log: Path) -> None:
    """Note every element that spatialdata has written to its end."""
    original = sd.SpatialData._write_element

    def writing(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        with log.open("a") as file:
            file.write(f"{kwargs['element_name']}\n")

    sd.SpatialData._write_element = writing


def _plain_write(store: Path, log: Path) -> None:
    _logged(log)
    whole(1).write(store)


def _plain_add(store: Path, log: Path) -> None:
    _logged(log)
    sdata = sd.read_zarr(store)
    sdata["later"], sdata["later_table"] = squares(1), table(1)
    sdata.write_element("later")
    sdata.write_element("later_table")


def _plain_more(store: Path, log: Path) -> None:
    """What breaks the store for good: another element after an interrupted one."""
    _logged(log)
    sdata = sd.read_zarr(store)
    sdata["another"] = squares(1)
    sdata.write_element("another")


def _repaired(store: Path, complete: list[str]) -> str:
    """Raise unless the store opens after a repair with everything that was complete; say what it was before."""
    try:
        sd.read_zarr(store)
        before = "readable"
    except Exception:  # noqa: BLE001 (any of them)
        before = "unreadable"
    sp.io.repair(store)
    sdata = sd.read_zarr(store)
    found = {name for _, name, _ in sdata.gen_elements()}
    lost = set(complete) - found
    if lost or not sp.io.verify(store)["status"].isin(FINE).all():
        msg = f"lost {lost}; {sp.io.verify(store).to_dict('records')}"
        raise AssertionError(msg)
    wanted = elements(1) | {"later": squares(1), "later_table": table(1), "another": squares(1)}
    for name in complete:
        if not _equal(sdata[name], wanted[name]):
            msg = f"{name} is not what was written"
            raise AssertionError(msg)
    ACTIONS["add"](store, 2)  # and it takes new elements again
    if len(sd.read_zarr(store)["new"]) != N_CELLS:
        msg = "the new element is not there"
        raise AssertionError(msg)
    return before


def _equal(found: Any, wanted: Any) -> bool:
    if hasattr(wanted, "obs"):
        same = found.obs["version"].equals(wanted.obs["version"]) and (found.X != wanted.X).nnz == 0
        return bool(same and (found.obsm["part"] == wanted.obsm["part"]).all())
    if hasattr(wanted, "compute") and hasattr(wanted, "columns"):
        return bool(found.compute().equals(wanted.compute()))
    if hasattr(wanted, "geometry"):
        return bool(found.equals(wanted))
    return bool((found.values == wanted.values).all())
