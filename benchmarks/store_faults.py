"""Break writers of a store in every way, and look at what they leave. Used by the benchmarks and by tests/faults_store.

Everything that touches Zarr runs in a forked child: the parent imports, forks before Zarr starts its threads, and
kills. Every element of the store is made from one number, its version, so that half of one is seen.
"""

from __future__ import annotations

import io
import json
import logging
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pandas as pd
import spatialdata as sd
from anndata import AnnData
from scipy import sparse
from shapely import box
from spatialdata.models import Image2DModel, Labels2DModel, PointsModel, ShapesModel, TableModel

import spatialsig as sp
import spatialsig.io._repair
import spatialsig.io._store
import spatialsig.io._verify
from spatialsig.store import atomic
from spatialsig.store import swap as swap_module
from spatialsig.store.commit import commit_elements, create_store, write_attrs
from spatialsig.store.parts import commit_table_parts
from spatialsig.store.snapshot import read_store
from spatialsig.store.staging import clear_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N_CELLS = 50
logging.getLogger("ome_zarr").setLevel(logging.ERROR)
FINE = ("ok", "not checksummed")


def picture(version: int) -> np.ndarray:
    return np.random.default_rng(version).integers(0, 256, (3, 300, 280), dtype=np.uint8)


def table(version: int) -> AnnData:
    names = [f"c{i}" for i in range(N_CELLS)]
    region = pd.Categorical(["squares"] * N_CELLS)
    obs = pd.DataFrame({"region": region, "patch_id": np.arange(N_CELLS), "version": version}, index=names)
    adata = AnnData(sparse.csr_matrix(np.full((N_CELLS, 3), version + 1, np.float32)), obs=obs)
    adata.obsm["part"] = np.full((N_CELLS, 2), version, np.float32)
    adata.uns["spatialsig"] = {"part": version}
    return TableModel.parse(adata, region="squares", region_key="region", instance_key="patch_id")


def squares(version: int) -> gpd.GeoDataFrame:
    x = np.arange(N_CELLS) * 10.0
    return ShapesModel.parse(
        gpd.GeoDataFrame({"version": version}, geometry=box(x, 0, x + 10, 10), index=range(N_CELLS))
    )


def points(version: int) -> Any:
    frame = pd.DataFrame({"x": np.arange(20.0), "y": np.zeros(20), "version": version})
    return PointsModel.parse(frame)


def elements(version: int) -> dict[str, Any]:
    return {
        "he": Image2DModel.parse(picture(version), c_coords=["r", "g", "b"]),
        "cells": Labels2DModel.parse(np.full((16, 16), version, np.int32), dims=("y", "x")),
        "dots": points(version),
        "squares": squares(version),
        "table": table(version),
    }


def whole(version: int) -> sd.SpatialData:
    return sd.SpatialData.init_from_elements(elements(version), attrs={"spatialsig": {"version": version}})


def _parts(path: Path, version: int) -> None:
    commit_table_parts(
        path,
        "table",
        obsm={"part": np.full((N_CELLS, 2), version, np.float32)},
        obs={"version": np.full(N_CELLS, version)},
        uns={"spatialsig": {"part": version}},
    )


# name -> what is done to a store of version 1; each is repeatable
ACTIONS: dict[str, Callable[[Path, int], None]] = {
    "replace": lambda path, version: commit_elements(path, elements(version)),
    "table": lambda path, version: commit_elements(path, {"table": table(version), "squares": squares(version)}),
    "add": lambda path, version: commit_elements(path, {"new": squares(version)}),
    "parts": _parts,
    "attrs": lambda path, version: write_attrs(path, {"spatialsig": {"version": version}}),
    "optimize": lambda path, _: sp.io.optimize(path, layout="speed", chunk_px=64),
    "overwrite": lambda path, version: create_store(path, whole(version), overwrite=True),
}


def versions(path: Path) -> dict[str, int]:
    """Version of every element and of the attributes; raises where an element is not wholly of one version."""
    sdata = read_store(path)
    found: dict[str, set[Any]] = {}
    for name in sdata.images:
        image = sdata[name]
        pixels = (image["scale0"]["image"] if hasattr(image, "children") else image).values
        found[name] = {v for v in range(4) if np.array_equal(pixels, picture(v))}
    for name in sdata.labels:
        found[name] = set(np.unique(sdata[name].values))
    for name in sdata.points:
        found[name] = set(sdata[name].compute()["version"])
    for name in sdata.shapes:
        frame = sdata[name]
        found[name] = set(frame["version"]) if len(frame) == N_CELLS else set()
    for name, adata in sdata.tables.items():
        counts = set(np.unique(adata.X.toarray()) - 1) if adata.n_obs == N_CELLS else set()
        part = set(np.unique(adata.obsm["part"])) | set(adata.obs["version"]) | {adata.uns["spatialsig"]["part"]}
        found[name], found[f"{name}.part"] = counts, part
    found["attrs"] = {sdata.attrs["spatialsig"]["version"]}
    torn = {name: values for name, values in found.items() if len(values) != 1}
    if torn:
        msg = f"not of one version: {torn}"
        raise AssertionError(msg)
    return {name: int(next(iter(values))) for name, values in found.items()}


EXPECTED = {"he", "cells", "dots", "squares", "table", "table.part", "attrs"}


def check(path: Path, action: str, *, old: int = 1, new: int = 2, retry: bool = True) -> str:
    """Raise unless every element is old or new and complete, doing it again works, and nothing is left over.

    Returns "old", "new" or "mixed".
    """
    found = versions(path)
    if not EXPECTED <= set(found) <= EXPECTED | {"new"} or not set(found.values()) <= {old, new}:
        msg = f"lost or unknown: {found}"
        raise AssertionError(msg)
    state = {old: "old", new: "new"}[found["table"]] if len(set(found.values())) == 1 else "mixed"
    faults = sp.io.verify(path)
    allowed = [*FINE, "leftover", "unfinished"]
    bad = faults[~faults["status"].isin(allowed) | (faults["status"].eq("unfinished") & faults["kind"].ne("root"))]
    if len(bad):
        msg = f"before the retry: {bad.to_dict('records')}"
        raise AssertionError(msg)
    if retry:
        ACTIONS[action](path, new)
        clear_leftovers(path)
        again = versions(path)
        faults = sp.io.verify(path)
        stays = {"add", "attrs", "optimize", "parts", "table"}  # these leave other elements as they were
        if not faults["status"].isin(FINE).all() or (action not in stays and {*again.values()} - {old} != {new}):
            msg = f"after the retry: {again} {faults[~faults['status'].isin(FINE)].to_dict('records')}"
            raise AssertionError(msg)
        sd.read_zarr(path)  # and by the unmodified reader
    return state


def forked(work: Callable[[], Any], *, kill_after: float | None = None, limit: float = 60.0) -> dict[str, Any]:
    """Run ``work`` in a child; return what it returned, how it ended and how long it took."""
    with tempfile.NamedTemporaryFile(suffix=".json") as answer:
        started = time.perf_counter()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                sp.settings.progress = False
                result = work()
                Path(answer.name).write_text(json.dumps({"result": result}), encoding="utf-8")
                code = 0
            except BaseException:  # noqa: BLE001 (told to the parent)
                Path(answer.name).write_text(json.dumps({"error": traceback.format_exc()[-1500:]}), encoding="utf-8")
            finally:
                os._exit(code)
        status = _wait(pid, started, limit if kill_after is None else kill_after)
        took = time.perf_counter() - started
        text = Path(answer.name).read_text(encoding="utf-8")
    ended = "killed" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
    return {"ended": ended, "seconds": took, **(json.loads(text) if text else {})}


def _wait(pid: int, started: float, limit: float) -> int:
    while time.perf_counter() - started < limit:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def base_store(directory: Path) -> Path:
    """Store of version 1, made in a child."""
    path = directory / "base" / "s.zarr"
    done = forked(lambda: create_store(path, whole(1)))
    if done["ended"] != "exit 0":
        raise RuntimeError(done)
    return path


def copy_of(base: Path, directory: Path) -> Path:
    directory.mkdir(parents=True)
    return Path(shutil.copytree(base, directory / base.name))


def kill_run(base: Path, directory: Path, n: int, seed: int, only: tuple[str, ...] = tuple(ACTIONS)) -> dict[str, Any]:
    """Kill ``n`` writers at random moments."""
    rng = random.Random(seed)
    took = {}
    for action in only:
        store = copy_of(base, directory / f"time-{action}")
        took[action] = forked(lambda a=action, s=store: ACTIONS[a](s, 2))["seconds"]
    stores = []
    for i in range(n):
        action = only[i % len(only)]
        store = copy_of(base, directory / f"kill-{i}")
        # the second half of a write is where it swaps; the first is where it makes ready
        delay = rng.uniform(0.3, 1.0) * took[action]
        ended = forked(lambda a=action, s=store: ACTIONS[a](s, 2), kill_after=delay)["ended"]
        stores.append((f"{action} after {delay:.3f} s", store, action, ended))
    return {"n": n, **_checked(stores)}


def _checked(stores: list[tuple[str, Path, str, str]], *, retry: bool = True) -> dict[str, Any]:
    answer = forked(lambda: _check_all(stores, retry=retry), limit=3600.0)
    return dict(answer.get("result") or {"states": {}, "failures": [answer]})


class Counter:
    """Calls of the operating system that a writer makes; something happens at the k-th, or at each."""

    def __init__(self, at: int | None, happen: Callable[[], None]) -> None:
        self.at, self.happen, self.count = at, happen, 0

    def tick(self) -> None:
        self.count += 1
        if self.at in (None, self.count):
            self.happen()

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            return function(*args, **kwargs)

        return counted


OPERATIONS = ("rename", "replace", "link", "unlink", "fsync", "mkdir", "rmdir")


@contextmanager
def counted_calls(counter: Counter) -> Iterator[Callable[[], Any]]:
    """Count the calls that change files; yields a context in which nothing is counted."""
    originals = {name: getattr(os, name) for name in OPERATIONS}
    plain_open, swap, flush = io.open, atomic._exchange_at_once, swap_module.flush_tree

    def opening(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wxa+"):
            counter.tick()
        return plain_open(file, mode, *args, **kwargs)

    def patch() -> None:
        for name, function in originals.items():
            setattr(os, name, counter.around(function))
        io.open = opening
        atomic._exchange_at_once = counter.around(swap)
        swap_module.flush_tree = counter.around(flush)

    def restore() -> None:
        for name, function in originals.items():
            setattr(os, name, function)
        io.open = plain_open
        atomic._exchange_at_once, swap_module.flush_tree = swap, flush

    @contextmanager
    def plain() -> Iterator[None]:
        restore()
        try:
            yield
        finally:
            patch()

    patch()
    try:
        yield plain
    finally:
        restore()


def crash_run(base: Path, directory: Path, action: str, *, in_steps: bool = False) -> dict[str, Any]:
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
    stores = [(f"call {k}", directory / f"k{k}" / store.name, action, "crash") for k in kept]
    return {"action": action, "in_steps": in_steps, "calls": total, "states_kept": len(kept), **_checked(stores)}


def fingerprint(store: Path) -> str:
    """Changes with every file of the store."""
    files = sorted(file for file in store.rglob("*") if file.is_file())
    return repr([(str(file), file.stat().st_ino, file.stat().st_size) for file in files])


def _check_all(stores: list[tuple[str, Path, str, str]], *, retry: bool) -> dict[str, Any]:
    states: dict[str, int] = {}
    failures = []
    for label, store, action, ended in stores:
        try:
            if not store.exists():  # a swap in steps was cut between its renames: the next writer gives it back
                clear_leftovers(store)
            state = check(store, action, retry=retry)
            states[f"{ended}, {state}"] = states.get(f"{ended}, {state}", 0) + 1
            shutil.rmtree(store.parent)
        except Exception:  # noqa: BLE001 (counted)
            failures.append({"at": label, "action": action, "ended": ended, "error": traceback.format_exc()[-600:]})
    return {"states": states, "failures": failures}


def full_disk_run(base: Path, directory: Path, action: str, error: int, *, step: int = 1) -> dict[str, Any]:
    """Let the k-th call that changes a file fail, for every k of the calls; the store must stay as it was."""

    def work() -> dict[str, Any]:
        failures: list[dict[str, Any]] = []
        store = copy_of(base, directory / "work")
        ACTIONS[action](copy_of(base, directory / "warm"), 2)
        k, tried = 1 - step, 0
        while k < 5000:
            k += step
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
                if counter.count < k:  # nothing is left to fail
                    return {"action": action, "error": os.strerror(error), "tried": tried, "failures": failures}
                store = _again(base, store)  # a failure that only cleaning up met: the commit is done
                continue
            if contents(store) != before:
                failures.append({"k": k, "error": "the store has changed"})
                store = _again(base, store)
        return {"action": action, "tried": tried, "failures": [*failures, {"k": k, "error": "never ends"}]}

    answer = forked(work, limit=600.0)
    return dict(answer.get("result") or {"action": action, "tried": 0, "failures": [answer]})


def _again(base: Path, store: Path) -> Path:
    shutil.rmtree(store.parent)
    return copy_of(base, store.parent)


def contents(store: Path) -> dict[str, bytes]:
    """Bytes of every file, but for the record of the root: it may list a content that did not come."""
    files = [file for file in store.rglob("*") if file.is_file() and file.parent != store]
    return {str(file): file.read_bytes() for file in [*files, store / "zarr.json"]}


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
        for i in range(commits):
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
