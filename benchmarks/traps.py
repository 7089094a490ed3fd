"""Every known way to fool oneself, switched on in a synthetic cohort: is it named? And are clean cohorts left alone?

Fifteen traps (docs/evaluation.md), each with its switch and the finding that must appear; it counts as caught if
``tl.findings`` (or the function itself, by an error or a warning) names it. Then whole clean runs with a trained model, one
per seed: findings of severity "error" or "warning" there are false alarms. Goals: 15 of 15, and none in 10 seeds.

    python benchmarks/traps.py [--quick] [--json PATH]
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from machine import keep_record, record_options
from scipy import sparse
from spatialdata.models import TableModel

import spatialsig as sp
from spatialsig.datasets.synthetic.tissue.expression import load_panel
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.stats.grouped import grouped_sum

if TYPE_CHECKING:
    from collections.abc import Callable

    Switch = Callable[[Path], pd.DataFrame]  # walks into a trap, with a folder for slides; returns the findings

SIZE_UM, N_SLIDES = 500.0, 6
PATCHES = {"patch_px": 56, "um_per_px": 1.0, "stride_um": 28.0}
# SmoothMuscle shares most of its genes with Pericyte: a trap of its own
SIGNATURES = {name: list(genes) for name, genes in load_panel().signatures.items() if name != "SmoothMuscle"}


def make_cohort(folder: Path, *, seed: int, n: int = N_SLIDES, twins: bool = False, **recipe: float) -> sp.Cohort:
    """Slides of one patient each; with ``twins`` every second one is the section beside the first."""
    stores = {}
    for i in range(n):
        tissue = seed * 100 + (i // 2 if twins else i)
        sdata = sp.datasets.toy(seed=tissue, size_um=SIZE_UM, sample=f"S{i}", patient=f"P{i}", **recipe)
        stores[f"S{i}"] = folder / f"S{i}.zarr"
        sp.io.write(sdata, stores[f"S{i}"])
    return sp.Cohort(stores)


def label(
    data: object,
    *,
    signatures: dict | str = SIGNATURES,
    stat: str = "mean",
    use_rep: str | None = None,
    **score: object,
) -> None:
    sp.pp.make_patches(data, **PATCHES)
    sp.pp.assign_cells(data)
    sp.tl.score_cells(data, signatures, **score)
    sp.tl.aggregate_patches(data, min_cells=5, stat=stat, use_rep=use_rep)


def alter(cohort: sp.Cohort, change: Callable[[object], None], *samples: str) -> None:
    """Rewrite slides after a change in memory, as a careless user would hand them over."""
    for sample in samples or cohort.stores:
        sdata = sp.io.read(cohort.stores[sample])
        change(sdata)
        sp.io.write(sdata, cohort.stores[sample], overwrite=True)


def embed(cohort: sp.Cohort, **options: object) -> None:
    model = sp.tl.train_autoencoder(
        cohort, signatures=SIGNATURES, max_epochs=2, hidden=(32,), n_latent=8, **options
    )  # fmt: skip
    sp.tl.embed_cells(cohort, model)


def judged(data: object, **options: object) -> pd.DataFrame:
    return sp.tl.findings(data, None, sp.tl.baselines(data, **options))


TRAPS: dict[int, tuple[Switch, tuple[str, ...]]] = {}


def trap(number: int, *findings: str) -> Callable[[Switch], Switch]:
    """Enter a switch in the list of traps: its number in docs/evaluation.md, and the findings that must name it."""

    def enter(switch: Switch) -> Switch:
        TRAPS[number] = (switch, findings)
        return switch

    return enter


def split_cohort(folder: Path, *, seed: int, n: int = 2, **recipe: float) -> sp.Cohort:
    """Slides of one patient each, in two folds."""
    cohort = make_cohort(folder, seed=seed, n=n, **recipe)
    sp.pp.split(cohort, n_folds=2)
    return cohort


# ---- the traps: each returns the table of findings -------------------------------------------------------------------
@trap(1, "random_split", "split_leaks")
def random_split(folder: Path) -> pd.DataFrame:
    data = sp.datasets.toy(seed=7, size_um=SIZE_UM)
    sp.pp.split(data, by="random", allow_leakage=True)
    label(data)
    return judged(data)


@trap(2, "patient_unknown", "split_leaks")
def serial_sections(folder: Path) -> pd.DataFrame:
    cohort = make_cohort(folder, seed=1, n=4, twins=True)
    alter(cohort, lambda sdata: sdata.attrs["spatialsig"].pop("patient"))
    sp.pp.split(cohort, by="slide", n_folds=2, seed=1)
    label(cohort)
    return judged(cohort)


@trap(3, "embedding_shares_genes")
def same_genes(folder: Path) -> pd.DataFrame:
    cohort = split_cohort(folder, seed=2, n=4)
    embed(cohort, exclude_signature_genes=False)
    label(cohort, use_rep="X_ae")
    return judged(cohort, use_rep="X_ae")


@trap(4, "never_without_embedding")
def no_modality_dropout(folder: Path) -> pd.DataFrame:
    cohort = split_cohort(folder, seed=3, n=4)
    embed(cohort)
    label(cohort, use_rep="X_ae")
    model = sp.tl.train_vit(cohort, max_epochs=1, modality_dropout=0.0)
    return sp.tl.findings(cohort, model, sp.tl.evaluate(cohort, model))


@trap(5, "labels_follow_n_cells")
def raw_counts(folder: Path) -> pd.DataFrame:
    cohort = split_cohort(folder, seed=4, n=4)
    label(cohort)

    def sums(sdata: object) -> None:
        cells, labels = sdata["table"], sdata["signatures"]
        genes = [
            cells.var_names.get_indexer([g for g in SIGNATURES[s] if g in cells.var_names]) for s in labels.var_names
        ]
        counts = np.stack([np.asarray(cells.X[:, g].sum(axis=1)).ravel() for g in genes], axis=1)
        raw = np.log1p(grouped_sum(counts, cells.obsm["patch_membership"])).astype(np.float32)
        labels.X = np.where(np.isfinite(labels.X), raw, np.nan)

    alter(cohort, sums)
    return judged(cohort)


@trap(6, "scales_differ")
def scaled_one_by_one(folder: Path) -> pd.DataFrame:
    cohort = split_cohort(folder, seed=5)
    sp.pp.make_patches(cohort, **PATCHES)
    sp.pp.assign_cells(cohort)
    for path in cohort.stores.values():
        sp.tl.score_cells(path, SIGNATURES, test_fold=None)
    sp.tl.aggregate_patches(cohort, min_cells=5, use_rep=None)
    return sp.tl.findings(cohort)


@trap(7, "cells_outside_patches")
def um_as_px(folder: Path) -> pd.DataFrame:
    data = sp.datasets.toy(seed=8, size_um=SIZE_UM)
    data["table"].obsm["spatial"] = data["table"].obsm["spatial"] / data.attrs["spatialsig"]["um_per_global_px"]
    label(data, test_fold=None)
    return sp.tl.findings(data)


@trap(8, "labels_tie")
def median_of_few_counts(folder: Path) -> pd.DataFrame:
    data = sp.datasets.toy(seed=9, size_um=SIZE_UM, counts_per_cell=15.0)
    label(data, stat="median", test_fold=None)
    return sp.tl.findings(data)


@trap(9, "coverage_low")
def panel_without_genes(folder: Path) -> pd.DataFrame:
    data = sp.datasets.toy(seed=10, size_um=SIZE_UM)
    dropped = SIGNATURES["Immune_T"][:-3]
    data["table"] = data["table"][:, ~data["table"].var_names.isin(dropped)].copy()
    label(data, test_fold=None, min_fraction=0.0, min_genes=1)
    return sp.tl.findings(data)


@trap(10, "controls_in_counts")
def control_probes(folder: Path) -> pd.DataFrame:
    data = sp.datasets.toy(seed=11, size_um=SIZE_UM)
    table, names = data["table"], [f"NegControlProbe_{i:05d}" for i in range(8)]
    noise = sparse.csr_matrix(np.random.default_rng(0).poisson(0.2, (table.n_obs, 8)).astype(np.float32))
    wider = ad.AnnData(
        sparse.hstack([table.X, noise]).tocsr(), obs=table.obs, obsm=dict(table.obsm),
        var=pd.DataFrame(index=[*table.var_names, *names]),
    )  # fmt: skip
    del data["table"]
    data["table"] = TableModel.parse(
        wider, region=str(table.obs["region"].iloc[0]), region_key="region", instance_key="cell_id"
    )
    label(data, test_fold=None)
    return sp.tl.findings(data)


@trap(11, "registration_poor")
def shifted(folder: Path) -> pd.DataFrame:
    data = sp.datasets.toy(seed=12, size_um=SIZE_UM, registration_error_um=40.0)
    sp.pp.qc_alignment(data)
    label(data, test_fold=None)
    return sp.tl.findings(data)


@trap(12, "genes_from_test")
def looked_at_test(folder: Path) -> pd.DataFrame:
    cohort = split_cohort(folder, seed=6)
    sp.pp.highly_variable_genes(cohort, test_fold=None)
    label(cohort)
    model = sp.tl.train_vit(cohort, max_epochs=1, use_rep=None)
    return sp.tl.findings(cohort, model)


@trap(13, "few_patients")
def one_patient_many_patches(folder: Path) -> pd.DataFrame:
    cohort = split_cohort(folder, seed=7)
    label(cohort)
    return judged(cohort)


@trap(14, "labels_noisy")
def too_few_counts(folder: Path) -> pd.DataFrame:
    cohort = split_cohort(folder, seed=8, counts_per_cell=0.5)
    label(cohort)
    return judged(cohort)


@trap(15, "signatures_overlap")
def overlapping_panels(folder: Path) -> pd.DataFrame:
    data = sp.datasets.toy(seed=13, size_um=SIZE_UM)
    label(data, signatures="seed", test_fold=None)
    return sp.tl.findings(data)


QUICK = (1, 8, 15)


def spring(number: int) -> dict[str, object]:
    """Walk into one trap."""
    switch, wanted = TRAPS[number]
    folder = Path(tempfile.mkdtemp())
    said: list[str] = []
    found = pd.DataFrame(columns=["name", "text"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpatialsigWarning)
        try:
            found = switch(folder)
        except InputError as error:
            said.append(f"refused: {error}")
    shutil.rmtree(folder)
    said += [str(w.message) for w in caught if issubclass(w.category, SpatialsigWarning)]
    named = [name for name in wanted if name in set(found["name"])]
    refused = number == 7 and any("is in µm" in text for text in said)  # caught where cells are assigned
    text = found.loc[found["name"].isin(named), "text"].tolist() + said
    return {
        "trap": number, "switch": switch.__name__, "caught": len(named) == len(wanted) or refused, "by": named,
        "also": sorted(set(found["name"]) - set(wanted)), "says": text[:2],
    }  # fmt: skip


def clean(seed: int, epochs: int) -> dict[str, object]:
    """Everything done right, with a model."""
    folder = Path(tempfile.mkdtemp())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpatialsigWarning)
        cohort = make_cohort(folder, seed=1000 + seed)
        sp.pp.qc_alignment(cohort)
        sp.pp.split(cohort, n_folds=2, seed=seed)
        sp.pp.highly_variable_genes(cohort)
        embed(cohort)
        label(cohort, use_rep="X_ae")
        model = sp.tl.train_vit(cohort, max_epochs=epochs, seed=seed)
        evaluation = sp.tl.evaluate(cohort, model, seed=seed)
        found = sp.tl.findings(cohort, model, evaluation)
    shutil.rmtree(folder)
    r = evaluation.groupby("method")["pearson"].mean().round(3).to_dict()
    return {
        "seed": seed, "false": found.loc[found["severity"] != "note", ["name", "text"]].to_dict("records"),
        "notes": found.loc[found["severity"] == "note", "name"].tolist(), "pearson": r,
        "stain_shift": float(evaluation["stain_shift"].max()),
        "r_n_cells": float(evaluation["r_n_cells"].abs().median()),
        "warned": [str(w.message) for w in caught if issubclass(w.category, SpatialsigWarning)],
    }  # fmt: skip


def main() -> None:
    parser = record_options(__doc__, "traps", quick="three traps, one clean run of two epochs")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of traps; none: those recorded stay")
    parser.add_argument("--seeds", type=int, default=None, help="clean runs")
    args = parser.parse_args()
    sp.settings.progress = False
    started = time.perf_counter()
    sprung = []
    for number in args.only if args.only is not None else (QUICK if args.quick else TRAPS):
        sprung.append(spring(number))
        print({key: sprung[-1][key] for key in ("trap", "switch", "caught", "by", "also", "says")}, flush=True)
    if args.only == [] and args.json.exists():
        sprung = json.loads(args.json.read_text())["traps"]
    n_seeds = args.seeds if args.seeds is not None else (1 if args.quick else 10)
    runs = []
    for seed in range(n_seeds):
        runs.append(clean(seed, epochs=2 if args.quick else 6))
        print(runs[-1], flush=True)
    result = {
        "caught": sum(bool(trap["caught"]) for trap in sprung), "of": len(sprung), "traps": sprung,
        "false_alarms": sum(len(run["false"]) for run in runs), "clean_runs": runs,
        "seconds": time.perf_counter() - started, "quick": args.quick,
    }  # fmt: skip
    keep_record(args.json, result, shown=("caught", "of", "false_alarms", "seconds"))


if __name__ == "__main__":
    main()
