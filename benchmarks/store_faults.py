"""Stores of known versions, what is done to them, and what must hold afterwards.

Everything that touches Zarr runs in a forked child: the parent imports, forks before Zarr starts its threads, and
kills. Every element of the store is made from one number, its version, so that half of one is seen.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import tempfile
import time
import traceback
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
import spatialsig.io._store
from spatialsig.store.commit import commit_elements, create_store, write_attrs
from spatialsig.store.layout import halve
from spatialsig.store.parts import commit_table_parts
from spatialsig.store.snapshot import read_store
from spatialsig.store.swap import clear_leftovers

if TYPE_CHECKING:
    from collections.abc import Callable

N_CELLS = 50
logging.getLogger("ome_zarr").setLevel(logging.ERROR)
FINE = ("ok", "not checksummed")
halve(np.zeros((3, 2, 2), np.uint8))  # compiled before the first fork, not in every child


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


def fresh(path: Path) -> Path:
    """Store that is made beside another one."""
    return path.with_name("fresh.zarr")


def _create(path: Path, version: int) -> None:
    create_store(fresh(path), whole(version), overwrite=fresh(path).exists())


def _optimize(path: Path) -> None:
    sp.io.optimize(path, layout="speed", chunk_px=64)


# name -> what is done to a store of version 1; each is repeatable
ACTIONS: dict[str, Callable[[Path, int], None]] = {
    "replace": lambda path, version: commit_elements(path, elements(version)),
    "table": lambda path, version: commit_elements(path, {"table": table(version), "squares": squares(version)}),
    "add": lambda path, version: commit_elements(path, {"new": squares(version)}),
    "parts": _parts,
    "attrs": lambda path, version: write_attrs(path, {"spatialsig": {"version": version}}),
    "optimize": lambda path, _: _optimize(path),
    "create": _create,
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
    if action == "create":
        return _check_created(path, new, retry=retry)
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
    return state


def _check_created(path: Path, new: int, *, retry: bool) -> str:
    """The store beside is as it was; the new one is not there, or it is whole."""
    created = fresh(path).exists()
    for _ in range(2):
        clear_leftovers(fresh(path))
        faults = [sp.io.verify(store) for store in (path, fresh(path)) if store.exists()]
        allowed = [*FINE, "leftover"]  # the lock of a writer that is dead
        bad = [fault for frame in faults for fault in frame[~frame["status"].isin(allowed)].to_dict("records")]
        if bad or set(versions(path).values()) != {1}:
            msg = f"the store beside has changed, or the new one is not whole: {bad}"
            raise AssertionError(msg)
        if fresh(path).exists() and set(versions(fresh(path)).values()) != {new}:
            msg = f"not wholly made: {versions(fresh(path))}"
            raise AssertionError(msg)
        if not retry:
            break
        _create(path, new)
        sd.read_zarr(fresh(path))
    return "new" if created else "old"


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
