"""The benchmark of interrupted writers with small numbers, in a process that has not used Zarr yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]


def run(tmp_path: Path, script: str, *arguments: str) -> dict:
    out = tmp_path / "result.json"
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / script), *arguments, "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert out.exists(), done.stderr[-2000:]
    return json.loads(out.read_text())


def test_killed_writers_leave_old_or_new_and_may_try_again(tmp_path) -> None:
    found = run(tmp_path, "soak_store.py", "--n", "30", "--parts", "kill")
    assert found["kill"]["n"] == sum(found["kill"]["states"].values()) == 30
    assert found["kill"]["failures"] == []


def test_a_crash_at_every_call_leaves_old_or_new(tmp_path) -> None:
    found = run(tmp_path, "soak_store.py", "--parts", "crash", "--actions", "attrs", "add")
    for crash in found["crash"]:
        assert crash["failures"] == []
        assert crash["states_kept"] == sum(crash["states"].values()) >= 2


def test_a_full_disk_at_every_call_changes_nothing(tmp_path) -> None:
    found = run(tmp_path, "soak_store.py", "--parts", "full", "--actions", "attrs")
    for full in found["full"]:
        assert full["failures"] == []
        assert full["tried"] > 10


def test_readers_see_whole_elements_while_another_process_commits(tmp_path) -> None:
    found = run(tmp_path, "soak_store.py", "--parts", "readers", "--commits", "8")["readers"]
    assert found["writer"] == "exit 0"
    assert found["torn"] == []
    assert found["reads"] > 2
    assert set(found["seen"]) <= {1, 2}


def test_every_flipped_bit_is_found_and_its_element_named(tmp_path) -> None:
    found = run(tmp_path, "bitflips.py", "--n", "200")
    assert found["n"] == 200
    assert found["missed"] == found["misnamed"] == []
