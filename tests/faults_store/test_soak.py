"""The benchmark of interrupted writers with small numbers, in processes that have not used Zarr yet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MEMORY = Path("/dev/shm")  # a killed process leaves the same files there, and nothing waits for a disk

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
]

KILLED = ["attrs", "parts", "add", "replace", "create"]
# side by side, as a small machine has two cores
FAULTS = ["crash", "full", "limit", "space", "readers", "flips"]
# writers killed, writers of spatialdata killed, every how many-th limit, commits read meanwhile, bits flipped, actions that fail
Numbers = tuple[int, int, int, int, int, str]
FEW: Numbers = (4, 3, 5, 4, 30, "attrs")
MANY: Numbers = (30, 6, 5, 8, 200, "attrs add")


def runs(n: int, plain: int, coarse: int, commits: int, flips: int, actions: str) -> dict[str, list[str]]:
    return {
        "kill": f"--n {n} --parts kill second plain --plain {plain} --actions".split() + KILLED,
        # `make soak-store` fails every call of every action; here a sample of the calls, and all renames
        "others": [
            *("--parts", *FAULTS, "--actions", *actions.split()),
            *f"--coarse {coarse} --sample 2 --commits {commits} --flips {flips}".split(),
        ],
    }


def start(name: str, options: list[str], directory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "soak_store.py"), *options]
    space = os.environ | ({"TMPDIR": str(MEMORY)} if os.access(MEMORY, os.W_OK) else {})
    out = ["--json", str(directory / f"{name}.json")]
    return subprocess.Popen([*command, *out], env=space, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module", params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def numbers(request) -> Numbers:
    return request.param


@pytest.fixture(scope="module")
def found(numbers, tmp_path_factory) -> dict[str, Any]:
    directory = tmp_path_factory.mktemp("soak")
    results: dict[str, Any] = {}
    running = {name: start(name, options, directory) for name, options in runs(*numbers).items()}
    try:
        errors = {name: process.communicate(timeout=500)[1] for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    for name, error in errors.items():
        assert (directory / f"{name}.json").exists(), error[-2000:]
        results |= json.loads((directory / f"{name}.json").read_text())
    assert {"kill", "second", "plain", *FAULTS} <= results.keys(), "\n".join(error[-2000:] for error in errors.values())
    return results


def test_killed_writers_leave_old_or_new_and_may_try_again(found, numbers) -> None:
    kill = found["kill"]
    assert kill["failures"] == []
    assert kill["n"] == sum(kill["states"].values()) == numbers[0]
    assert sum(n for state, n in kill["states"].items() if state.startswith("killed")) >= numbers[0] / 3


def test_a_crash_at_every_call_leaves_old_or_new(found) -> None:
    for crash in found["crash"]:
        assert crash["failures"] == []
        assert crash["states_kept"] == sum(crash["states"].values()) >= 6


def test_a_call_that_fails_changes_nothing(found) -> None:
    for full in found["full"]:
        assert full["failures"] == []
        assert full["tried"] > (10 if full["action"] == "attrs" else 4)


def test_files_that_may_not_grow_change_nothing(found) -> None:
    for limit in found["limit"]:
        assert limit["failures"] == []
        assert limit["tried"] >= 1


def test_a_file_system_that_is_full_changes_nothing(found) -> None:
    for space in found["space"]:
        if "skipped" in space:
            pytest.skip(f"no small file system may be mounted: {space['skipped']}")
        assert space["failures"] == []
        assert space["tried"] >= 2


def test_readers_see_whole_elements_while_another_process_commits(found) -> None:
    readers = found["readers"]
    assert readers["writer"] == "exit 0"
    assert readers["torn"] == []
    assert readers["reads"] > 2
    assert set(readers["seen"]) <= {1, 2}


def test_a_second_writer_is_told_of_the_first_and_follows_it_once_it_is_dead(found) -> None:
    assert found["second"] == {"names_missing": [], "readers_wait": False, "after_the_kill": "written"}


def test_stores_that_other_writers_left_half_written_are_repaired(found, numbers) -> None:
    plain = found["plain"]
    assert plain["failures"] == []
    assert sum(plain["states"].values()) == numbers[1]
    assert any("unreadable" in state for state in plain["states"])


def test_every_flipped_bit_is_found_and_its_element_named(found, numbers) -> None:
    flips = found["flips"]
    assert flips["n"] == numbers[4]
    assert flips["missed"] == flips["misnamed"] == []
