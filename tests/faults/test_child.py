"""Faults that could end the interpreter, in a process of their own; and random changed bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .conftest import LAYOUTS, ZARR
from .table import put

ROOT = Path(__file__).parents[2]
LIMIT_S = 240
READ = """
import sys
import spatialsig as sp
from spatialsig.errors import InputError
for path in sys.argv[1:]:
    try:
        sp.io.read_xenium(path, boundaries=True)
    except InputError as error:
        print("InputError", error)
    else:
        print("read", path)
"""
DEADLY = {
    "index far above the features": {"indices": lambda v: put(v, len(v) // 2, 2**40)},
    "index far below 0": {"indices": lambda v: put(v, len(v) // 2, -(2**40))},
    "all indices out of range": {"indices": lambda v: v + 2**31},
    "indptr far beyond the values": {"indptr": lambda v: np.r_[v[:-1], 2**50]},
    "unsigned indices": {"indices": lambda v: put(v.astype(np.uint64), 0, 2**63)},
}


# counts as HDF5 and as zipped Zarr; the other layouts differ in other files
@pytest.mark.parametrize("layouts", [("4.0", ZARR), pytest.param(LAYOUTS, marks=pytest.mark.slow)], ids=["two", "all"])
def test_what_could_kill_the_process_is_an_error(layouts, broken, tmp_path) -> None:
    paths = []
    for version in layouts:
        for name, fields in DEADLY.items():
            bundle = broken(version)
            bundle.matrix(**fields)
            paths.append(str(bundle.path.rename(tmp_path / f"{version} {name}")))
    done = subprocess.run(
        [sys.executable, "-c", READ, *paths], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    lines = done.stdout.splitlines()
    assert len(lines) == len(paths)
    for line, path in zip(lines, paths, strict=True):
        assert line.startswith("InputError"), line
        assert "cell_feature_matrix." in line, line
        assert path in line


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize("n", [200])
def test_random_bytes_never_crash_and_never_change_anything_silently(n, tmp_path) -> None:
    report = tmp_path / "report.json"
    script = ROOT / "benchmarks" / "fuzz_bundle.py"
    command = [sys.executable, str(script), "--n", str(n), "--seed", "7", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(report.read_text())
    assert found["bad"] == []
    assert sum(found["checked"].values()) + sum(found["unchecked"].values()) == n
    assert found["checked"]["typed"] > n / 10  # the changes do hurt
    assert found["checked"]["equal"] > n / 10
