"""Kill writers of a store, end them at every call, fill their disk, and read while they write.

    python benchmarks/soak_store.py --n 1000

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

import store_faults as faults

HERE = Path(__file__).resolve().parent
CRASHED = ("attrs", "parts", "table", "add", "replace", "optimize", "overwrite")
PARTS = ("kill", "crash", "full", "readers")


def soak(
    directory: Path, *, n: int, seed: int, parts: tuple[str, ...], crashed: tuple[str, ...], commits: int, step: int = 1
) -> dict[str, Any]:
    """Everything asked for, one after another."""
    base = faults.base_store(directory)
    found: dict[str, Any] = {}
    if "kill" in parts:
        found["kill"] = faults.kill_run(base, directory / "kill", n, seed)
    if "crash" in parts:
        runs = [(action, False) for action in crashed] + [("table", True)] * ("table" in crashed)
        found["crash"] = [
            faults.crash_run(base, directory / f"crash-{action}-{steps}", action, in_steps=steps)
            for action, steps in runs
        ]
    if "full" in parts:
        found["full"] = [
            faults.full_disk_run(base, directory / f"full-{action}-{code}", action, code, step=step)
            for action in crashed
            for code in (errno.ENOSPC, errno.EIO)
        ]
    if "readers" in parts:
        found["readers"] = faults.reader_run(base, directory / "readers", commits)
    return found


def faulty(found: dict[str, Any]) -> list[Any]:
    """Everything that should not be."""
    runs = [found.get("kill", {}), *found.get("crash", []), *found.get("full", [])]
    return [fault for run in runs for fault in run.get("failures", [])] + found.get("readers", {}).get("torn", [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000, help="writers to kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--actions", nargs="+", choices=CRASHED, default=CRASHED, help="what is cut at every call")
    parser.add_argument("--commits", type=int, default=200, help="commits that are read meanwhile")
    parser.add_argument("--step", type=int, default=1, help="every how many-th call fails for want of space")
    parser.add_argument("--quick", action="store_true", help="30 kills, few actions")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "soak_store.json")
    args = parser.parse_args()
    if args.quick:
        args.n, args.actions, args.commits, args.step = 30, ["attrs", "parts"], 20, 11
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        found = soak(
            Path(directory),
            n=args.n,
            seed=args.seed,
            parts=tuple(args.parts),
            crashed=tuple(args.actions),
            commits=args.commits,
            step=args.step,
        )
    found |= {"faults": len(faulty(found)), "goal_faults": 0, "seconds": round(time.perf_counter() - started, 1)}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()
