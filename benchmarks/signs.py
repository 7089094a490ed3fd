"""The orders that must come out on the synthetic tissue, without a network: what leaks, what blurs, what is off.

- ``split``: a ridge on hand-made features, and the coordinates alone, under splits of patches at random, in blocks, in
  blocks with a buffer, and by patient, learned from equally many patches (a buffer costs half of them) and judged on the
  same ones, those that a buffer leaves. Goal: random >= blocks >= with buffer >= patient. (Patches that lie in two blocks
  belong to neither in any case; the buffer goes beyond them.)
- ``coordinates``: the coordinates alone by patient, on four times as many slides: the r of one slide is anything between
  -.5 and .5, as neighbouring patches are alike. Goal: |mean r| <= .05.
- ``statistic``: labels by the mean and the median of the cells of a patch, against the planted truth. Goal: mean > median.
- ``shift``: the same ridge by patient while the H&E lies off by more and more. Goal: r falls.
- ``signal``: the same while less of the cells shows in the H&E. Goal: r falls, to 0 (|r| <= .05) where nothing does.

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
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import spatialsig as sp
from spatialsig import _keys
from spatialsig.errors import SpatialsigWarning
from spatialsig.evaluation.evaluate import simple_predictions
from spatialsig.evaluation.rows import Request, Rows, gather
from spatialsig.slide.slides import open_slides
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
SIGNALS = (1.0, 0.6, 0.3, 0.0)
N_DRAWS = 5


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
    sp.tl.score_cells(cohort, "seed", test_fold=None)  # the split changes afterwards
    sp.tl.aggregate_patches(cohort, use_rep=None)
    return cohort


def scores(cohort: sp.Cohort, *methods: str) -> dict[str, float]:
    """Mean r within slides over slides and signatures, every fold held out once."""
    n_folds = cohort[next(iter(cohort))].attrs["spatialsig"]["split"]["n_folds"]
    folds = pd.concat([sp.tl.baselines(cohort, test_fold=fold) for fold in range(n_folds)])
    found = folds.groupby("method")["pearson"].mean()
    return {method: round(float(found[method]), 3) for method in methods}


def split(n_slides: int, size_um: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cohort = make_cohort(Path(folder), n_slides, size_um)
        slides = gather(cohort, Request(None, 0, None, None, _keys.PATCHES, _keys.SIGNATURES, _keys.TABLE, 0))
        dealt = {name: dealt_by(cohort, n_slides, how) for name, how in SPLITS.items()}
    least = min(sum(int(part.train.sum()) for part in fold) for folds in dealt.values() for fold in folds)
    rows = {name: judged(slides, folds, least, dealt["block, buffer"]) for name, folds in dealt.items()}
    holds = {method: all(np.diff([row[method] for row in rows.values()]) <= 0) for method in rows["random"]}
    return {"training_patches": least, "r": rows, "order_holds": holds}


class Part(NamedTuple):
    """Which labelled patches of a slide train, and which are judged."""

    train: np.ndarray
    test: np.ndarray


def dealt_by(cohort: sp.Cohort, n_slides: int, how: dict[str, Any]) -> list[list[Part]]:
    """Parts of every slide, for every fold."""
    n_folds = max(2, n_slides // 2)
    sp.pp.split(cohort, n_folds=n_folds, **how)
    folds: list[list[Part]] = [[] for _ in range(n_folds)]
    for slide in open_slides(cohort):
        patches = slide.patches()
        labelled = patches.labels(_keys.SIGNATURES).measured
        for fold, parts in enumerate(folds):
            parts.append(Part(patches.training(fold)[labelled], (patches.folds == fold)[labelled]))
    return folds


def judged(slides: list[Rows], folds: list[list[Part]], n_train: int, groups: list[list[Part]]) -> dict[str, float]:
    """Mean r within ``groups``, the same for every split, of patches predicted while they were held out.

    Learned from ``n_train`` patches, drawn anew :data:`N_DRAWS` times.
    """
    found: dict[str, list[float]] = {"hand_features": [], "coordinates": []}
    rng = np.random.default_rng(0)
    for _ in range(N_DRAWS):
        predicted = {method: [np.full(rows.targets.shape, np.nan) for rows in slides] for method in found}
        for fold in folds:
            for i, predictions in enumerate(held_out(slides, fold, n_train, rng)):
                for method in found if predictions else ():
                    predicted[method][i][fold[i].test] = predictions[method]
        for method, r in found.items():
            for group in groups:
                for rows, part, scores in zip(slides, group, predicted[method], strict=True):
                    r.append(float(np.nanmean(pearson(rows.targets[part.test].astype(float), scores[part.test]))))
    return {name: round(float(np.nanmean(r)), 3) for name, r in found.items()}


def held_out(slides: list[Rows], fold: list[Part], n_train: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Predictions for the patches of the fold, per slide; none where it has none."""
    every = np.concatenate([part.train for part in fold])
    kept = np.zeros(len(every), bool)
    kept[rng.choice(np.flatnonzero(every), n_train, replace=False)] = True
    of_slide = np.split(kept, np.cumsum([len(part.train) for part in fold])[:-1])
    drawn = [taken(rows, own, part.test) for rows, own, part in zip(slides, of_slide, fold, strict=True)]
    return [simple_predictions(rows, drawn) if rows.test.any() else {} for rows in drawn]


def taken(rows: Rows, train: np.ndarray, test: np.ndarray) -> Rows:
    """Those patches alone."""
    index = np.concatenate([np.flatnonzero(train), np.flatnonzero(test)])
    columns = {name: getattr(rows, name)[index] for name in ("targets", "position", "row", "col", "density")}
    features = {name: values[index] for name, values in rows.features.items()}
    return replace(rows, train=np.arange(len(index)) < train.sum(), features=features, **columns)


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


def signal(n_slides: int, size_um: float) -> dict[str, Any]:
    rows = {}
    for share in SIGNALS:
        with tempfile.TemporaryDirectory() as folder:
            cohort = make_cohort(Path(folder), n_slides, size_um / 1.5, image_signal=share)
            rows[f"{share:g}"] = scores(cohort, "hand_features")["hand_features"]
    r = list(rows.values())
    return {"r": rows, "order_holds": all(np.diff(r) <= 0) and abs(r[-1]) <= 0.05}


PARTS = {"signal": signal, "split": split, "coordinates": coordinates, "statistic": statistic, "shift": shift}


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
