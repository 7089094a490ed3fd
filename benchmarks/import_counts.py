"""Memory and time of importing the counts of a whole-transcriptome region, both layouts of Atera.

A sparse matrix of known sums is written as ``cell_feature_matrix.zarr.zip`` and as ``cell_feature_matrix.h5``; each is
read in a process of its own, into an object and into a store. The peak beyond the loaded modules is given in sizes of
the matrix: float32 counts and int32 indices, 8 bytes per value.

    python benchmarks/import_counts.py [--cells 200000 --genes 2000 --per-cell 300] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem
from machine import machine

HERE = Path(__file__).resolve().parent
N_CONTROLS = 100
CHUNK = 2**17  # values
GOAL_SIZES = 1.5
GOALS = {"peak, sizes of the matrix": GOAL_SIZES}


def planted(n_cells: int, n_genes: int, per_cell: int) -> tuple[dict[str, np.ndarray], pd.DataFrame, pd.DataFrame]:
    """Parts of a CSR matrix, its cells and its features; every tenth value is of a control."""
    rng = np.random.default_rng(0)
    per_row = rng.integers(per_cell // 2, per_cell * 3 // 2, n_cells)
    indptr = np.concatenate([[0], np.cumsum(per_row)])
    n_features = n_genes + N_CONTROLS
    # ascending in every row, and none twice: steps of 1 to 3 from a random start, as far as there are features
    steps = rng.integers(1, max(n_features // (2 * per_cell), 1) + 1, indptr[-1])
    steps[indptr[:-1]] = 0
    ends = np.cumsum(steps)
    indices = (ends - np.repeat(ends[indptr[:-1]], per_row)).astype(np.int32)
    data = rng.integers(1, 6, indptr[-1], dtype=np.int32)
    kinds = np.array(["Gene Expression"] * n_genes + ["Negative Control Probe"] * N_CONTROLS)
    kinds = kinds[rng.permutation(n_features)]
    sums = np.add.reduceat(data * (kinds == "Gene Expression")[indices], indptr[:-1])
    xy = rng.uniform(0, 9000, (n_cells, 2))
    letters = np.array(
        [f"{i:08x}".translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop")) for i in range(n_cells)]
    )
    cells = pd.DataFrame(
        {
            "cell_id": np.char.add(letters, "-1"),
            "x": xy[:, 0],
            "y": xy[:, 1],
            "transcript_counts": sums,
            "cell_area": 80.0,
        }
    )
    names = [f"G{i}" for i in range(n_features)]
    features = pd.DataFrame(
        {"feature_id": [f"E{i}" for i in range(n_features)], "feature_name": names, "feature_type": kinds}
    )
    return {"data": data, "indices": indices, "indptr": indptr}, cells, features


def write_zarr(folder: Path, parts: dict[str, np.ndarray], cells: pd.DataFrame, features: pd.DataFrame) -> None:
    """A bundle of the official layout."""
    from spatialsig.datasets.synthetic.bundle.matrix_zarr import pack

    (folder / "experiment.spatial").write_text(json.dumps({"pixel_size": 0.2125}))
    with tempfile.TemporaryDirectory(dir=folder.parent) as unpacked:
        root = zarr.create_group(unpacked, zarr_format=2)
        obs = cells.rename(columns={"x": "centroid_column", "y": "centroid_row", "cell_id": "barcode"}).set_index(
            "barcode"
        )
        write_elem(root, "obs", obs)
        write_elem(root, "var", features.set_index("feature_name"))
        matrix = root.create_group(
            "X", attributes={"shape": [len(cells), len(features)], "encoding-type": "csr_matrix"}
        )
        for name, values in parts.items():
            matrix.create_array(name, data=values, chunks=(CHUNK,))
        pack(Path(unpacked), folder / "cell_feature_matrix.zarr.zip")


def write_h5(folder: Path, parts: dict[str, np.ndarray], cells: pd.DataFrame, features: pd.DataFrame) -> None:
    """A bundle of the preview's layout."""
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.2125}))
    places = cells.rename(columns={"x": "x_centroid", "y": "y_centroid"})
    places.to_parquet(folder / "cells.parquet", index=False)
    with h5py.File(folder / "cell_feature_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        for name, values in parts.items():
            kind = np.int32 if name == "data" else np.int64
            group.create_dataset(
                name, data=values.astype(kind), chunks=(CHUNK,), compression="gzip", compression_opts=1
            )
        group["barcodes"] = cells["cell_id"].to_numpy().astype("S")
        for ours, theirs in (("feature_id", "id"), ("feature_name", "name"), ("feature_type", "feature_type")):
            group[f"features/{theirs}"] = features[ours].to_numpy().astype("S")


def status_mib(field: str) -> float:
    """Memory of this process; ``ru_maxrss`` would begin with that of the process which started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 2**10


def child(bundle: Path, out: Path | None) -> None:
    """Read once and print what it took; modules are loaded before the clock starts."""
    import spatialdata_io  # noqa: F401

    import spatialsig as sp
    from spatialsig.io import _xenium  # noqa: F401

    sp.settings.progress = False
    before = status_mib("VmRSS")
    start = time.perf_counter()
    sdata = sp.io.read_atera(bundle, out=out)
    seconds = time.perf_counter() - start
    counts = sdata["table"].X
    peak = status_mib("VmHWM")
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak_mib": peak - before,
                "values": int(counts.nnz),
                "sum": float(counts.sum(dtype=float)),
            }
        )
    )


def measure(bundle: Path, out: Path | None, size_mib: float, truth: float) -> dict[str, float]:
    """Read in a fresh process, and check the counts."""
    command = [sys.executable, __file__, "--child", str(bundle), *([str(out)] if out else [])]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    if found.pop("sum") != truth:
        msg = f"{bundle} was not read as it was written"
        raise RuntimeError(msg)
    rate = found["values"] / found["seconds"] / 1e6
    return {name: round(value, 2) for name, value in found.items()} | {
        "sizes": round(found["peak_mib"] / size_mib, 2), "million_values_per_s": round(rate, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--per-cell", type=int, default=300, help="values per cell")
    parser.add_argument("--child", nargs="+", type=Path)
    parser.add_argument("--json", type=Path, default=HERE / "results" / "import_counts.json")
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.child[1] if len(options.child) > 1 else None)
        return
    report: dict[str, object] = {"machine": machine(), "cells": options.cells, "genes": options.genes, "goals": GOALS}
    with tempfile.TemporaryDirectory() as folder:
        parts, cells, features = planted(options.cells, options.genes, options.per_cell)
        truth, size_mib = float(cells["transcript_counts"].sum()), 8 * len(parts["data"]) / 2**20
        report["matrix_mib"] = round(size_mib, 1)
        for name, write in (("zarr", write_zarr), ("h5", write_h5)):
            bundle = Path(folder, name)
            bundle.mkdir()
            write(bundle, parts, cells, features)
            out = Path(folder, "out", f"{name}.zarr")
            report[name] = {
                "object": measure(bundle, None, size_mib, truth),
                "store": measure(bundle, out, size_mib, truth),
            }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
