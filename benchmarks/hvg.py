"""Highly variable genes over slides, beside scanpy with ``batch_key`` and the dense way of the prototype.

One thread, the ways interleaved in one process, medians of CPU time; memory is the rise of the process's peak.

    python benchmarks/hvg.py [--quick] [--json PATH]
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import ctypes
import json
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import psutil
import scanpy as sc
from machine import cpu_seconds, record_options
from scipy import sparse

from spatialsig.stats.expression import gene_moments, library_size
from spatialsig.stats.variable import Moments, by_dispersion, by_mean_variance

if TYPE_CHECKING:
    from collections.abc import Callable

N_TOP = 200
GOALS = {"x scanpy": 7.5, "x prototype": 7.5, "extra memory / CSR, at most": 0.05}


def slide(n_cells: int, n_genes: int, seed: int) -> sparse.csr_matrix:
    """Counts with the skewed means and depths of a real panel."""
    rng = np.random.default_rng(seed)
    share = rng.gamma(0.3, 1, n_genes)
    depth = rng.lognormal(np.log(150), 0.45, n_cells)[:, None]
    parts = [rng.poisson(d * (share / share.sum())).astype(np.float32) for d in np.array_split(depth, 50)]
    return sparse.vstack([sparse.csr_matrix(part) for part in parts]).tocsr()


def prototype(slides: list[sparse.csr_matrix]) -> np.ndarray:
    """Dense float32, variance per slide, mean over slides."""
    variances = []
    for counts in slides:
        x = counts.toarray()
        x = np.log1p(1e4 * x / np.maximum(x.sum(axis=1, keepdims=True), 1))
        variances.append(x.var(axis=0))
    return np.mean(variances, axis=0)


def by_scanpy(normalised: ad.AnnData) -> pd.DataFrame:
    return sc.pp.highly_variable_genes(normalised, n_top_genes=N_TOP, batch_key="batch", inplace=False)


def ours(slides: list[sparse.csr_matrix], *, log1p: bool) -> pd.DataFrame:
    genes = np.arange(slides[0].shape[1]).astype(str).tolist()
    moments = [Moments(genes, *gene_moments(c, library_size(c), log1p=log1p), c.shape[0]) for c in slides]
    if log1p:
        return by_mean_variance(moments, n_top_genes=N_TOP)
    return by_dispersion(moments, n_top_genes=N_TOP, n_bins=20)


def together(slides: list[sparse.csr_matrix]) -> ad.AnnData:
    """The normalised concatenation that scanpy wants; making it is not timed."""
    batch = np.repeat(np.arange(len(slides)).astype(str), [c.shape[0] for c in slides])
    obs = pd.DataFrame({"batch": pd.Categorical(batch)}, index=np.arange(len(batch)).astype(str))
    adata = ad.AnnData(sparse.vstack(slides).tocsr(), obs=obs)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def extra_bytes(way: Callable[[], object]) -> int:
    """Rise of the peak of the resident memory while ``way`` runs, as the kernel counts it (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before goes back: nothing may hide in it
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = psutil.Process().memory_info().rss
    kept = way()
    status = Path("/proc/self/status").read_text()
    del kept
    return max(0, int(status.split("VmHWM:")[1].split()[0]) * 1024 - before)


def measure(slides: list[sparse.csr_matrix], repeats: int, *, dense: bool) -> dict[str, object]:
    adata = together(slides)
    ways: dict[str, Callable[[], object]] = {
        "ours (seed)": lambda: ours(slides, log1p=True),
        "ours (seurat)": lambda: ours(slides, log1p=False),
        "scanpy (seurat)": lambda: by_scanpy(adata),
    }
    if dense:
        ways["prototype"] = lambda: prototype(slides)
    memory = {name: extra_bytes(way) for name, way in ways.items()}  # also compiles
    memory = {name: extra_bytes(way) if name.startswith("ours") else memory[name] for name, way in ways.items()}
    seconds = cpu_seconds(ways, repeats)
    size = sum(c.data.nbytes + c.indices.nbytes + c.indptr.nbytes for c in slides)
    exact = ours(slides, log1p=True)["variance"].to_numpy()
    result: dict[str, object] = {
        "seconds": seconds,
        "extra_mb": {name: value / 1e6 for name, value in memory.items()},
        "csr_mb": size / 1e6,
        "x scanpy": seconds["scanpy (seurat)"] / seconds["ours (seurat)"],
        "extra memory / CSR, at most": max(memory["ours (seed)"], memory["ours (seurat)"]) / size,
        "same genes as scanpy": int(
            (
                by_scanpy(adata)["highly_variable"].to_numpy()
                & ours(slides, log1p=False).reindex(adata.var_names)["highly_variable"].to_numpy()
            ).sum()
        ),
    }
    if dense:
        result["x prototype"] = seconds["prototype"] / seconds["ours (seed)"]
        result["largest relative error of the prototype"] = float(
            np.abs(prototype(slides) / np.where(exact > 0, exact, np.nan) - 1)[exact > 0].max()
        )
    return result


def main() -> None:
    parser = record_options(__doc__, "hvg", quick="4 x 20k x 500 and 10k x 5000")
    args = parser.parse_args()
    shrink, repeats = (10, 3) if args.quick else (1, 5)
    result: dict[str, object] = {"goals": GOALS}
    for name, (n_slides, n_cells, n_genes) in {
        "4 x 200k x 500": (4, 200_000, 500),
        "100k x 5000": (1, 100_000, 5000),
    }.items():
        slides = [slide(n_cells // shrink, n_genes, seed) for seed in range(n_slides)]
        measured = measure(slides, repeats, dense=True)
        result[name] = {"n_cells": n_slides * n_cells // shrink, **measured}
        print(name, f"({n_slides} x {n_cells // shrink} cells)")
        for key, value in measured.items():
            print(f"  {key}: {value}" + (f" (goal {GOALS[key]})" if key in GOALS else ""))
    args.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
