"""`spatialsig run` killed by SIGKILL at random moments, compared with a run that was left alone: equal tables, and what a kill costs.

    python benchmarks/run_kills.py [--quick]

The run imports three synthetic bundles and one H&E alone, trains the autoencoder, an ensemble of two and every fold of a
cross-validation, predicts, evaluates and writes the report. Each attempt is killed, with all its processes, a random share of the
run's length after its start, until ten kills have hit; then it is left to end. `seconds_per_kill` is what a kill added to the time of
all attempts beyond a start of Python: at most a slide, or the `checkpoint_minutes` of a training, is done again.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from machine import keep_record, machine, record_options
from scipy import sparse

import spatialsig as sp

GOALS = {"different": 0, "runs_that_ended": "all"}
CHECKPOINT_MINUTES = 0.02
STARTUP_S = 4.0  # of Python, and of reading what is done
TRAINER = {"checkpoint_minutes": CHECKPOINT_MINUTES}
VIT = {"dim": 16, "depth": 1, "heads": 2, "mlp_dim": 16, "stem": [4, 4], "stem_blocks": [0, 0]}


def write_config(path: Path, bundles: Path, out: Path) -> None:
    """Configuration of all steps but those that need weights of others."""
    genes = sp.io.read_signatures("seed")
    config = {
        "bundles": str(bundles), "out": str(out), "split": {"n_folds": 3}, "genes": {"n_top_genes": 60},
        "patches": {"patch_px": 28, "um_per_px": 2.0, "stride_um": 28.0, "min_tissue": 0.1, "normalize_stain": True},
        "labels": {"signatures": {name: list(genes[name]) for name in ("Immune_T", "Fibroblast")}, "min_cells": 3},
        "autoencoder": {"max_epochs": 4, "hidden": [32], "n_latent": 8, "trainer": TRAINER},
        "vit": {"max_epochs": 4, "batch_size": 16, "size": VIT, "validation_fold": 1, "trainer": TRAINER},
        "tissue": {"min_area_um2": 100.0}, "patch_qc": True, "ensemble": {"n_members": 2}, "calibration": {"coverage": 0.5},
        "cross_validation": {"refit_autoencoder": True},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(config))


def attempt(config: Path, seconds: float | None) -> tuple[bool, float, str]:
    """Start the run, kill it after ``seconds``: whether it ended by itself, how long it took, the last step it named."""
    with tempfile.TemporaryFile("w+") as said:
        start = time.monotonic()
        command = [sys.executable, "-m", "spatialsig", "run", str(config)]
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            code = child.wait()
        took = time.monotonic() - start
        said.seek(0)
        text = said.read()
    if code not in (0, -signal.SIGKILL):
        msg = f"the run ended with exit code {code}:\n{text[-2000:]}"
        raise RuntimeError(msg)
    steps = re.findall(r"^(.*\w.*) \.\.\.$", text, flags=re.MULTILINE)
    return code == 0, took, steps[-1].strip() if steps else "before the first step"


def dense(array: Any) -> np.ndarray:
    """A sparse matrix or a frame as an array."""
    return np.asarray(array.toarray() if sparse.issparse(array) else array)


def contents(out: Path) -> dict[str, str]:
    """Hash of every table, shape, csv and weight that a run leaves."""
    found = {str(path.relative_to(out)): pd.read_csv(path).to_csv() for path in sorted(out.glob("*.csv"))}
    found |= {str(path.relative_to(out)): path.read_bytes().hex() for path in sorted(out.rglob("*.safetensors"))}
    for store in sorted((out / "stores").glob("*.zarr")):
        sdata = sp.io.read(store)
        for key, table in sdata.tables.items():
            arrays = {"X": table.X, **table.obsm, **table.layers}
            found |= {f"{store.stem} {key} {name}": dense(of).tobytes().hex() for name, of in arrays.items()}
            found[f"{store.stem} {key} obs"] = table.obs.to_csv()
        for key, shapes in sdata.shapes.items():
            found[f"{store.stem} {key}"] = shapes.to_wkt().to_csv()
    return {name: hashlib.sha256(value.encode()).hexdigest() for name, value in found.items()}


def one_round(seed: int, n_kills: int, whole_seconds: float, scratch: Path, truth: dict[str, str]) -> dict[str, object]:
    """Kill one run ``n_kills`` times and let it end."""
    rng, out = np.random.default_rng(seed), scratch / f"out{seed}"
    config = scratch / f"config{seed}.yaml"
    write_config(config, scratch / "bundles" / "bundles.csv", out)
    spent, at, ended = 0.0, [], False
    while len(at) < n_kills and not ended:
        ended, took, step = attempt(config, float(rng.uniform(0.05, 2.0) * whole_seconds / n_kills) + STARTUP_S)
        spent += took
        at += [] if ended else [step]
    if not ended:
        ended, took, _ = attempt(config, None)
        spent += took
    found = contents(out)
    different = sorted(name for name in truth.keys() | found.keys() if truth.get(name) != found.get(name))
    return {
        "killed_in": at, "ended": ended, "different": different, "n_compared": len(truth),
        "seconds_per_kill": (spent - whole_seconds) / max(1, len(at)) - STARTUP_S,
    }  # fmt: skip


def main() -> None:
    """Measure and record."""
    options = record_options(__doc__, "run_kills", quick="2 kills of one run").parse_args()
    warnings.simplefilter("ignore")
    n_rounds, n_kills, size_um = (1, 2, 260.0) if options.quick else (2, 10, 260.0)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        sp.datasets.synthetic_xenium(scratch / "bundles", n_slides=4, size_um=size_um, seed=3)
        manifest = scratch / "bundles" / "bundles.csv"
        rows = pd.read_csv(manifest)
        rows.loc[3, ["bundle", "he_alignment"]] = np.nan  # an H&E alone
        rows.to_csv(manifest, index=False)
        write_config(scratch / "whole.yaml", manifest, scratch / "whole")
        _, whole_seconds, _ = attempt(scratch / "whole.yaml", None)
        truth = contents(scratch / "whole")
        rounds = [one_round(seed, n_kills, whole_seconds, scratch, truth) for seed in range(n_rounds)]
    record: dict[str, object] = {
        "machine": machine(), "goals": GOALS, "checkpoint_minutes": CHECKPOINT_MINUTES, "seconds_undisturbed": whole_seconds,
        "n_kills": sum(len(each["killed_in"]) for each in rounds), "n_ended": sum(bool(each["ended"]) for each in rounds),
        "n_different": sum(len(each["different"]) for each in rounds), "rounds": rounds,
    }  # fmt: skip
    keep_record(options.json, record, shown=["seconds_undisturbed", "n_kills", "n_ended", "n_different", "rounds"])


if __name__ == "__main__":
    main()
