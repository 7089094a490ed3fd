"""What each step of a run costs, and how well a run is foretold: runs of many sizes, then three that the costs have not seen.

    python benchmarks/capacity.py [--quick] [--write] [--plans 0 1 2]

Every run is a process of its own, on synthetic slides. Costs of a unit of work are fitted to the runs (none below 0, each run by its
ratio). With ``--write`` they become ``src/spatialsig/pipeline/costs.json``, which ``spatialsig plan`` reads; then three other
cohorts are planned, pilot and all, and run. Goal: the time of each within a factor 1.5 of what was planned.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from machine import keep_record, machine, record_options
from scipy.optimize import nnls

GOALS = {"factor": 1.5}
COSTS = Path(__file__).resolve().parents[1] / "src" / "spatialsig" / "pipeline" / "costs.json"
# slides, edge in µm, counts of a cell, px of the H&E, stride of patches, genes, epochs of the autoencoder and of the image model
DESIGNS: tuple[dict[str, float], ...] = (
    {"slides": 3, "size": 500, "counts": 150, "px": 0.27, "stride": 112, "genes": 300, "autoencoder": 2, "vit": 2},
    {"slides": 3, "size": 500, "counts": 600, "px": 0.5, "stride": 56, "genes": 100, "autoencoder": 6, "vit": 1},
    {"slides": 3, "size": 900, "counts": 60, "px": 0.27, "stride": 56, "genes": 300, "autoencoder": 1, "vit": 3},
    {"slides": 6, "size": 500, "counts": 150, "px": 0.5, "stride": 112, "genes": 200, "autoencoder": 3, "vit": 6},
    {"slides": 3, "size": 1400, "counts": 150, "px": 0.27, "stride": 112, "genes": 300, "autoencoder": 4, "vit": 4},
    {"slides": 3, "size": 1400, "counts": 400, "px": 0.5, "stride": 90, "genes": 300, "autoencoder": 2, "vit": 1},
    {"slides": 4, "size": 2400, "counts": 100, "px": 0.35, "stride": 160, "genes": 200, "autoencoder": 2, "vit": 3},
)
OTHERS: tuple[dict[str, float], ...] = (
    {"slides": 5, "size": 700, "counts": 250, "px": 0.4, "stride": 80, "genes": 250, "autoencoder": 4, "vit": 3},
    {"slides": 4, "size": 1700, "counts": 150, "px": 0.27, "stride": 112, "genes": 300, "autoencoder": 6, "vit": 5},
    {"slides": 8, "size": 1000, "counts": 80, "px": 0.5, "stride": 70, "genes": 150, "autoencoder": 3, "vit": 2},
)
QUICK: tuple[dict[str, float], ...] = (
    {"slides": 3, "size": 350, "counts": 100, "px": 0.5, "stride": 56, "genes": 100, "autoencoder": 1, "vit": 1},
    {"slides": 3, "size": 450, "counts": 100, "px": 0.5, "stride": 56, "genes": 100, "autoencoder": 2, "vit": 2},
)


def configuration(design: dict[str, float], folder: Path) -> Any:
    """Make the slides of a design, and say what is run on them."""
    import spatialsig as sp
    from spatialsig.pipeline import RunConfig

    n = int(design["slides"])
    sp.datasets.synthetic_xenium(
        folder / "bundles", n_slides=n, size_um=design["size"], counts_per_cell=design["counts"],
        he_um_per_px=design["px"], transcripts=False,
    )  # fmt: skip
    return RunConfig(
        bundles=folder / "bundles" / "bundles.csv", out=folder / "out",
        split={"n_folds": 3}, genes={"n_top_genes": int(design["genes"])},
        patches={"patch_px": 112, "um_per_px": 1.0, "stride_um": design["stride"]},
        labels={"signatures": "seed"},
        autoencoder={"max_epochs": int(design["autoencoder"])}, vit={"max_epochs": int(design["vit"])},
    )  # fmt: skip


def child(folder: Path, design: dict[str, float]) -> None:
    """Run a design: work, seconds of each step, peak of memory, bytes of the stores."""
    import spatialsig as sp
    from spatialsig.pipeline import finished_steps, run
    from spatialsig.pipeline.sizes import slide_sizes
    from spatialsig.pipeline.workload import Workload

    warnings.simplefilter("ignore")
    sp.settings.progress = False
    config = configuration(design, folder)
    started = time.perf_counter()
    run(config)
    took = time.perf_counter() - started
    slides, _ = slide_sizes(config.bundles)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    stored = sum(file.stat().st_size for file in (config.out / "stores").rglob("*") if file.is_file())
    held = {
        "megapixels": sum(slide.megapixels for slide in slides),
        "values": sum(slide.n_values for slide in slides) / 1e6,
        "cells": sum(slide.n_cells for slide in slides) / 1e3,
        "largest_values": max(slide.n_values for slide in slides) / 1e6,
        "largest_cells": max(slide.n_cells for slide in slides) / 1e3,
    }
    found = {
        "units": Workload(config, slides).steps(), "seconds": finished_steps(config.out), "whole_s": took,
        "peak_gib": int(peak.split()[1]) / 2**20, "disk_gib": stored / 2**30, "held": held,
    }  # fmt: skip
    print("RESULT" + json.dumps(found))


def measured(design: dict[str, float]) -> dict[str, Any]:
    """One design, in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, "--child", folder, json.dumps(design)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.rpartition("RESULT")[2])
    print({**design, "s": round(found["whole_s"]), "peak GiB": round(found["peak_gib"], 2)}, flush=True)
    return found


def positive_fit(rows: list[dict[str, float]], found: list[float]) -> dict[str, float]:
    """Cost of each unit, none below 0, with which what was found is told best, by its ratio."""
    work = np.array([list(row.values()) for row in rows])
    scale = np.maximum(work.max(axis=0), 1e-12)
    weights, _ = nnls(work / scale / np.asarray(found)[:, None], np.ones(len(found)))
    return dict(zip(rows[0], map(float, weights / scale), strict=True))


def fitted_costs(runs: list[tuple[dict[str, dict[str, float]], dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Cost of a unit of each step, from the work and the seconds of runs."""
    found = {}
    for step in dict.fromkeys(step for units, _ in runs for step in units):
        told = [(units[step], took[step]) for units, took in runs if took.get(step, 0) > 0 and step in units]
        fit = positive_fit([units for units, _ in told], [took for _, took in told]) if told else {}
        found[step] = {unit: cost for unit, cost in fit.items() if cost > 0}
    return found


def costs_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Cost of a unit of time, memory and disk."""
    held = [run["held"] for run in runs]
    return {
        "machine": machine(),
        "seconds": fitted_costs([(run["units"], run["seconds"]) for run in runs]),
        "memory_gib": positive_fit(
            [{"process": 1.0, "values": each["largest_values"], "cells": each["largest_cells"]} for each in held],
            [run["peak_gib"] for run in runs],
        ),
        "disk_gib": positive_fit(
            [{name: each[name] for name in ("megapixels", "values", "cells")} for each in held],
            [run["disk_gib"] for run in runs],
        ),
    }  # fmt: skip


def foretold(design: dict[str, float]) -> dict[str, Any]:
    """Plan a cohort, pilot and all, then run it."""
    import spatialsig as sp
    from spatialsig.pipeline import estimate

    sp.settings.progress = False
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        started = time.perf_counter()
        planned = estimate(configuration(design, Path(folder)))
        pilot = time.perf_counter() - started
    run = measured(design)
    took = sum(run["seconds"].values())
    steps = {step: [float(planned.steps["seconds"][step]), each] for step, each in run["seconds"].items()}
    found = {
        "design": design, "planned_s": planned.seconds, "took_s": took, "factor": max(took, planned.seconds) / min(took, planned.seconds),
        "planning_s": pilot, "steps_planned_and_taken_s": steps,
        "memory_gib": [planned.memory_gib, run["peak_gib"]], "disk_gib": [planned.disk_gib, run["disk_gib"]],
    }  # fmt: skip
    print({name: found[name] for name in ("planned_s", "took_s", "factor", "memory_gib", "disk_gib")}, flush=True)
    return found


def again(file: Path, plans: list[int]) -> None:
    """Plan and run some of the cohorts again, beside what was recorded."""
    record = json.loads(file.read_text())
    for number in plans:
        record["planned"][number] = foretold(OTHERS[number])
    record["worst_factor"] = max(each["factor"] for each in record["planned"])
    keep_record(file, record, shown=["worst_factor"])


def main() -> None:
    """Measure, print and record."""
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), json.loads(sys.argv[3]))
        return
    parser = record_options(__doc__, "capacity", quick="two small runs, one plan")
    parser.add_argument("--write", action="store_true", help="Keep the costs for `spatialsig plan`.")
    parser.add_argument(
        "--plans", type=int, nargs="*", help="Plan and run only these of the three again, with the costs as they are."
    )
    args = parser.parse_args()
    if args.plans:
        again(args.json, args.plans)
        return
    runs = [measured(design) for design in (QUICK if args.quick else DESIGNS)]
    costs = costs_of(runs)
    if args.write:
        COSTS.write_text(json.dumps(costs, indent=1) + "\n")
    others = [foretold(design) for design in (QUICK[:1] if args.quick else OTHERS)]
    record: dict[str, object] = {
        "machine": machine(), "goals": GOALS, "costs": costs, "runs": runs, "planned": others,
        "worst_factor": max(each["factor"] for each in others),
    }  # fmt: skip
    keep_record(args.json, record, shown=["worst_factor"])


if __name__ == "__main__":
    main()
