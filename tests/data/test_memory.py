"""Memory that batches leave behind."""

from __future__ import annotations

import ctypes
import sys

import pytest

from spatialsig.data import memory
from spatialsig.data.memory import Trim


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
