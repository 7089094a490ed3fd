"""Single cells from the H&E: is the planted type of a nucleus seen beyond what its patch says?

    python benchmarks/cells.py [--quick] [--out FOLDER] [--json PATH]

Three synthetic patients; a model and a head for nuclei learn from two and predict the nuclei of the third, at the outlines
that the Xenium bundle gives and at those that ``sp.pp.find_nuclei`` finds. For every way to a value per cell: Pearson r with the
cell's own score, by cell and in squares of 20 µm, its ceiling, the r of the patch's score given to each of its cells, and the gain;
r with the noiseless score; and the area under the ROC curve by which cells of the planted type are told from others. Goal: the head is
above the patch for every signature.

Also: nuclei that ``find_nuclei`` finds and misses, and how long napari takes to open 300,000 coloured cells (goal: 10 s; ``make screen``).
The cohort, the model and the maps are kept below ``--out`` and not made again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from machine import keep_record, machine, record_options
from scipy.spatial import cKDTree
from scipy.stats import mannwhitneyu
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import Scale

import spatialsig as sp
from spatialsig.errors import SpatialsigWarning

HERE = Path(__file__).resolve().parent
TYPE_OF = {
    "Immune_T": "T_cell", "Immune_B": "B_cell", "Pericyte": "Pericyte", "SmoothMuscle": "SmoothMuscle",
    "Fibroblast": "Fibroblast", "Proliferation": "Tumour",
}  # fmt: skip
N_WINDOW = 300_000
FOUND_UM = 3.0


def cohort_of(out: Path, *, quick: bool) -> sp.Cohort:
    """Stores of three patients with the outlines of their nuclei, labelled; made once."""
    stores = out / "stores"
    if not (out / "done").exists():
        shutil.rmtree(out, ignore_errors=True)
        made = sp.datasets.synthetic_xenium(
            out / "bundles", n_slides=3, size_um=400.0 if quick else 1600.0, transcripts=False
        )
        for row in made.itertuples():
            sp.io.read_xenium(
                row.bundle, he_image=row.he_image, he_alignment=row.he_alignment, sample=row.sample, patient=row.patient,
                boundaries=True, out=stores / f"{row.sample}.zarr",
            )  # fmt: skip
        cohort = sp.Cohort.open(stores)
        sp.pp.filter_cells(cohort)
        sp.pp.split(cohort, by="patient", n_folds=3)
        sp.pp.make_patches(cohort, patch_um=112.0, um_per_px=0.7, stride_um=56.0)
        sp.pp.normalize_stain(cohort)
        sp.pp.assign_cells(cohort)
        sp.tl.score_cells(cohort, "seed", test_fold=0)
        sp.tl.aggregate_patches(cohort)
        (out / "done").touch()
    return sp.Cohort.open(stores)


def model_of(out: Path, cohort: sp.Cohort, *, quick: bool) -> sp.models.SignatureViT:
    """Model of the H&E alone, fold 0 held out; trained once."""
    if not (out / "model").exists():
        options: dict[str, Any] = {"max_epochs": 1} if quick else {}
        sp.tl.train_vit(cohort, test_fold=0, use_rep=None, seed=0, **options).save(out / "model")
    return sp.models.SignatureViT.load(out / "model")


def truth_of(out: Path, sample: str) -> tuple[pd.DataFrame, pd.Series]:
    """Noiseless scores and planted types of the cells of a slide."""
    truth = ad.read_h5ad(out / "bundles" / f"{sample}_truth.h5ad")
    logged = np.log1p(1e4 * truth.X / truth.X.sum(axis=1, keepdims=True))
    z = (logged - logged.mean(axis=0)) / logged.std(axis=0)
    scores = {name: z[:, truth.var_names.isin(genes)].mean(axis=1) for name, genes in truth.uns["signatures"].items()}
    return pd.DataFrame(scores, index=truth.obs_names), truth.obs["cell_type"]


def auc(values: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a cell of the type has the higher value."""
    known = np.isfinite(values)
    ours, others = values[known & positive], values[known & ~positive]
    return float(mannwhitneyu(ours, others).statistic / (len(ours) * len(others)))


def judged(store: Path, out: Path, key: str) -> dict[str, Any]:
    """Numbers of one table of predicted cells, by signature and as means."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpatialsigWarning)
        found = sp.tl.evaluate_cells(store, cells_key=key)
    slide = sp.io.read(store)
    table, (scores, types) = slide[key], truth_of(out, slide.attrs["spatialsig"]["sample"])
    ids = pd.Index(table.obs["cell_id"].astype(str))
    result: dict[str, Any] = {}
    for (scale, name), row in found.set_index(["scale", "signature"]).iterrows():
        entry = result.setdefault(scale, {}).setdefault(name, {})
        entry |= {column: float(row[column]) for column in ("n", "r", "ceiling", "r_patch", "gain")}
        if scale != "cell" or not ids.isin(scores.index).all():
            continue
        values, patch = (
            np.asarray(part, float)[:, table.var_names.get_loc(name)] for part in (table.X, table.layers["patch"])
        )
        known = np.isfinite(values) & np.isfinite(patch)
        true, kind = scores[name].reindex(ids).to_numpy(), types.reindex(ids).to_numpy() == TYPE_OF[name]
        entry["r_truth"] = float(np.corrcoef(values[known], true[known])[0, 1])
        entry["auc"], entry["auc_patch"] = auc(values, kind), auc(patch, kind)
        measured = slide["table"].obsm["signatures"][:, list(table.var_names).index(name)]
        own = scores[name].reindex(slide["table"].obs["cell_id"].astype(str)).to_numpy()
        entry["r_of_measured_with_truth"] = float(np.corrcoef(measured, own)[0, 1])
    for of_scale in result.values():
        of_scale["mean"] = pd.DataFrame(of_scale).T.mean().to_dict()
        of_scale["least gain"] = min(entry["gain"] for name, entry in of_scale.items() if name != "mean")
    return result


def found_nuclei(store: Path, out: Path) -> dict[str, float]:
    """Shares of the planted nuclei that are found within 3 µm, and of those found that are some."""
    slide = sp.io.read(store)
    truth = ad.read_h5ad(out / "bundles" / f"{slide.attrs['spatialsig']['sample']}_truth.h5ad").obsm["he_px"]
    um = sp.io.mpp(slide)
    xy = np.stack([slide["nuclei"].geometry.x, slide["nuclei"].geometry.y], axis=1)
    near = FOUND_UM / um
    return {
        "recall": float((cKDTree(xy).query(truth)[0] < near).mean()),
        "precision": float((cKDTree(truth).query(xy)[0] < near).mean()),
    }


def open_window(place: Path) -> None:
    """In a process of its own: open 300,000 coloured cells and print the seconds until they are drawn."""
    slide = sp.datasets.toy()
    rng, n, um = np.random.default_rng(0), N_WINDOW, 0.2125
    xy = rng.uniform(0, 500, (n, 2))
    frames = {"global": Scale([1 / um, 1 / um], axes=("x", "y"))}
    slide["cell_circles"] = ShapesModel.parse(xy, geometry=0, radius=np.full(n, 1.0), transformations=frames)
    del slide.tables["table"]
    obs = pd.DataFrame({"region": pd.Categorical(["cell_circles"] * n), "instance_id": np.arange(n)}).set_axis(
        np.arange(n).astype(str)
    )
    obs["cell_id"] = obs.index
    values = (xy[:, :1] / 100 + rng.normal(size=(n, 1))).astype(np.float32)
    table = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=["Immune_T"]), obsm={"spatial": xy})
    table.uns["spatialsig"] = {"predict_cells": {"image_key": "he_image"}}
    slide["cells_pred"] = TableModel.parse(
        table, region="cell_circles", region_key="region", instance_key="instance_id"
    )
    import napari  # noqa: F401 (as in a session that has it open)
    import napari_spatialdata  # noqa: F401

    start, cpu = time.perf_counter(), time.process_time()
    viewer = sp.pl.napari(slide, "Immune_T", run=False)
    viewer.screenshot(str(place), canvas_only=True)
    print(f"seconds {time.perf_counter() - start:.2f} {time.process_time() - cpu:.2f}", flush=True)
    os._exit(0)  # Qt takes its time


def window_seconds(out: Path) -> dict[str, float] | None:
    """Time until 300,000 cells are on the screen, and CPU time; None where there is no screen."""
    screen = [] if os.environ.get("DISPLAY") else ["xvfb-run", "-a", "-s", "-screen 0 1600x1200x24"]
    if screen and not shutil.which("xvfb-run"):
        return None
    command = [
        *screen,
        sys.executable,
        "-W",
        "ignore",
        str(Path(__file__).resolve()),
        "--window",
        str(out / "cells.png"),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("seconds"))
    wall, cpu = map(float, line.split()[1:])
    return {"wall": wall, "cpu": cpu}


def main() -> None:
    if "--window" in sys.argv:
        open_window(Path(sys.argv[-1]))
    parser = record_options(__doc__, "cells", quick="small slides, one epoch: whether it runs")
    parser.add_argument("--out", type=Path, default=HERE / "out" / "cells")
    args = parser.parse_args()
    sp.settings.progress = False
    cohort = cohort_of(args.out, quick=args.quick)
    model = model_of(args.out, cohort, quick=args.quick)
    test = next(name for name in cohort if cohort[name].attrs["spatialsig"]["split"]["fold"] == 0)
    store, seconds, ways = cohort.stores[test], {}, {}
    start = time.process_time()
    head = sp.tl.train_cell_head(cohort, model, cells="nucleus_boundaries")
    seconds["train the head"] = time.process_time() - start
    for method in ("patch", "token"):
        start = time.process_time()
        drawn = sp.tl.signature_map(store, model, method=method, key_added=f"map_{method}", skip_done=True)
        if drawn["outcome"].item() == "predicted":
            seconds[f"map, {method}"] = time.process_time() - start
    calls: dict[str, dict[str, Any]] = {
        "map, patch": {"cells": "nucleus_boundaries", "map_key": "map_patch"},
        "map, token": {"cells": "nucleus_boundaries", "map_key": "map_token"},
        "head": {"cells": "nucleus_boundaries", "head": head},
        "head, detected nuclei": {"cells": "detect", "head": head},
    }
    for name, options in calls.items():
        start = time.process_time()
        sp.tl.predict_cells(store, model, key_added="cells_pred", **options)
        seconds[f"cells by {name}"] = time.process_time() - start
        ways[name] = judged(store, args.out, "cells_pred")
    result: dict[str, object] = {
        "machine": machine(),
        "ways": ways,
        "nuclei": found_nuclei(store, args.out),
        "head": {"n_cells": head.run["n_cells"], "penalty": head.run["penalty"], "n_features": head.n_features},
        "cpu_seconds": seconds,
        "n_cells": int(cohort[test]["nucleus_boundaries"].shape[0]),
        "napari": window_seconds(args.out),
    }
    for name, found in ways.items():
        print(name, {scale: {k: round(v, 3) for k, v in entry["mean"].items()} for scale, entry in found.items()})
    keep_record(args.json, result, shown=("nuclei", "napari", "cpu_seconds"))


if __name__ == "__main__":
    main()
