"""Kill writers of a store, end them at every call, let every call fail, read meanwhile, flip bits.

Used by the benchmarks and by tests/faults_store.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
import traceback
from typing import TYPE_CHECKING, Any

import spatialdata as sd
from store_calls import Counter, counted_calls
from store_faults import ACTIONS, FINE, check, copy_of, forked, fresh, versions

import spatialsig as sp
from spatialsig.store import atomic
from spatialsig.store.swap import clear_leftovers

if TYPE_CHECKING:
    from pathlib import Path


IN_STEPS = "crash in steps"  # where the file system cannot exchange two names at once


def kill_run(base: Path, directory: Path, n: int, seed: int, only: tuple[str, ...] = tuple(ACTIONS)) -> dict[str, Any]:
    """Kill ``n`` writers at random moments."""
    rng = random.Random(seed)
    took = {}
    for action in only:
        store = copy_of(base, directory / f"time-{action}")
        took[action] = forked(lambda a=action, s=store: ACTIONS[a](s, 2))["seconds"]
    stores, broken = [], []
    for i in range(n):
        action = only[i % len(only)]
        store = copy_of(base, directory / f"kill-{i}")
        # the second half of a write is where it swaps; the first is where it makes ready
        delay = rng.uniform(0.3, 1.0) * took[action]
        answer = forked(lambda a=action, s=store: ACTIONS[a](s, 2), kill_after=delay)
        stores.append((f"{action} after {delay:.3f} s", store, action, answer["ended"]))
        if answer["ended"] not in {"killed", "exit 0"}:
            broken.append({"action": action, **answer})
    found = _checked(stores)
    return {"n": n, **found, "failures": [*broken, *found["failures"]]}


def _checked(stores: list[tuple[str, Path, str, str]], *, retry_every: int = 1) -> dict[str, Any]:
    answer = forked(lambda: _check_all(stores, retry_every=retry_every), limit=3600.0)
    return dict(answer.get("result") or {"states": {}, "failures": [answer]})


def crash_run(
    base: Path, directory: Path, action: str, *, in_steps: bool = False, retry_every: int = 1
) -> dict[str, Any]:
    """Look at the disk as a writer that ends at its k-th call would leave it, for every k.

    At every call that changes a file the whole directory is copied, unless the store itself is as at the call before:
    then only what lies beside it differs, of which every 40th state is kept.
    """
    store = copy_of(base, directory / "work")

    def write() -> list[int]:
        kept: list[int] = []
        before = ""

        def keep() -> None:
            nonlocal before
            with plain():
                now = fingerprint(store)
                if now != before or counter.count % 40 == 0:
                    shutil.copytree(store.parent, directory / f"k{counter.count}")
                    kept.append(counter.count)
                before = now

        counter = Counter(None, keep)
        if in_steps:
            atomic._exchange_at_once = lambda *_: False
        with counted_calls(counter) as plain:
            ACTIONS[action](store, 2)
        return [counter.count, *kept]

    total, *kept = forked(write, limit=600.0)["result"]
    stores = [(f"call {k}", directory / f"k{k}" / store.name, action, IN_STEPS if in_steps else "crash") for k in kept]
    return {
        "action": action,
        "in_steps": in_steps,
        "calls": total,
        "states_kept": len(kept),
        **_checked(stores, retry_every=retry_every),
    }


def fingerprint(store: Path) -> str:
    """Changes with every file of the store, and of the one that is made beside it."""
    files = sorted(file for root in (store, fresh(store)) for file in root.rglob("*") if file.is_file())
    return repr([(str(file), file.stat().st_ino, file.stat().st_size) for file in files])


def _check_all(stores: list[tuple[str, Path, str, str]], *, retry_every: int) -> dict[str, Any]:
    states: dict[str, int] = {}
    failures = []
    for i, (label, store, action, ended) in enumerate(stores):
        try:
            if not store.exists() or ended == IN_STEPS:  # cut between two renames: the next writer gives back
                clear_leftovers(store)
            state = check(store, action, retry=i % retry_every == 0)
            states[f"{ended}, {state}"] = states.get(f"{ended}, {state}", 0) + 1
            shutil.rmtree(store.parent)
        except Exception:  # noqa: BLE001 (counted)
            failures.append({"at": label, "action": action, "ended": ended, "error": traceback.format_exc()[-600:]})
    return {"states": states, "failures": failures}


MOVES = ("rename", "replace", "exchange_at_once")
FEW = 50  # calls that are all tried anyway


def full_disk_run(
    base: Path, directory: Path, action: str, error: int, *, sample: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Let the k-th call that changes a file fail, for every k; the store must stay as it was.

    With ``sample`` only that many calls fail, and all of those that move something into its place.
    """

    def work() -> dict[str, Any]:
        failures: list[dict[str, Any]] = []
        names: list[str] = []
        for _ in range(2):  # the first one also loads what is loaded once
            counter, store = Counter(0, lambda: None), _again(base, directory / "warm" / base.name)
            with counted_calls(counter):
                ACTIONS[action](store, 2)
            names = counter.names
        chosen = set(range(1, len(names) + 1))
        if sample is not None and len(chosen) > FEW:
            moves = {k for k, name in enumerate(names, start=1) if name in MOVES}
            chosen = moves | set(random.Random(seed).sample(sorted(chosen), sample))
        store, tried = copy_of(base, directory / "work"), 0
        for k in sorted(chosen):
            before = contents(store)
            counter = Counter(k, lambda: _fail(error))
            try:
                with counted_calls(counter):
                    ACTIONS[action](store, 2)
            except (OSError, ValueError, RuntimeError, KeyError) as raised:
                tried += 1
                if not _names(raised, error):
                    failures.append({"k": k, "error": f"hidden: {raised!r}"})
            else:
                store = _again(base, store)  # a failure that only cleaning up met: the commit is done
                continue
            if contents(store) != before:
                failures.append({"k": k, "call": counter.names[k - 1], "error": "the store has changed"})
                store = _again(base, store)
        ACTIONS[action](store, 2)
        if not sp.io.verify(store)["status"].isin(FINE).all():
            failures.append({"k": 0, "error": "after the retry: the store is not right"})
        found = {"action": action, "error": os.strerror(error), "calls": len(names)}
        return {**found, "chosen": len(chosen), "tried": tried, "failures": failures}

    answer = forked(work, limit=3600.0)
    return dict(answer.get("result") or {"action": action, "tried": 0, "failures": [answer]})


def _again(base: Path, store: Path) -> Path:
    if store.parent.exists():
        shutil.rmtree(store.parent)
    return copy_of(base, store.parent)


def contents(store: Path) -> dict[str, bytes]:
    """Bytes of every file, but for the record of the root: it may list a content that did not come."""
    files = [file for root in (store, fresh(store)) for file in root.rglob("*") if file.is_file()]
    record = store / ".spatialsig-manifest"
    return {str(file): file.read_bytes() for file in files if file != record}


def _fail(error: int) -> None:
    raise OSError(error, os.strerror(error))


def _names(raised: BaseException | None, error: int) -> bool:
    """Whether an error or one of its causes is the one that was injected."""
    while raised is not None:
        if getattr(raised, "errno", None) == error or os.strerror(error) in str(raised):
            return True
        raised = raised.__cause__ or raised.__context__
    return False


def reader_run(base: Path, directory: Path, commits: int) -> dict[str, Any]:
    """Read in a loop, in one process, what another one commits; only whole elements may be seen."""
    store = copy_of(base, directory / "readers")
    stop = directory / "stop"
    answer = directory / "reader.json"
    pid = os.fork()
    if pid == 0:
        reads, torn, seen, plain = 0, [], set(), 0
        while not stop.exists():
            try:
                seen.add(versions(store)["table"])
                reads += 1
                (directory / f"read-{reads}").touch()
            except Exception:  # noqa: BLE001 (counted)
                torn.append(traceback.format_exc()[-500:])
            try:
                sd.read_zarr(store)
            except Exception:  # noqa: BLE001 (counted: the plain reader does not look twice)
                plain += 1
        found = {"reads": reads, "torn": torn[:5], "n_torn": len(torn), "seen": sorted(seen), "plain_failed": plain}
        answer.write_text(json.dumps(found), encoding="utf-8")
        os._exit(0)

    def write() -> None:
        time.sleep(0.5)
        for i in range(20 * commits):  # on a busy machine the reader is slow: it is to see something of each kind
            if i >= commits and (directory / "read-3").exists():
                break
            ACTIONS["parts" if i % 3 == 2 else "table"](store, i % 3 if i % 3 == 2 else 1 + i % 2)

    wrote = forked(write, limit=600.0)
    stop.touch()
    os.waitpid(pid, 0)
    return {"commits": commits, "writer": wrote["ended"], **json.loads(answer.read_text(encoding="utf-8"))}


def flip_run(base: Path, directory: Path, n: int, seed: int) -> dict[str, Any]:
    """Flip one bit of one file, ``n`` times; verify must find each, and name its element."""
    store = copy_of(base, directory / "flips")

    def work() -> dict[str, Any]:
        rng = random.Random(seed)
        files = sorted(file for file in store.rglob("*") if file.is_file() and file.stat().st_size)
        missed, misnamed = [], []
        if not sp.io.verify(store)["status"].eq("ok").all():
            return {"n": 0, "missed": ["the store was not clean"], "misnamed": []}
        for _ in range(n):
            file = rng.choice(files)
            data = file.read_bytes()
            bit = rng.randrange(8 * len(data))
            broken = bytearray(data)
            broken[bit // 8] ^= 1 << bit % 8
            file.write_bytes(broken)
            try:
                faults = sp.io.verify(store)
            finally:
                file.write_bytes(data)
            faults = faults[~faults["status"].isin(FINE)]
            place = file.relative_to(store)
            if faults.empty:
                missed.append(f"{place} bit {bit}")
            elif len(place.parts) > 2 and place.parts[1] not in set(faults["element"]):
                misnamed.append(f"{place} bit {bit}")
        return {"n": n, "missed": missed, "misnamed": misnamed}

    answer = forked(work, limit=3600.0)
    return dict(answer.get("result") or {"n": 0, "missed": [answer], "misnamed": []})
