"""Cores that are there, threads that are used, and how they wait for each other."""

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from spatialsig._settings import CACHES, Settings, available_cores, settings
from spatialsig._workers import _own_settings
from spatialsig.errors import InputError
from spatialsig.nn.device import on_device, own_threads


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", 8), ("200000 100000", 2), ("50000 100000", 1), ("", 8), ("1600000 100000", 8)]
)
def test_a_container_is_given_no_more_than_its_share(
    text: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(text)
    assert available_cores(tmp_path / "cpu.max") == cores
    assert available_cores(tmp_path / "none") == 8


def test_networks_on_the_cpu_use_the_threads_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr(settings, "threads", 2)
        with on_device(torch.nn.Linear(2, 2), device="cpu"):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 4
        torch.set_num_threads(1)
        with own_threads():
            assert torch.get_num_threads() == 1  # who asked for less has it
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({}, "1000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"), ({"GOMP_SPINCOUNT": "9"}, "9")],
)
def test_threads_spin_shortly_unless_the_user_says_how(given: dict[str, str], wanted: str) -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {name: value for name, value in os.environ.items() if name not in names} | given
    code = "import os, sys, spatialsig; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT'))"
    said = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert said.stdout.strip() == wanted


def test_one_number_bounds_all_caches_and_processes_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("memory_gb", *CACHES):
        monkeypatch.setattr(settings, name, getattr(settings, name))
    settings.memory_gb = 4
    assert sum(getattr(settings, name) for name in CACHES) == 4 * 1024
    settings.cells_mb = 100.0  # by itself
    whole, shared = _own_settings(2), _own_settings(1, n_jobs=2)
    assert (whole["memory_gb"], whole["cells_mb"], whole["patch_cache_mb"]) == (4, 100.0, 1024)
    assert (shared["memory_gb"], shared["cells_mb"], shared["patch_cache_mb"]) == (2, 50.0, 512)
    worker = Settings()
    for name, value in shared.items():
        setattr(worker, name, value)
    assert asdict(worker) == shared
    for wrong in (0, -1, "4 GB", float("nan")):
        with pytest.raises(InputError, match="`memory_gb"):
            settings.memory_gb = wrong
