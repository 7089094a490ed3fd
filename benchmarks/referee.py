"""Are a leaked outside model, one in the wrong unit, one with shuffled rows and an honest one told apart?

In each cohort the outside model is a ridge regression from 42 numbers of the H&E to the expression of every gene (or to
scores), trained on six synthetic slides of its own. Leaked: a forest that had the held-out patients among its training slides.
Wrong unit and shuffled rows: the honest predictions, changed in one of several ways that people change them, another one in
each cohort. `sp.tl.referee` must name the fault of the three, and no fault of the honest one, of which it says that it stands or
(as is the case where colour does as well) that it is no better than the controls. Goal: 4 of 4 in 20 of 20 cohorts.
A second part mixes the labels into the honest predictions and says from which share on the leak is seen.

    python benchmarks/referee.py [--quick] [--json PATH]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from machine import keep_record, record_options
from sklearn.ensemble import ExtraTreesRegressor

import spatialsig as sp
from spatialsig.errors import InputError
from spatialsig.evaluation.rows import Request, gather
from spatialsig.slide.counts import counts_of
from spatialsig.slide.slides import open_slides
from spatialsig.stats.baselines import ridge
from spatialsig.stats.expression import library_size, log1p_cp10k, scaled_counts
from spatialsig.stats.grouped import grouped_mean

if TYPE_CHECKING:
    from collections.abc import Callable

    Tables = dict[str, pd.DataFrame]

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SIZE_UM, N_COHORTS, N_OUTSIDE = 500.0, 20, 6
PATCHES = {"patch_px": 56, "um_per_px": 1.0, "stride_um": 28.0}
UNITS = ("counts as log1p", "log1p as counts", "cp10k as log1p", "scores without z", "scores z by slide")
ORDERS = ("shuffled", "ids as text", "x and y exchanged", "slides exchanged", "last to first", "mirrored")
SHARES = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0)  # of the labels among leaked predictions


def make_cohort(folder: Path, seeds: list[int], name: str) -> sp.Cohort:
    stores = {}
    for number, seed in enumerate(seeds):
        sample = f"{name}{number}"
        sdata = sp.datasets.toy(seed=seed, size_um=SIZE_UM, sample=sample, patient=f"{name}P{number}")
        stores[sample] = folder / f"{sample}.zarr"
        sp.io.write(sdata, stores[sample])
    cohort = sp.Cohort(stores)
    sp.pp.split(cohort, n_folds=2)
    sp.pp.make_patches(cohort, **PATCHES)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, "seed", test_fold=0)
    sp.tl.aggregate_patches(cohort, min_cells=5, use_rep=None)
    return cohort


class Study:
    """What is known of every patch of a cohort: features of the H&E, expression in each unit, labels."""

    def __init__(self, cohort: sp.Cohort) -> None:
        rows = gather(cohort, Request(None, 0, None))
        self.features = {one.sample: one.features["hand"] for one in rows}
        self.index = {one.sample: one.index for one in rows}
        self.labels = {one.sample: one.targets for one in rows}
        self.held_out = [one.sample for one in rows if one.test.any()]
        self.signatures = rows[0].signatures
        self.expression: dict[str, dict[str, np.ndarray]] = {}
        self.places: dict[str, np.ndarray] = {}
        self.n_patches: dict[str, int] = {}
        for slide in open_slides(cohort):
            counts, membership = counts_of(slide, "table"), slide.patches().membership("table")
            library = library_size(counts)
            units = {
                "counts": counts,
                "cp10k": scaled_counts(counts, library),
                "log1p_cp10k": log1p_cp10k(counts, library),
            }
            chosen = self.index[slide.name]
            self.expression[slide.name] = {
                unit: grouped_mean(np.asarray(values.todense()), membership)[chosen] for unit, values in units.items()
            }
            self.places[slide.name] = slide.patches().centres_um[chosen]
            self.n_patches[slide.name] = len(slide.patches())
            self.genes = list(slide.sdata["table"].var_names)
            self.scored = dict(slide.params("signatures")["score_cells"])

    def table(self, sample: str, values: np.ndarray, names: list[str], *, by_place: bool) -> pd.DataFrame:
        frame = pd.DataFrame(values, columns=names)
        if by_place:
            return frame.assign(x_um=self.places[sample][:, 0], y_um=self.places[sample][:, 1])
        return frame.assign(patch_id=self.index[sample])


def fit(own: Study, others: Study, unit: str) -> dict[str, np.ndarray]:
    """Predictions of a ridge regression on the slides of others, for every slide of a cohort."""
    x = np.concatenate(list(others.features.values()))
    y = np.concatenate([others.expression[name][unit] for name in others.features])
    return {name: ridge(x, y, features) for name, features in own.features.items()}


def scores(study: Study, expression: np.ndarray, *, scaled: bool = True) -> np.ndarray:
    genes, weights = [str(gene) for gene in study.scored["genes"]], np.asarray(study.scored["weights"])
    columns = [study.genes.index(gene) for gene in genes]
    values = expression[:, columns]
    return ((values - study.scored["mean"]) / study.scored["std"] if scaled else values) @ weights


def honest(study: Study, others: Study, number: int) -> tuple[Tables, str]:
    predicted = fit(study, others, "log1p_cp10k")
    if number % 2:
        return {
            n: study.table(n, v, study.genes, by_place=number % 3 == 0) for n, v in predicted.items()
        }, "log1p_cp10k"
    return {
        n: study.table(n, scores(study, v), study.signatures, by_place=number % 3 == 0) for n, v in predicted.items()
    }, "scores"


def leaked(study: Study, others: Study, number: int) -> tuple[Tables, str]:
    """A forest on slides of its own and, among them, the held-out ones."""
    names = [*others.features, *study.held_out]
    features, labels = others.features | study.features, others.labels | study.labels
    x = np.concatenate([features[name] for name in names])
    y = np.concatenate([labels[name] for name in names])
    forest = ExtraTreesRegressor(30, random_state=number).fit(x, np.nan_to_num(y))
    return {
        n: study.table(n, forest.predict(f), study.signatures, by_place=bool(number % 2))
        for n, f in study.features.items()
    }, "scores"


def wrong_unit(study: Study, others: Study, number: int) -> tuple[Tables, str]:
    how = UNITS[number % len(UNITS)]
    if how.endswith(("as log1p", "as counts")):
        unit, said = how.replace("log1p", "log1p_cp10k").split(" as ")
        predicted, names = fit(study, others, unit), study.genes
        if unit != "log1p_cp10k":
            predicted = {n: np.maximum(v, 0) for n, v in predicted.items()}
        predicted = {n: np.maximum(v, 0) if said == "counts" else v for n, v in predicted.items()}
    else:
        said, names = "scores", study.signatures
        predicted = {
            n: scores(study, v, scaled="without" not in how) for n, v in fit(study, others, "log1p_cp10k").items()
        }
        if "slide" in how:
            predicted = {n: (v - v.mean(axis=0)) / v.std(axis=0) for n, v in predicted.items()}
    return {n: study.table(n, v, names, by_place=False) for n, v in predicted.items()}, said


def shuffled(study: Study, others: Study, number: int) -> tuple[Tables, str]:
    how, rng = ORDERS[number % len(ORDERS)], np.random.default_rng(number)
    predicted = {n: scores(study, v) for n, v in fit(study, others, "log1p_cp10k").items()}
    places = {n: np.rint(study.places[n] / 28).astype(int) for n in predicted}
    if how == "slides exchanged":
        other = dict(zip(study.held_out, [*study.held_out[1:], study.held_out[0]], strict=True))
        n_patches = {n: study.n_patches[n] for n in predicted}
        tables = {
            n: study.table(other.get(n, n), predicted[other.get(n, n)], study.signatures, by_place=False)
            for n in predicted
        }
        return {n: t[t["patch_id"] < n_patches[n]] for n, t in tables.items()}, "scores"
    orders: dict[str, Callable[[str], np.ndarray]] = {
        "shuffled": lambda n: rng.permutation(len(predicted[n])),
        "ids as text": lambda n: np.argsort(study.index[n].astype(str), kind="stable"),
        "last to first": lambda n: np.arange(len(predicted[n]))[::-1],
        "x and y exchanged": lambda n: _at(places[n], places[n][:, ::-1]),
        "mirrored": lambda n: _at(
            places[n],
            np.stack([places[n][:, 0].max() + places[n][:, 0].min() - places[n][:, 0], places[n][:, 1]], axis=1),
        ),
    }
    return {
        n: study.table(n, v[orders[how](n)], study.signatures, by_place=False) for n, v in predicted.items()
    }, "scores"


def _at(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Row at each wanted place; its own where nothing lies there."""
    rows = {tuple(place): row for row, place in enumerate(places)}
    return np.array([rows.get(tuple(place), row) for row, place in enumerate(wanted)])


MODELS = {
    "honest": (honest, ("stands", "no better than the controls")),
    "leaked": (leaked, ("leaked",)),
    "wrong unit": (wrong_unit, ("wrong unit",)),
    "shuffled rows": (shuffled, ("rows out of order",)),
}


def verdict(cohort: sp.Cohort, tables: Tables, unit: str) -> tuple[str, str]:
    """What the referee says; a unit that is refused is named as one that is wrong."""
    try:
        found = sp.tl.referee(cohort, tables, unit=unit)
    except InputError as error:
        if "`unit=" in str(error):
            return "wrong unit", f"refused: {error}"
        raise
    return found.verdict, found.sentence


def main() -> None:
    """Print and record."""
    args = record_options(__doc__, "referee", quick="2 cohorts instead of 20").parse_args()
    warnings.simplefilter("ignore")
    sp.settings.progress = False
    started = time.perf_counter()
    cohorts: list[dict[str, Any]] = []
    seen: dict[str, list[bool]] = {str(share): [] for share in SHARES}
    with tempfile.TemporaryDirectory(dir=MEMORY) as scratch:
        others = Study(make_cohort(Path(scratch), [5000 + k for k in range(2 if args.quick else N_OUTSIDE)], "T"))
    for number in range(2 if args.quick else N_COHORTS):
        with tempfile.TemporaryDirectory(dir=MEMORY) as scratch:
            cohort = make_cohort(Path(scratch), [1000 + 10 * number + k for k in range(4)], "S")
            study = Study(cohort)
            row: dict[str, Any] = {
                "cohort": number,
                "unit": UNITS[number % len(UNITS)],
                "order": ORDERS[number % len(ORDERS)],
            }
            for name, (make, wanted) in MODELS.items():
                said, why = verdict(cohort, *make(study, others, number))
                row[name] = {"said": said, "right": said in wanted, "why": why[:300]}
            base = {n: scores(study, v) for n, v in fit(study, others, "log1p_cp10k").items()}
            for share in SHARES if number % 4 == 0 else ():
                mixed = {
                    n: study.table(n, (1 - share) * base[n] + share * study.labels[n], study.signatures, by_place=False)
                    for n in base
                }
                seen[str(share)].append(verdict(cohort, mixed, "scores")[0] == "leaked")
        row["told_apart"] = all(row[name]["right"] for name in MODELS)
        print(
            {k: v if not isinstance(v, dict) else (v["said"] if v["right"] else v) for k, v in row.items()}, flush=True
        )
        cohorts.append(row)
    told = sum(row["told_apart"] for row in cohorts)
    record = {
        "quick": args.quick,
        "told_apart": told,
        "of": len(cohorts),
        "goal": len(cohorts),
        "reached": told == len(cohorts),
        "right": {name: sum(row[name]["right"] for row in cohorts) for name in MODELS},
        "honest_that_stand": sum(row["honest"]["said"] == "stands" for row in cohorts),
        "leak_seen_by_share_of_labels": {share: float(np.mean(found)) for share, found in seen.items() if found},
        "cohorts": cohorts,
        "seconds": round(time.perf_counter() - started, 1),
    }
    keep_record(
        args.json, record, shown=("told_apart", "of", "reached", "right", "leak_seen_by_share_of_labels", "seconds")
    )


if __name__ == "__main__":
    main()
