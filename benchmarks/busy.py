"""Training of the image model alone, and beside a process that keeps one core busy: seconds with threads that spin and that sleep.

    python benchmarks/busy.py [--quick]

Each run is a process of its own; the ways take turns. "Spinning" is what OpenMP may do by itself, "waiting" what this package asks of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
from machine import keep_record, machine, record_options

WAYS = {"spinning": {"OMP_WAIT_POLICY": "ACTIVE"}, "waiting": {}}
GOAL = 2.5  # times as long as alone


def child(epochs: int) -> None:
    """Train once to load everything, then print the seconds of a run."""
    import spatialsig as sp

    sp.settings.progress = False
    study = sp.datasets.toy_study()
    sp.tl.train_vit(study, use_rep=None, size="tiny", max_epochs=1)
    started = time.perf_counter()
    sp.tl.train_vit(study, use_rep=None, size="small", max_epochs=epochs)
    print(time.perf_counter() - started)


def seconds(way: str, epochs: int, *, busy: bool) -> float:
    """Of one run; with ``busy``, another process computes on the first core meanwhile."""
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names} | WAYS[way]
    other = (
        subprocess.Popen([sys.executable, "-c", "import os\nos.sched_setaffinity(0, {0})\nwhile True: pass"])
        if busy
        else None
    )
    try:
        command = [sys.executable, __file__, "--child", str(epochs)]
        said = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    finally:
        if other is not None:
            other.kill()
            other.wait()
    return float(said.splitlines()[-1])


def main() -> None:
    """Measure, print and record."""
    if sys.argv[1:2] == ["--child"]:
        child(int(sys.argv[2]))
        return
    args = record_options(__doc__, "busy", quick="one run of one epoch").parse_args()
    epochs, repeats = (1, 1) if args.quick else (8, 3)
    found: dict[str, list[float]] = {}
    for _ in range(repeats):
        for way in WAYS:
            for busy in (False, True):
                found.setdefault(f"{way}{' beside another' if busy else ''}", []).append(
                    seconds(way, epochs, busy=busy)
                )
    medians = {name: float(np.median(values)) for name, values in found.items()}
    ratios = {way: medians[f"{way} beside another"] / medians[way] for way in WAYS}
    record: dict[str, object] = {
        "machine": machine(), "seconds": found, "median_s": medians, "beside_another_times": ratios,
        "waiting_alone_times_spinning": medians["waiting"] / medians["spinning"], "goal_times": GOAL,
    }  # fmt: skip
    keep_record(args.json, record, shown=["median_s", "beside_another_times", "waiting_alone_times_spinning"])


if __name__ == "__main__":
    main()
