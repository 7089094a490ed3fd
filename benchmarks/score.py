"""Scoring every cell for six signatures, beside scanpy, decoupler and the dense way of the prototype.

One thread, the ways interleaved in one process, medians of CPU time. decoupler runs on a part of the cells, so that its
ratio is per cell.

    python benchmarks/score.py [--quick] [--json PATH]
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import json
from typing import TYPE_CHECKING

import anndata as ad
import decoupler as dc
import numpy as np
import pandas as pd
import scanpy as sc
from aggregate import cpu_seconds
from hvg import extra_bytes, slide
from machine import record_options

from spatialsig.stats.cell_scores import control_genes, signature_scores
from spatialsig.stats.expression import (
    gene_moments,
    library_size,
    log1p_cp10k,
    scaler_from_moments,
)
from spatialsig.stats.ranks import detected_genes, rank_scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy import sparse

N_GENES, N_SIGNATURES, SIZE = 377, 6, 8
GOALS = {"x prototype": 5.5, "x score_genes": 9.0, "x ulm per cell": 20.0, "extra MB beyond the scores, at most": 50.0}


def prototype(counts: sparse.csr_matrix, sets: list[np.ndarray]) -> np.ndarray:
    """Dense z-scores in float32, mean over the genes of each signature."""
    x = counts.toarray()
    x = np.log1p(1e4 * x / np.maximum(x.sum(axis=1, keepdims=True), 1))
    z = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    return np.stack([z[:, genes].mean(axis=1) for genes in sets], axis=1)


def zscore(counts: sparse.csr_matrix, weights: np.ndarray) -> np.ndarray:
    """Scaler from these cells, then scores."""
    library = library_size(counts)
    mean, std = scaler_from_moments(*gene_moments(counts, library, genes=weights.any(axis=1)), counts.shape[0])
    return signature_scores(counts, library, mean, std, weights)


def score_genes(counts: sparse.csr_matrix, weights: np.ndarray) -> np.ndarray:
    library = library_size(counts)
    mean = gene_moments(counts, library)[0] / counts.shape[0]
    excluded = weights.any(axis=1)
    rng = np.random.default_rng(0)
    controls = control_genes(mean, weights > 0, excluded, n_bins=10, n_controls=50, rng=rng)
    return signature_scores(counts, library, np.zeros(N_GENES), np.ones(N_GENES), weights - controls)


def ucell(counts: sparse.csr_matrix, weights: np.ndarray) -> np.ndarray:
    return rank_scores(counts, weights > 0, max_rank=int(np.median(detected_genes(counts))))


def by_scanpy(normalised: ad.AnnData, sets: list[np.ndarray]) -> None:
    for genes in sets:
        sc.tl.score_genes(normalised, list(normalised.var_names[genes]), n_bins=10)


def by_ulm(normalised: ad.AnnData, net: pd.DataFrame) -> None:
    dc.mt.ulm(normalised, net, tmin=1, empty=False)


def normalised(counts: sparse.csr_matrix) -> ad.AnnData:
    """What scanpy and decoupler start from; making it is not timed, although our ways pay for it."""
    obs = pd.DataFrame(index=np.arange(counts.shape[0]).astype(str))
    var = pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)])
    return ad.AnnData(log1p_cp10k(counts, library_size(counts)), obs=obs, var=var)


def main() -> None:
    parser = record_options(__doc__, "score", quick="100k cells")
    args = parser.parse_args()
    n, n_ulm, repeats = (100_000, 20_000, 3) if args.quick else (1_000_000, 100_000, 3)
    rng = np.random.default_rng(0)
    counts = slide(n, N_GENES, seed=0)
    sets = [rng.choice(N_GENES, SIZE, replace=False) for _ in range(N_SIGNATURES)]
    weights = np.zeros((N_GENES, N_SIGNATURES))
    for column, genes in enumerate(sets):
        weights[genes, column] = 1 / SIZE
    adata = normalised(counts)
    part = adata[:n_ulm].copy()
    net = pd.DataFrame(
        [(str(s), adata.var_names[g]) for s, genes in enumerate(sets) for g in genes], columns=["source", "target"]
    )
    ways: dict[str, Callable[[], object]] = {
        "zscore": lambda: zscore(counts, weights),
        "score_genes": lambda: score_genes(counts, weights),
        "ucell": lambda: ucell(counts, weights),
        "prototype": lambda: prototype(counts, sets),
        "scanpy score_genes": lambda: by_scanpy(adata, sets),
        "decoupler ulm": lambda: by_ulm(part, net),
    }
    for name in ("zscore", "score_genes", "ucell", "decoupler ulm"):
        ways[name]()  # compile
    output = n * N_SIGNATURES * 4
    memory = {name: (extra_bytes(way) - output) / 1e6 for name, way in ways.items() if name != "decoupler ulm"}
    seconds = cpu_seconds(ways, repeats)
    result = {
        "x prototype": seconds["prototype"] / seconds["zscore"],
        "x score_genes": seconds["scanpy score_genes"] / seconds["zscore"],
        "x score_genes, same method": seconds["scanpy score_genes"] / seconds["score_genes"],
        "x ulm per cell": (seconds["decoupler ulm"] / n_ulm) / (seconds["zscore"] / n),
        "extra MB beyond the scores, at most": max(memory[name] for name in ("zscore", "score_genes", "ucell")),
        "largest difference to the prototype": float(np.abs(zscore(counts, weights) - prototype(counts, sets)).max()),
    }
    for name, spent in seconds.items():
        print(f"{name:20} {1e3 * spent:10.1f} ms {memory.get(name, np.nan):10.1f} MB")
    for name, value in result.items():
        print(f"{name:38} {value:8.4g}" + (f" (goal {GOALS[name]:g})" if name in GOALS else ""))
    record = {"n_cells": n, "n_cells_ulm": n_ulm, "seconds": seconds, "extra_mb": memory, **result, "goals": GOALS}
    args.json.write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
