"""The orders that must come out on the synthetic tissue, without a network: what leaks, what blurs, what is off.

- ``split``: a ridge on hand-made features, and the coordinates alone, under splits of patches at random, in blocks, in
  blocks with a buffer, and by patient. Goal: random >= blocks >= with buffer >= patient. (Patches that lie in two blocks
  belong to neither in any case; the buffer goes beyond them.)
- ``coordinates``: the coordinates alone by patient, on four times as many slides: the r of one slide is anything between
  -.5 and .5, as neighbouring patches are alike. Goal: |mean r| <= .05.
- ``statistic``: labels by the mean and the median of the cells of a patch, against the planted truth. Goal: mean > median.
- ``shift``: the same ridge by patient while the H&E lies off by more and more. Goal: r falls.

Written down before (slides of 2 mm): features .78, .59, .54, .49; coordinates .96, .52, .38, -.01; mean .99 and median .81;
r from .69 to .47 over 112 um. The order of embeddings is in ``leak.py``, that of fused models in ``ladder.py``.

    python benchmarks/signs.py [--quick] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import spatialsig as sp
from spatialsig import _keys
from spatialsig._errors import SpatialsigWarning
from spatialsig.stats.agreement import pearson
from spatialsig.stats.grouped import grouped_mean

HERE = Path(__file__).resolve().parent
SPLITS: dict[str, dict[str, Any]] = {
    "random": {"by": "random", "allow_leakage": True},
    "block": {"by": "block", "block_um": 512.0, "buffer_um": 0.0},
    "block, buffer": {"by": "block", "block_um": 512.0, "buffer_um": 256.0},
    "patient": {"by": "patient"},
}
SHIFTS_UM = (0.0, 10.0, 25.0, 56.0, 112.0)
COUNTS = (154.0, 15.0)


def make_cohort(folder: Path, n_slides: int, size_um: float, **knobs: float) -> sp.Cohort:
    """Labelled slides of one patient each; half-overlapping patches of 112 um."""
    stores = {}
    for i in range(n_slides):
        stores[f"S{i}"] = folder / f"S{i}.zarr"
        sp.io.write(sp.datasets.toy(seed=i, size_um=size_um, sample=f"S{i}", patient=f"P{i}", **knobs), stores[f"S{i}"])
    cohort = sp.Cohort(stores)
    sp.pp.split(cohort, n_folds=max(2, n_slides // 2))
    sp.pp.make_patches(cohort, patch_px=112, um_per_px=1.0, stride_um=56.0)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, "seed")
    sp.tl.aggregate_patches(cohort, use_rep=None)
    return cohort


def scores(cohort: sp.Cohort, *methods: str) -> dict[str, float]:
    """Mean r within slides over slides and signatures, every fold held out once."""
    n_folds = cohort[next(iter(cohort))].attrs["spatialsig"]["split"]["n_folds"]
    folds = pd.concat([sp.tl.baselines(cohort, test_fold=fold) for fold in range(n_folds)])
    found = folds.groupby("method")["pearson"].mean()
    return {method: round(float(found[method]), 3) for method in methods}


def split(n_slides: int, size_um: float) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        cohort = make_cohort(Path(folder), n_slides, size_um)
        for name, how in SPLITS.items():
            sp.pp.split(cohort, n_folds=max(2, n_slides // 2), **how)
            rows[name] = scores(cohort, "hand_features", "coordinates")
    r = [row["hand_features"] for row in rows.values()]
    return {"r": rows, "order_holds": all(np.diff(r) <= 0)}


def coordinates(n_slides: int, size_um: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cohort = make_cohort(Path(folder), 4 * n_slides, size_um / 2)
        sp.pp.split(cohort, n_folds=4)
        found = pd.concat([sp.tl.baselines(cohort, test_fold=fold) for fold in range(4)])
    slides = found[found["method"] == "coordinates"].groupby("sample")["pearson"].mean()
    mean, error = float(slides.mean()), float(slides.sem())
    return {"slides": len(slides), "r": round(mean, 3), "standard_error": round(error, 3), "holds": abs(mean) <= 0.05}


def statistic(n_slides: int, size_um: float) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for counts in COUNTS:
        found: dict[str, list[float]] = {"mean": [], "median": []}
        for seed in range(n_slides):
            sdata = sp.datasets.toy(seed=seed, size_um=size_um, counts_per_cell=counts)
            sp.pp.make_patches(sdata, patch_px=112, um_per_px=1.0)
            sp.pp.assign_cells(sdata)
            sp.tl.score_cells(sdata, "seed", test_fold=None)
            for stat, shares in found.items():
                sp.tl.aggregate_patches(sdata, use_rep=None, stat=stat)
                shares.append(agreement_with_truth(sdata))
        rows[f"{counts:g} counts"] = {stat: round(float(np.mean(shares)), 3) for stat, shares in found.items()}
    return {"r": rows, "order_holds": all(row["mean"] > row["median"] for row in rows.values())}


def agreement_with_truth(sdata: Any) -> float:
    """Mean r over signatures of the labels with the mean true score of the cells of each patch."""
    cells, labels = sdata[_keys.TABLE], sdata[_keys.SIGNATURES]
    truth = cells.obsm["true_scores"][list(labels.var_names)].to_numpy()
    planted = grouped_mean(truth, cells.obsm[_keys.MEMBERSHIP])
    known = np.isfinite(labels.X).any(axis=1)
    return float(np.nanmean(pearson(planted[known], np.asarray(labels.X, np.float64)[known])))


def shift(n_slides: int, size_um: float) -> dict[str, Any]:
    rows = {}
    for um in SHIFTS_UM:
        with tempfile.TemporaryDirectory() as folder:
            cohort = make_cohort(Path(folder), n_slides, size_um, registration_error_um=um)
            rows[f"{um:g} um"] = scores(cohort, "hand_features")["hand_features"]
    r = list(rows.values())
    return {"r": rows, "order_holds": all(np.diff(r) <= 0.01) and r[-1] < r[0] - 0.1}


PARTS = {"split": split, "coordinates": coordinates, "statistic": statistic, "shift": shift}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 slides of 0.6 mm")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="recorded beside the others")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "signs.json")
    args = parser.parse_args()
    sp.settings.progress = False
    warnings.simplefilter("ignore", SpatialsigWarning)  # the leaks are on purpose
    n_slides, size_um = (2, 600.0) if args.quick else (6, 1800.0)
    result = json.loads(args.json.read_text()) if args.json.exists() else {}
    for name in args.parts:
        started = time.perf_counter()
        result[name] = PARTS[name](n_slides, size_um)
        result[name]["seconds"] = round(time.perf_counter() - started, 1)
        print(name, json.dumps(result[name], indent=1), flush=True)
    result |= {"slides": n_slides, "size_um": size_um}
    if not args.quick:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
