"""Memory and time of every function on slides of ten thousand to a million cells.

    python benchmarks/memory.py [--quick] [--genes N] [--cells N ...]

Each function runs in a process of its own, once on a small slide (which imports and compiles), then on the large one: the rise of
the peak of the resident memory above what the process held before, and CPU time. Slides are made in blocks; their H&E is that of a
toy slide, over which the cells lie many times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from machine import keep_record, machine, record_options
from scipy import sparse

NO_COUNTS = ("find_tissue", "make_patches", "normalize_stain", "qc_patches", "assign_cells", "split")
GOALS = {
    "extra_mib": 1024,
    "extra_mib_without_counts": 150,
    "times_of_smallest_without_counts": 2.0,
    "slope": [0.9, 1.1],
}
PATCHES = {"patch_px": 28, "um_per_px": 2.0}


def calls() -> dict[str, object]:
    """Functions in their order on a slide: each leaves what the next ones need."""
    import spatialsig as sp

    model = Path(os.environ.get("MEMORY_MODEL", ""))
    return {
        "filter_cells": lambda path: sp.pp.filter_cells(path, min_counts=1, min_genes=1),
        "split": lambda path: sp.pp.split(path, by="block", block_um=100, buffer_um=0, n_folds=2),
        "find_tissue": lambda path: sp.pp.find_tissue(path),
        "make_patches": lambda path: sp.pp.make_patches(path, **PATCHES),
        "normalize_stain": lambda path: sp.pp.normalize_stain(path),
        "qc_patches": lambda path: sp.pp.qc_patches(path),
        "assign_cells": lambda path: sp.pp.assign_cells(path),
        "highly_variable_genes": lambda path: sp.pp.highly_variable_genes(path, n_top_genes=100),
        "score_cells": lambda path: sp.tl.score_cells(path, "seed"),
        "score_cells ucell": lambda path: sp.tl.score_cells(path, "seed", method="ucell", key_added="ucell"),
        "embed_cells": lambda path: sp.tl.embed_cells(path, sp.models.Autoencoder.load(model)),
        "aggregate_patches": lambda path: sp.tl.aggregate_patches(path, min_cells=3),
        "pseudobulk": lambda path: sp.tl.aggregate_patches(path, stat="pseudobulk", min_cells=3, key_added="bulk"),
        "noise_ceiling": lambda path: sp.tl.noise_ceiling(path),
        "train_vit": lambda path: sp.tl.train_vit(path, use_rep=None, max_epochs=1, batch_size=64),
        "status": lambda path: sp.io.status(path),
    }


def make_slide(path: Path, n_cells: int, n_genes: int) -> None:
    """A toy slide whose cells, and further genes of few counts, are repeated up to the numbers wanted."""
    import spatialsig as sp

    slide = sp.datasets.toy(size_um=400)
    cells = slide["table"]
    rng = np.random.default_rng(0)
    rest = max(n_genes - cells.n_vars, 0)
    blocks, n = [], 0
    while n < n_cells:
        rows = rng.integers(0, cells.n_obs, min(20_000, n_cells - n))
        own = sparse.csr_matrix(cells.X)[rows]
        further = sparse.random(len(rows), rest, density=0.08, format="csr", random_state=rng, dtype=np.float32)
        further.data[:] = 1
        blocks.append((sparse.hstack([own, further], format="csr", dtype=np.float32), rows))
        n += len(rows)
    import anndata as ad
    import pandas as pd

    rows = np.concatenate([rows for _, rows in blocks])
    obs = cells.obs.iloc[rows].copy()
    obs.index = pd.Index([f"cell-{k}" for k in range(n_cells)])
    obs["cell_id"] = obs.index.to_numpy()
    names = [*cells.var_names, *(f"GENE{k}" for k in range(rest))]
    table = ad.AnnData(sparse.vstack([b for b, _ in blocks], format="csr"), obs=obs, var=pd.DataFrame(index=names))
    table.obsm["spatial"] = cells.obsm["spatial"][rows] + rng.normal(0, 1, (n_cells, 2))
    del slide.shapes["cell_circles"], slide.tables["table"]
    slide.tables["table"] = table
    sp.io.write(slide, path)


def peak_bytes() -> int:
    """Peak of the resident memory since it was last forgotten, as the kernel counts it (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def resident_bytes() -> int:
    """Resident memory now."""
    return os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])


def child(name: str, small: str, large: str) -> None:
    """Run one function on the small slide, then measured on the large one."""
    import gc

    import spatialsig as sp

    warnings.simplefilter("ignore")
    sp.settings.progress = False
    run = calls()[name]
    run(Path(small))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident_bytes(), time.process_time()
    run(Path(large))
    print(json.dumps({"cpu_s": time.process_time() - start, "extra_mib": max(peak_bytes() - before, 0) / 2**20}))


def measure(names: list[str], small: Path, large: Path) -> dict[str, dict[str, float]]:
    """Each function on the large slide, in their order."""
    found = {}
    for name in names:
        done = subprocess.run(
            [sys.executable, __file__, "--child", name, str(small), str(large)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            msg = f"{name}: {done.stderr[-2000:]}"
            raise SystemExit(msg)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{large.stem:>12} {name:<22} {found[name]['cpu_s']:8.2f} s {found[name]['extra_mib']:8.0f} MiB", flush=True
        )
    return found


def main() -> None:
    """Measure, print and record."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = record_options(__doc__, "memory", quick="1,000 and 10,000 cells")
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--cells", type=int, nargs="*")
    args = parser.parse_args()
    import spatialsig as sp

    warnings.simplefilter("ignore")
    sp.settings.progress = False
    sizes = args.cells or ([1_000, 10_000] if args.quick else [10_000, 100_000, 1_000_000])
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        model = sp.tl.train_autoencoder(
            sp.datasets.toy(size_um=200), signatures="seed", n_latent=16, hidden=(64,), max_epochs=1, test_fold=None
        )
        model.save(root / "ae")
        os.environ["MEMORY_MODEL"] = str(root / "ae")
        names = list(calls())
        for n in sizes:
            make_slide(root / "small.zarr", 2_000, args.genes)
            make_slide(root / f"{n}.zarr", n, args.genes)
            found[str(n)] = measure(names, root / "small.zarr", root / f"{n}.zarr")
            for name in ("small", str(n)):
                subprocess.run(["rm", "-rf", str(root / f"{name}.zarr")], check=True)
    first, last = (found[str(n)] for n in (sizes[0], sizes[-1]))
    decades = np.log10(sizes[-1] / sizes[0])
    result: dict[str, object] = {
        "machine": machine(),
        "n_genes": args.genes,
        "cells": found,
        "most_extra_mib": max((row["extra_mib"], name) for name, row in last.items()),
        "most_extra_mib_without_counts": max((last[name]["extra_mib"], name) for name in NO_COUNTS),
        "most_times_without_counts": max((last[name]["cpu_s"] / first[name]["cpu_s"], name) for name in NO_COUNTS),
        "slopes": {name: float(np.log10(last[name]["cpu_s"] / first[name]["cpu_s"]) / decades) for name in last},
        "goals": GOALS,
    }
    keep_record(args.json, result, shown=[key for key in result if key.startswith("most")])


if __name__ == "__main__":
    main()
