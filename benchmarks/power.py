"""Does a learning curve over 2 to 6 slides say what 12 slides will reach?

In each cohort six slides of six patients are learned from in nested subsets, and judged on three held-out ones; `sp.tl.power`
predicts r of 12 slides. Then six further slides are added, and all twelve are learned from. Goal: the mean r over signatures
lies in its 95 % interval in 9 of 10 cohorts. The intervals of single signatures are counted beside it.

    python benchmarks/power.py [--quick] [--json PATH]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from machine import keep_record, record_options

import spatialsig as sp

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
N_COHORTS, N_KNOWN, N_ALL, N_TEST, SIZE_UM = 10, 6, 12, 3, 450.0
PATCHES = {"patch_px": 56, "um_per_px": 1.0, "stride_um": 28.0}


def make_cohort(folder: Path, number: int, n_train: int, n_test: int) -> sp.Cohort:
    """Slides of one patient each; the last ``n_test`` are held out."""
    stores = {}
    for k in range(n_train + n_test):
        name = f"S{k:02}"
        slide = sp.datasets.toy(seed=20_000 + 100 * number + k, size_um=SIZE_UM, sample=name, patient=f"P{k:02}")
        fold = 0 if k >= n_train else 1
        slide.attrs["spatialsig"]["split"] = {"by": "patient", "n_folds": 2, "seed": 0, "fold": fold}
        stores[name] = folder / f"{name}.zarr"
        sp.io.write(slide, stores[name])
    cohort = sp.Cohort(stores)
    sp.pp.make_patches(cohort, **PATCHES)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, "seed", test_fold=0)
    sp.tl.aggregate_patches(cohort, min_cells=5, use_rep=None)
    return cohort


def main() -> None:
    """Print and record."""
    args = record_options(__doc__, "power", quick="1 cohort of 4 and 6 slides instead of 10 of 6 and 12").parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    started = time.perf_counter()
    known, whole, n_cohorts = (4, 6, 1) if args.quick else (N_KNOWN, N_ALL, N_COHORTS)
    cohorts, of_signatures = [], []
    for number in range(n_cohorts):
        with tempfile.TemporaryDirectory(dir=MEMORY) as scratch:
            cohort = make_cohort(Path(scratch), number, whole, N_TEST)
            names = list(cohort)
            some = cohort.subset([*names[:known], *names[whole:]])
            curve = sp.tl.power(some, patients=range(2, known + 1))
            told = curve.predict(whole).set_index("signature")
            reached = sp.tl.power(cohort, patients=[1, 2, whole], repeats=1).points
        r = reached[reached["n_patients"] == whole].set_index("signature")["pearson"]
        inside = (told["low"] <= r) & (r <= told["high"])
        at_most = curve.points[curve.points["n_patients"] == known].set_index("signature")["pearson"]
        row = {name: float(told.loc["mean", name]) for name in ("pearson", "low", "high")}
        row |= {
            "cohort": number,
            "r_of_known": float(at_most["mean"]),
            "r_of_all": float(r["mean"]),
            "inside": bool(inside["mean"]),
        }
        print(row, flush=True)
        cohorts.append(row)
        of_signatures += inside.drop("mean").tolist()
        example = curve.sentences
    held = sum(row["inside"] for row in cohorts)
    record = {
        "quick": args.quick,
        "held": held,
        "of": n_cohorts,
        "goal": 9,
        "reached": held >= 0.9 * n_cohorts,
        "share_of_signatures_held": float(np.mean(of_signatures)),
        "median_width": float(np.median([row["high"] - row["low"] for row in cohorts])),
        "sentences": example,
        "cohorts": cohorts,
        "seconds": round(time.perf_counter() - started, 1),
    }
    keep_record(
        args.json, record, shown=("held", "of", "reached", "share_of_signatures_held", "median_width", "seconds")
    )


if __name__ == "__main__":
    main()
