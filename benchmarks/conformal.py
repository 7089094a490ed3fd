"""Do 95 % intervals hold 95 % on held-out slides? Synthetic slides: train, calibrate on other slides, judge on a third set.

python benchmarks/conformal.py [--quick] [--json PATH]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from machine import machine, record_options

import spatialsig as sp

GOAL = (0.93, 0.97)
COVERAGE = 0.95


def make_cohort(directory: Path, folds: list[int], size_um: float) -> sp.Cohort:
    """Slides of the given folds, labelled."""
    stores = {}
    for number, fold in enumerate(folds):
        name = f"S{number}"
        slide = sp.datasets.toy(seed=number, size_um=size_um, sample=name, patient=f"P{number}")
        slide.attrs["spatialsig"]["split"] = {"by": "patient", "n_folds": 3, "seed": 0, "fold": fold}
        stores[name] = directory / f"{name}.zarr"
        sp.io.write(slide, stores[name])
    cohort = sp.Cohort(stores)
    sp.pp.make_patches(cohort, patch_px=56, um_per_px=1.0, stride_um=28.0)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, "seed", test_fold=0)
    sp.tl.aggregate_patches(cohort, min_cells=5, use_rep=None)
    return cohort


def held(cohort: sp.Cohort, samples: list[str]) -> dict[str, float]:
    """Share of labelled patches of each slide whose label lies in its interval, over all signatures."""
    shares = {}
    for name in samples:
        slide = cohort[name]
        truth, table = slide["signatures"].X, slide["signatures_pred"]
        inside = (truth >= table.layers["lower"]) & (truth <= table.layers["upper"])
        shares[name] = float(inside[np.isfinite(truth)].mean())
    return shares


def main() -> None:
    """Print and record."""
    parser = record_options(__doc__, "conformal", quick="5 small slides instead of 18")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    train, calibration, test = (1, 2, 2) if args.quick else (6, 6, 6)
    folds = [2] * train + [1] * calibration + [0] * test
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        cohort = make_cohort(Path(scratch), folds, 250.0 if args.quick else 1000.0)
        model = sp.tl.train_vit(
            cohort, test_fold=0, validation_fold=1, use_rep=None, max_epochs=1 if args.quick else 12, batch_size=16
        )
        tested = [f"S{k}" for k, fold in enumerate(folds) if fold == 0]
        widths = sp.tl.calibrate(cohort, model, coverage=COVERAGE)
        sp.tl.predict(cohort.subset(tested), model)
        shares = held(cohort, tested)
    mean = float(np.mean(list(shares.values())))
    result = {
        "quick": args.quick,
        "machine": machine(),
        "slides": {"train": train, "calibration": calibration, "test": test},
        "promised": COVERAGE,
        "held": round(mean, 4),
        "goal": GOAL,
        "reached": GOAL[0] <= mean <= GOAL[1],
        "by_slide": {name: round(share, 4) for name, share in shares.items()},
        "half_width": dict(zip(widths["signature"], widths["half_width"].round(4), strict=True)),
        "lowest": round(float(widths["lowest"].min()), 4),
        "highest": round(float(widths["highest"].max()), 4),
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(result, indent=2))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
