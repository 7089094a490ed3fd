"""Memory that batches leave behind."""

from __future__ import annotations

import ctypes
import sys

import pytest
import torch

from spatialsig.data import memory
from spatialsig.data.memory import Trim, kept_memory


def test_freed_memory_goes_back_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    trim = Trim()
    trim._give_back = calls.append
    for now[0] in range(14):
        trim.now_and_then()
    assert calls == [0, 0]
    trim._give_back = None  # where the C library has no such call
    now[0] = 100.0
    trim.now_and_then()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_it_is_the_call_of_glibc() -> None:
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        assert Trim()._give_back(0) in (0, 1)


def faults_of_steps() -> int:
    """Pages mapped anew while a block of 48 MiB is taken, written and freed ten times."""
    resource = pytest.importorskip("resource")
    torch.ones(12 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(12 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc")
def test_a_step_finds_the_memory_of_the_step_before() -> None:
    with kept_memory():
        with kept_memory():
            pass  # an inner block leaves the outer one as it is
        kept = faults_of_steps()
    assert kept < 0.1 * faults_of_steps()


def test_other_allocators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_of_libc", lambda name: None)
    with kept_memory():
        pass
