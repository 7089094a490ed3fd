"""The prototype's artefacts, written by this package, read and computed again by code that shares none of it.

    python benchmarks/seed_parity.py [--quick] [--json PATH]

With the prototype's settings (plain network, all genes, median of at least 10 cells) ``sp.io.export_seed_layout`` writes
its files. The functions below were written from a description of the prototype, in float64: they encode the same cells
with the exported network, take the mean over each patch, score the cells from their counts and take the median over each
patch. Left out is only what was wrong there: micrometres taken as pixels, and one scaler per slide.

Goal: every number the same to 1e-5.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import spatialsig as sp

HERE = Path(__file__).resolve().parent
GOAL = 1e-5


def log_expression(counts: np.ndarray) -> np.ndarray:
    return np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def encode(folder: Path, counts: np.ndarray, names: list[str]) -> np.ndarray:
    """Second script: columns by name, library over the listed genes, one scaler, three layers."""
    genes = json.loads((folder / "ae_genes.json").read_text())
    place = {name.upper(): i for i, name in enumerate(names)}
    aligned = np.zeros((len(counts), len(genes)))
    for column, gene in enumerate(genes):
        if gene.upper() in place:
            aligned[:, column] = counts[:, place[gene.upper()]]
    scaler = np.load(folder / "scaler.npz")
    h = (log_expression(aligned) - scaler["mu"]) / scaler["sigma"]
    state = {name: value.double().numpy() for name, value in torch.load(folder / "ae.ckpt", weights_only=True).items()}
    for layer in (0, 2, 4):
        h = h @ state[f"enc.{layer}.weight"].T + state[f"enc.{layer}.bias"]
        h = np.maximum(h, 0) if layer < 4 else h
    return h


def score(counts: np.ndarray, names: list[str], panels: dict[str, list[str]]) -> np.ndarray:
    """Third script: z-scores over the cells of the slide, mean over the genes present."""
    x = log_expression(counts)
    spread = x.std(axis=0)
    z = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1)
    present = {name: [names.index(gene) for gene in genes if gene in names] for name, genes in panels.items()}
    return np.stack([z[:, columns].mean(axis=1) for columns in present.values()], axis=1)


def compare(sdata: object, folder: Path, panels: dict[str, list[str]]) -> dict[str, float]:
    """Largest difference between the exported files and the prototype's own way, on one slide."""
    table = sdata["table"]  # type: ignore[index]
    counts, names = table.X.toarray().astype(np.float64), list(table.var_names)
    code, scores = encode(folder, counts, names), score(counts, names, panels)
    labels = pd.read_csv(folder / "labels.csv")
    apart = {"embedding of the cells": float(np.abs(code - table.obsm["X_ae"]).max()), "patch mean": 0.0, "median": 0.0}
    x, y = table.obsm["he_px"].T
    for row in labels.to_dict("records"):
        size = row["size_l0"]
        inside = (x >= row["x0"]) & (x < row["x0"] + size) & (y >= row["y0"]) & (y < row["y0"] + size)
        if inside.sum() != row["n_cells"]:
            msg = f"patch {row['y0']}, {row['x0']}: {inside.sum()} cells, {row['n_cells']} in the file"
            raise ValueError(msg)
        vector = np.load(folder / row["ae_path"])
        apart["patch mean"] = max(apart["patch mean"], float(np.abs(vector - code[inside].mean(axis=0)).max()))
        median = np.nanmedian(scores[inside], axis=0)
        found = np.array([row[name] for name in panels])
        apart["median"] = max(apart["median"], float(np.abs(found - median).max()))
    return apart | {"patches": len(labels), "cells": len(counts)}


def prepare(sdata: object, folder: Path, *, epochs: int = 1, patch_px: int = 112, images: bool = False) -> dict:
    """Run the prototype's settings on a slide, export it, and return the panels used."""
    sp.pp.make_patches(sdata, patch_px=patch_px, um_per_px=1.0)
    sp.pp.assign_cells(sdata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sp.errors.SpatialsigWarning)
        sp.tl.score_cells(sdata, "seed", test_fold=None, min_genes=1, min_fraction=0.0)
    model = sp.tl.train_autoencoder(
        sdata, exclude_signature_genes=False, test_fold=None, linear_path=False, max_epochs=epochs
    )
    sp.tl.embed_cells(sdata, model)
    sp.tl.aggregate_patches(sdata, stat="median", min_cells=10)
    sp.io.export_seed_layout(sdata, folder, autoencoder=model, images=images)
    return dict(sp.io.read_signatures("seed"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="0.6 mm instead of 2 mm, one epoch instead of ten")
    parser.add_argument("--json", type=Path, default=HERE / "results" / "seed_parity.json")
    arguments = parser.parse_args()
    sp.settings.progress = False
    size_um, epochs = (600.0, 1) if arguments.quick else (2000.0, 10)
    start = time.perf_counter()
    sdata = sp.datasets.toy(size_um=size_um)
    with tempfile.TemporaryDirectory() as folder:
        panels = prepare(sdata, Path(folder), epochs=epochs)
        result = compare(sdata, Path(folder), panels)
    for name, value in result.items():
        print(f"{name:24} {value:.3g}")
    worst = max(result[name] for name in ("embedding of the cells", "patch mean", "median"))
    record = {**result, "largest difference": worst, "goal": GOAL, "seconds": time.perf_counter() - start}
    print(f"largest difference {worst:.2g} (goal {GOAL:g})")
    if not arguments.quick:
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
