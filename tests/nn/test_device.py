"""Memory that batches leave behind."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spatialsig._settings import settings
from spatialsig.nn import device
from spatialsig.nn.device import Trim, kept_memory

FAULTS = """
import resource, numpy as np
from spatialsig.nn.device import kept_memory

def faults():
    np.full(48 << 20, 1, np.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.full(48 << 20, 1, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with kept_memory():
    kept = faults()
print(kept, faults())
"""


def test_freed_memory_goes_back_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []
    monkeypatch.setattr(device.time, "monotonic", lambda: now[0])
    trim = Trim()
    trim._malloc_trim = calls.append
    for now[0] in range(14):
        trim.now_and_then()
    assert calls == [0, 0]
    trim._malloc_trim = None  # where the C library has no such call
    now[0] = 100.0
    trim.now_and_then()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_it_is_the_call_of_glibc() -> None:
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        assert Trim()._malloc_trim(0) in (0, 1)


@pytest.mark.skipif(device._of_libc("mallopt") is None, reason="glibc")
def test_a_batch_finds_the_memory_of_the_batch_before() -> None:
    env = {name: value for name, value in os.environ.items() if name not in device._CHOSEN_BY_USER}
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env=env)
    kept, usual = map(int, done.stdout.split())
    assert kept < 0.1 * usual


def test_the_outermost_block_raises_and_restores_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(device, "_of_libc", lambda name: lambda *args: calls.append(args))
    monkeypatch.setattr(device, "_environment_at_start", list)
    with kept_memory():
        with kept_memory():
            pass
        assert calls == [(-3, 512 << 20), (-1, 1024 << 20)]
    assert calls[2:] == [(-3, 32 << 20), (-1, 64 << 20), (0,)]


def test_other_allocators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_of_libc", lambda name: None)
    with kept_memory():
        pass


def test_the_setting_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(device, "_of_libc", lambda name: lambda *args: calls.append(args))
    monkeypatch.setattr(settings, "keep_memory", False)
    with kept_memory():
        assert calls == []
    assert calls == []


@pytest.mark.parametrize("entry", ["MALLOC_MMAP_THRESHOLD_=1", "GLIBC_TUNABLES=a", "MALLOC_TRIM_THRESHOLD_=4096"])
def test_limits_chosen_at_the_start_of_the_process_are_obeyed(entry: str) -> None:
    assert _holds_memory(entry) == "no"


@pytest.mark.parametrize("entry", ["MALLOC_TRIM_THRESHOLD_=65536", "A=MALLOC_MMAP_THRESHOLD_=1"])
def test_what_dask_sets_for_its_workers_is_no_choice_of_the_user(entry: str) -> None:
    assert _holds_memory(entry) == "yes"


def test_variables_set_later_are_not_seen_by_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A nanny of dask leaves its own in the process: the training that followed a cluster took twice the time."""
    calls: list[tuple[int, ...]] = []
    monkeypatch.setattr(device, "_of_libc", lambda name: lambda *args: calls.append(args))
    monkeypatch.setattr(device, "_environment_at_start", list)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setenv("GLIBC_TUNABLES", "a")
    with kept_memory():
        assert len(calls) == 2


def _holds_memory(entry: str) -> str:
    """Whether a process started with this variable changes the limits of glibc."""
    name, _, value = entry.partition("=")
    told = {key: kept for key, kept in os.environ.items() if key not in device._CHOSEN_BY_USER}
    code = "from spatialsig.nn import device as d\nwith d.kept_memory(): print('yes' if d._holders else 'no')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=told | {name: value})
    return done.stdout.strip()


def test_precision_is_restored_even_after_an_error() -> None:
    before = torch.get_float32_matmul_precision()
    with pytest.raises(RuntimeError, match="inside"), device.fast_matmul():
        raise RuntimeError("inside")
    assert torch.get_float32_matmul_precision() == before


def test_products_inside_are_float32_accurate() -> None:
    a = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    with device.fast_matmul():
        error = (a @ a - a.double() @ a.double()).norm() / (a.double() @ a.double()).norm()
    assert float(error) < 1e-5


@pytest.mark.parametrize(("flags", "native"), [("avx2 avx512f", False), ("avx512_bf16 avx2", True), ("amx_bf16", True)])
def test_bfloat16_only_where_the_processor_has_it(flags: str, native: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu {flags} sse\n")
    assert device._cpu_has_bfloat16(tmp_path / "cpuinfo") is native
    assert not device._cpu_has_bfloat16(tmp_path / "absent")
