"""Cohorts on a dask cluster of this machine against one slide after another: time, equal bits, killed workers, bad slides.

    python benchmarks/cluster.py [--quick] [--parts speed kills ...]

The cluster has two workers of one thread; the serial way may use all cores, as a user's would. Every part works on copies of the
same stores.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from distributed import Client, LocalCluster
from machine import keep_record, machine, record_options

import spatialsig as sp

GOALS = {"speedup_of_import_score_predict": 1.6, "kills_survived": "all", "overhead_ms": 100.0}
PARTS = ("speed", "poisoned", "overhead", "kills")
Work = Callable[[sp.Cohort], object]


@contextmanager
def two_workers() -> Iterator[LocalCluster]:
    """A cluster whose client is active."""
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)  # type: ignore[no-untyped-call]
    try:
        with Client(cluster):  # type: ignore[no-untyped-call]
            yield cluster
    finally:
        with suppress(TimeoutError):  # of a nanny whose worker was killed while it closes
            cluster.close(timeout=30)  # type: ignore[no-untyped-call]


def copy(stores: Path, place: Path) -> sp.Cohort:
    """The stores of a cohort, again."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(stores, place)
    return sp.Cohort(place)


def results(cohort: sp.Cohort) -> list[np.ndarray]:
    """Counts, scores, labels and predictions of all slides."""
    found = []
    for sample in cohort:
        slide = cohort[sample]
        cells = slide["table"]
        found += [
            cells.X.data,
            cells.X.indices,
            *(np.asarray(cells.obsm[key]) for key in ("signatures",) if key in cells.obsm),
        ]
        found += [np.asarray(slide[key].X) for key in ("signatures", "signatures_pred") if key in slide.tables]
    return found


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Whether two lists hold the same bits."""
    return len(first) == len(second) and all(
        np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)
    )


def seconds(work: Work, cohort: sp.Cohort) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    work(cohort)
    return time.perf_counter() - started


def speed(stores: Path, bundles: Path, calls: dict[str, Work], scratch: Path) -> dict[str, object]:
    """Serial and on two workers: seconds of each call, their ratio, and whether the stores hold the same bits."""
    alone, together = copy(stores, scratch / "alone"), copy(stores, scratch / "together")
    warm = copy(stores, scratch / "warm")
    for work in calls.values():
        work(warm.subset(list(warm)[:1]))  # compiles
    out: dict[str, object] = {}
    times = {"import": seconds(lambda _: sp.Cohort.from_bundles(bundles, scratch / "read"), alone)}
    times |= {name: seconds(work, alone) for name, work in calls.items()}
    with two_workers() as cluster:
        sp.Cohort.from_bundles(bundles, scratch / "warm-read")  # workers import and compile
        for work in calls.values():
            work(warm)
        ours = {"import": seconds(lambda _: sp.Cohort.from_bundles(bundles, scratch / "read-2"), together)}
        ours |= {name: seconds(work, together) for name, work in calls.items()}
        del cluster
    same = equal(results(alone), results(together))
    same &= equal(results(sp.Cohort(scratch / "read")), results(sp.Cohort(scratch / "read-2")))
    for name, serial in times.items():
        out[name] = {
            "serial_s": round(serial, 2),
            "two_workers_s": round(ours[name], 2),
            "times": round(serial / ours[name], 2),
        }
    return out | {"equal_bits": same}


def kills(stores: Path, calls: dict[str, Work], scratch: Path, n: int) -> dict[str, int]:
    """Kill a worker at ``n`` random moments; how often the calls ended, and with the same bits."""
    wanted = copy(stores, scratch / "wanted")
    for work in calls.values():
        work(wanted)
    truth, ended, same, rng = results(wanted), 0, 0, random.Random(0)
    for _ in range(n):
        cohort = copy(stores, scratch / "killed")
        with two_workers() as cluster:
            warm = copy(stores, scratch / "warm")
            span = sum(seconds(work, warm) for work in calls.values())
            pids = [worker.pid for worker in cluster.workers.values()]
            timer = threading.Timer(rng.uniform(0, span), os.kill, (rng.choice(pids), signal.SIGKILL))
            timer.start()
            for work in calls.values():
                work(cohort)
            timer.cancel()
        ended += 1
        same += equal(results(cohort), truth)
    return {"kills": n, "ended": ended, "equal_bits": same}


def poisoned(stores: Path, calls: dict[str, Work], scratch: Path) -> dict[str, object]:
    """One slide of the cohort is damaged: what is said, and how many others are done."""
    cohort = copy(stores, scratch / "poisoned")
    bad = list(cohort)[len(cohort) // 2]
    (cohort.stores[bad] / "zarr.json").write_text("no store")
    said = ""
    with two_workers():
        try:
            calls["predict"](cohort)
        except sp.errors.SpatialsigError as error:
            said = str(error).splitlines()[0]
    done = sum("signatures_pred" in sp.io.read(path).tables for name, path in cohort.stores.items() if name != bad)
    return {"slides": len(cohort), "done": done, "said": said}


def overhead(n: int, calls: dict[str, Work], scratch: Path) -> dict[str, dict[str, float]]:
    """Milliseconds per slide of a cohort of ``n`` tiny slides beyond those of the same slide in memory."""
    stores = scratch / "tiny"
    stores.mkdir()
    for k in range(n):  # other tissue each: copies under other names would be refused
        sp.io.write(study(f"T{k}", size_um=150.0, seed=k), stores / f"T{k}.zarr")
    found = {}
    for name, work in calls.items():
        memory = sp.io.read(stores / "T0.zarr")
        work(memory)
        alone = min(seconds(work, memory) for _ in range(3))
        each = seconds(work, sp.Cohort(stores)) / n
        found[name] = {
            "in_memory_ms": round(1e3 * alone, 1),
            "cohort_ms": round(1e3 * each, 1),
            "overhead_ms": round(1e3 * (each - alone), 1),
        }
    return found


def study(name: str, *, size_um: float, seed: int = 0) -> object:
    """A slide that is labelled, of its own name."""
    slide = sp.datasets.toy(seed=seed, size_um=size_um, sample=name, patient=name)
    sp.pp.split(slide, by="block", block_um=size_um / 2, buffer_um=0, n_folds=2)
    return slide


def calls_of(model: object) -> dict[str, Work]:
    """Functions in their order."""
    return {
        "make_patches": lambda c: sp.pp.make_patches(c, patch_px=56, um_per_px=2.0),
        "assign_cells": lambda c: sp.pp.assign_cells(c),
        "score": lambda c: sp.tl.score_cells(c, "seed"),
        "aggregate": lambda c: sp.tl.aggregate_patches(c, min_cells=1, use_rep=None),
        "predict": lambda c: sp.tl.predict(c, model),  # type: ignore[arg-type]
    }


def main() -> None:
    parser = record_options(__doc__, "cluster", quick="3 small slides, 1 kill")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="measure these anew, keep the others of the record"
    )
    options = parser.parse_args()
    sp.settings.progress = False
    warnings.simplefilter("ignore")
    size, n_slides, n_kills, n_tiny = (250.0, 3, 1, 5) if options.quick else (900.0, 12, 20, 200)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        stores = scratch / "stores"
        stores.mkdir()
        for k in range(n_slides):
            sp.io.write(study(f"S{k:02}", size_um=size, seed=k), stores / f"S{k:02}.zarr")
        bundles = scratch / "bundles"
        sp.datasets.synthetic_xenium(bundles, n_slides=min(6, n_slides), size_um=size)
        trained = copy(stores, scratch / "training").subset(["S00"])
        first = calls_of(None)
        for name in ("make_patches", "assign_cells", "score", "aggregate"):
            first[name](trained)
        calls = calls_of(sp.tl.train_vit(trained, use_rep=None, size="small", max_epochs=1, test_fold=None))
        parts: dict[str, Callable[[], object]] = {
            "speed": lambda: speed(stores, bundles / "bundles.csv", calls, scratch),
            "poisoned": lambda: poisoned_after(stores, calls, scratch),
            "overhead": lambda: overhead(n_tiny, calls, scratch),
            "kills": lambda: kills(stores, calls, scratch, n_kills),
        }
        kept = json.loads(options.json.read_text()) if options.json.is_file() else {}
        record = {name: kept.get(name) for name in parts} | {
            "machine": machine(), "goals": GOALS, "slides": n_slides, "size_um": size,
        }  # fmt: skip
        for name in options.parts:
            record[name] = parts[name]()
            keep_record(options.json, record, shown=[name])


def poisoned_after(stores: Path, calls: dict[str, Work], scratch: Path) -> dict[str, object]:
    """As :func:`poisoned`, on slides that have patches."""
    cut = copy(stores, scratch / "cut")
    calls["make_patches"](cut)
    return poisoned(scratch / "cut", calls, scratch)


if __name__ == "__main__":
    main()
