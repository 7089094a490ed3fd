"""Cells per second through the autoencoder, beside the prototype's loop, the matrix products alone, and SCVI.

    python benchmarks/autoencoder.py [--quick] [--json FILE] [--large | --only-large]

All ways train the network 500-1024-256-32 on the same synthetic counts with batches of 512 and the same number of
epochs, one after another in this process, several rounds. ``--large`` also trains one epoch on a cohort larger than
memory (20 slides x 500,000 cells x 500 genes, four slides made on the fly and linked five times) in a process of its
own, and reports its peak memory.

Written down before: the prototype densifies every cell and z-scores it up front, and pays for a Python object per cell
in its loader; batches made straight from CSR should cost about a microsecond per cell, so that the matrix products are
what is left. Expected: 2 x the prototype where the faster float32 library helps, no gain in arithmetic where it does
not; bf16 only on processors that compute it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse
from torch import nn

import spatialsig as sp
from spatialsig.data.cells import StoredCells
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.nn.device import fast_matmul, training_precision
from spatialsig.stats.expression import gene_moments, library_size, scaler_from_moments
from spatialsig.train import fit_autoencoder
from spatialsig.train.cells import CellBatches

N_GENES, BATCH = 500, 512
WIDTHS = (N_GENES, 1024, 256, 32, 256, 1024, N_GENES)
GOALS = {"ours / prototype": 2.0, "ours / products": 0.65, "loader, cells per s": 800_000, "large, peak GiB": 3.0}


def make_counts(n_cells: int, seed: int, per_cell: float = 150.0) -> sparse.csr_matrix:
    """Negative-binomial counts of eight cell types, CSR, made in blocks."""
    panel, rng = np.random.default_rng(0), np.random.default_rng(seed)
    types = panel.gamma(0.35, 1.0, (8, N_GENES))
    types *= per_cell / types.sum(axis=1, keepdims=True)
    parts = []
    for first in range(0, n_cells, 20_000):
        n = min(20_000, n_cells - first)
        rate = types[rng.integers(0, 8, n)] * rng.lognormal(0, 0.45, (n, 1))
        parts.append(sparse.csr_matrix(rng.poisson(rng.gamma(1.5, rate / 1.5)).astype(np.float32)))
    return sparse.vstack(parts, format="csr")


def scaler(counts: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    return scaler_from_moments(*gene_moments(counts, library_size(counts)), counts.shape[0])


def plain_network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(WIDTHS)):
        layers += [nn.Linear(a, b)] + ([nn.ReLU()] if i not in (2, 5) else [])
    return nn.Sequential(*layers)


class OneCell(torch.utils.data.Dataset):
    """The prototype's dataset: a dense matrix, one cell at a time."""

    def __init__(self, z: np.ndarray) -> None:
        self.z = z

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.z[index])


def prototype(counts: sparse.csr_matrix, epochs: int) -> tuple[float, float]:
    """Seconds and last loss of the prototype's way."""
    torch.manual_seed(0)
    start = time.perf_counter()
    dense = counts.toarray()
    x = np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    z = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)
    net = plain_network()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    loader = torch.utils.data.DataLoader(OneCell(z), batch_size=BATCH, shuffle=True, drop_last=True)
    for _ in range(epochs):
        losses = []
        for batch in loader:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(net(batch), batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    return time.perf_counter() - start, float(np.mean(losses))


def ours(counts: sparse.csr_matrix, epochs: int) -> tuple[float, float]:
    """Seconds and last loss of :func:`fit_autoencoder` with the same network, scaler included."""
    start = time.perf_counter()
    mean, std = scaler(counts)
    genes = [f"G{i}" for i in range(N_GENES)]
    config = AutoencoderConfig(linear_path=False, dropout=0.0)
    _, history = fit_autoencoder(
        [counts], genes=genes, mean=mean, std=std, held_out=0, config=config, max_epochs=epochs, batch_size=BATCH
    )
    return time.perf_counter() - start, float(history["train_loss"].iloc[-1])


def products(n_cells: int) -> float:
    """Seconds of the matrix products alone, forward and backward, in the same arithmetic."""
    x = torch.randn(BATCH, N_GENES)
    weights = [torch.randn(b, a) for a, b in itertools.pairwise(WIDTHS)]
    with (
        fast_matmul(),
        torch.autocast("cpu", torch.bfloat16, enabled=training_precision(torch.device("cpu")) != "32-true"),
    ):
        start = time.perf_counter()
        for _ in range(n_cells // BATCH):
            h, inputs = x, []
            for w in weights:
                inputs.append(h)
                h = h @ w.T
            for i, w in reversed(list(enumerate(weights))):
                h.T @ inputs[i]
                h = h @ w if i else h
        return time.perf_counter() - start


def loader_alone(counts: sparse.csr_matrix) -> tuple[float, float]:
    """Cells per second, and per second of CPU time, of batches that nobody trains on; medians of five epochs."""
    mean, std = scaler(counts)
    batches = CellBatches([counts], mean=mean, std=std, batch_size=BATCH)
    next(iter(batches))
    seconds = []
    for _ in range(5):
        wall, cpu = time.perf_counter(), time.process_time()
        n = sum(len(batch.z) for batch in batches)
        seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = np.median(seconds, axis=0)
    return float(n / wall), float(n / cpu)


def scvi(counts: sparse.csr_matrix, epochs: int) -> float | None:
    """Cells per second of SCVI with layers of a like size; None where scvi-tools is not installed."""
    try:
        from scvi.model import SCVI
    except ImportError:
        return None
    adata = ad.AnnData(counts)
    SCVI.setup_anndata(adata)
    model = SCVI(adata, n_hidden=512, n_latent=32, n_layers=2)
    start = time.perf_counter()
    model.train(max_epochs=epochs, batch_size=BATCH, accelerator="cpu", enable_progress_bar=False, train_size=1.0)
    return epochs * counts.shape[0] / (time.perf_counter() - start)


def large(folder: Path, n_slides: int, n_cells: int) -> dict[str, float]:
    """One epoch over a cohort larger than memory, in this process."""
    groups = []
    for i in range(4):
        path = folder / f"{i}.zarr"
        var = pd.DataFrame(index=[f"G{j}" for j in range(N_GENES)])
        ad.AnnData(make_counts(n_cells, seed=i, per_cell=80), var=var).write_zarr(path)
        groups.append(path / "X")
    command = [sys.executable, __file__, "--large-child", str(folder), "--slides", str(n_slides)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(found.stdout.strip().splitlines()[-1])


def large_child(folder: Path, n_slides: int) -> dict[str, float]:
    sp.settings.progress = False
    sources = [StoredCells(folder / f"{i % 4}.zarr" / "X", np.arange(N_GENES)) for i in range(n_slides)]
    mean, std = scaler(sources[0].read(0, 50_000))
    genes = [f"G{i}" for i in range(N_GENES)]
    start = time.perf_counter()
    _, history = fit_autoencoder(
        sources,
        genes=genes,
        mean=mean,
        std=std,
        config=AutoencoderConfig(),
        max_epochs=1,
        batch_size=2048,
        patience=None,
    )
    cells = sum(source.n_cells for source in sources)
    return {
        "cells": cells,
        "counts_gib": sum(source.nnz for source in sources) * 8 / 2**30,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "cells_per_s": cells / (time.perf_counter() - start),
        "loss": float(history["train_loss"].iloc[-1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--only-large", action="store_true", help="record this part beside those of an earlier run")
    parser.add_argument("--large-child", type=Path)
    parser.add_argument("--slides", type=int, default=20)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "autoencoder.json")
    arguments = parser.parse_args()
    if arguments.large_child:
        print(json.dumps(large_child(arguments.large_child, arguments.slides)))
        return
    sp.settings.progress = False
    known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    result = known if arguments.only_large else {"large": known.get("large")} | speeds(quick=arguments.quick)
    if arguments.large or arguments.only_large:
        size = (4, 20_000) if arguments.quick else (20, 500_000)
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            result["large"] = large(Path(folder), *size)
    result["goals"] = GOALS
    print(json.dumps(result, indent=2))
    if not arguments.quick:
        arguments.json.parent.mkdir(exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def speeds(*, quick: bool) -> dict[str, object]:
    """Every way on the same counts, in turn."""
    n_cells, epochs, rounds = (8_192, 2, 1) if quick else (65_536, 3, 3)
    counts = make_counts(n_cells, seed=1)
    ours(counts[:2048], 1), prototype(counts[:2048], 1), products(2048)
    times: dict[str, list[float]] = {"prototype": [], "ours": [], "products": []}
    losses: dict[str, float] = {}
    for _ in range(rounds):
        for name, way in (("prototype", prototype), ("ours", ours)):
            seconds, losses[name] = way(counts, epochs)
            times[name].append(epochs * n_cells / seconds)
        times["products"].append(n_cells / products(n_cells))
    speed = {name: float(np.median(values)) for name, values in times.items()}
    alone = make_counts(4 * n_cells, seed=2)
    per_s, per_cpu_s = loader_alone(alone)
    return {
        "cells": n_cells,
        "epochs": epochs,
        "threads": torch.get_num_threads(),
        "precision": training_precision(torch.device("cpu")),
        "cells_per_s": speed,
        "last_loss": losses,
        "ours / prototype": speed["ours"] / speed["prototype"],
        "ours / products": speed["ours"] / speed["products"],
        "loader, cells per s": per_s,
        "loader, cells per CPU s": per_cpu_s,
        "loader, counts per cell": alone.nnz / alone.shape[0],
        "scvi, cells per s": scvi(counts, 1),
    }


if __name__ == "__main__":
    main()
