"""Cores that are there, threads that are used, and how they wait for each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spatialsig._settings import available_cores, settings
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
