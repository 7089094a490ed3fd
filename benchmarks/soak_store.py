"""Kill writers of a store, end them at every call, fill their disk, read while they write, and repair for others.

    python benchmarks/soak_store.py --n 1000 [--parts kill crash ...]

Parts are recorded as they end, beside those of earlier runs.

Goal: nothing lost, nothing unreadable, nothing silently wrong, and doing it again always works.
"""

from __future__ import annotations

import argparse
import errno
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import store_breaks as breaks
import store_disk as disk
import store_faults as faults

HERE = Path(__file__).resolve().parent
ACTIONS = ("attrs", "parts", "table", "add", "replace", "optimize", "create", "overwrite")
PARTS = ("kill", "crash", "full", "limit", "space", "readers", "second", "plain", "flips")
LIMITS = [0, 60, 150, 400, 700, 1000, 1500, 2500, 4000, 8000, 30_000, 80_000]  # bytes in one file
PAGES = [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 30, 40, 60, 90, 130]  # of 4 KiB that are free


def soak(directory: Path, args: argparse.Namespace, found: dict[str, Any]) -> None:
    """Everything asked for, one after another, into ``found`` and the file of results."""
    base = faults.base_store(directory)
    actions = tuple(args.actions)
    every = slice(None, None, args.coarse)

    def crash() -> list[Any]:
        runs = [(action, False) for action in actions] + [("table", True)] * ("table" in actions)
        return [
            breaks.crash_run(base, directory / f"crash-{a}-{steps}", a, in_steps=steps, retry_every=args.coarse)
            for a, steps in runs
        ]

    def full() -> list[Any]:
        return [
            breaks.full_disk_run(base, directory / f"full-{a}-{code}", a, code, sample=args.sample, seed=args.seed)
            for a in actions
            for code in (errno.ENOSPC, errno.EIO)
        ]

    work = {
        "kill": lambda: breaks.kill_run(base, directory / "kill", args.n, args.seed, actions),
        "crash": crash,
        "full": full,
        "limit": lambda: [disk.limit_run(base, directory / f"limit-{a}", a, LIMITS[every]) for a in actions],
        "space": lambda: [disk.space_run(base, directory / f"space-{a}", a, PAGES[every]) for a in actions],
        "readers": lambda: breaks.reader_run(base, directory / "readers", args.commits),
        "second": lambda: disk.second_writer_run(base, directory / "second"),
        "plain": lambda: disk.plain_run(directory / "plain", args.plain, args.seed),
        "flips": lambda: breaks.flip_run(base, directory, args.flips, args.seed),
    }
    for part in args.parts:
        started = time.perf_counter()
        found[part] = work[part]()
        found["seconds_of"][part] = round(time.perf_counter() - started, 1)
        found |= {"faults": len(faulty(found)), "goal_faults": 0}
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def faulty(found: dict[str, Any]) -> list[Any]:
    """Everything that should not be."""
    runs = [found.get(part, {}) for part in ("kill", "plain")]
    runs += [run for part in ("crash", "full", "limit", "space") for run in found.get(part, [])]
    faults = [fault for run in runs for fault in run.get("failures", [])]
    second = found.get("second", {"names_missing": [], "readers_wait": False, "after_the_kill": "written"})
    faults += second["names_missing"] + [second] * (second["readers_wait"] or second["after_the_kill"] != "written")
    flips = found.get("flips", {"missed": [], "misnamed": []})
    return faults + found.get("readers", {}).get("torn", []) + flips["missed"] + flips["misnamed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000, help="writers to kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--actions", nargs="+", choices=ACTIONS, default=ACTIONS, help="what is broken")
    parser.add_argument("--commits", type=int, default=200, help="commits that are read meanwhile")
    parser.add_argument("--sample", type=int, help="calls to fail, besides every rename; by default all of them")
    parser.add_argument("--coarse", type=int, default=1, help="every how many-th limit, and retry after a crash")
    parser.add_argument("--plain", type=int, default=200, help="writers of spatialdata to kill, and stores to repair")
    parser.add_argument("--flips", type=int, default=1000, help="bits to flip")
    parser.add_argument("--quick", action="store_true", help="30 kills, few actions")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "soak_store.json")
    args = parser.parse_args()
    if args.quick:
        args.n, args.commits, args.sample, args.coarse, args.plain, args.flips = 30, 10, 8, 6, 8, 100
        args.actions = ["attrs", "parts", "add"]
    warnings.simplefilter("ignore")
    args.json.parent.mkdir(parents=True, exist_ok=True)
    found = {"seconds_of": {}} | (json.loads(args.json.read_text()) if args.json.exists() else {})
    with tempfile.TemporaryDirectory() as directory:
        soak(Path(directory), args, found)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()
