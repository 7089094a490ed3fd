"""Memory for batches: page-aligned, and used again once nobody holds the batch; and what is freed goes back."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
import weakref
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

TRIM_S = 5.0
KEPT_MB = 512  # more than any tensor of a training step on a CPU takes
_USUAL_MB = 32  # where glibc's own limit ends up in a process that frees large blocks
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_KEPT = 4  # free blocks of one size that wait for their next use
_holders, _lock = 0, threading.Lock()
_free: dict[tuple[int, int], list[mmap.mmap]] = defaultdict(list)


def batch_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Array of bytes with any content; memory that nothing refers to any more serves the next call of its size.

    Its pages need not be cleared and mapped again. It starts on a page, see :func:`page_aligned`.
    """
    size = int(np.prod(shape))
    key = (os.getpid(), size)
    try:
        block = _free[key].pop()
    except IndexError:
        block = _mapped(size)
    # every view of it, numpy's or torch's, holds this array: numpy does not look behind memory it does not own
    flat: NDArray[np.uint8] = np.frombuffer(block, np.uint8, size)
    weakref.finalize(flat, _give_back, key, block).atexit = False
    return flat.reshape(shape)


def page_aligned(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Array of zero bytes that starts on a page; pages are taken when first written.

    Processors copy from the page cache several times slower to an address a few bytes behind the start of a page,
    which is where the allocator of numpy puts large arrays.
    """
    size = int(np.prod(shape))
    return np.frombuffer(_mapped(size), np.uint8, size).reshape(shape)


class Trim:
    """Give freed memory back to the system every few seconds; only glibc needs to be asked.

    Its allocator keeps the aligned blocks that tensors of a training step leave behind and takes new ones all the same:
    15 GiB after 8 million cells through an autoencoder, 1.3 GiB with this, which costs 1 to 2 % of the time.
    """

    def __init__(self) -> None:
        self._give_back = _of_libc("malloc_trim")
        self._last = time.monotonic()

    def now_and_then(self) -> None:
        """Do it if the last time is long enough ago."""
        if self._give_back is not None and time.monotonic() - self._last > TRIM_S:
            self._give_back(0)
            self._last = time.monotonic()


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let glibc keep what one batch of a network frees for the next one, for the length of the outermost such block.

    By default it hands large blocks back at once and takes new ones, each page of which the system clears and maps again:
    up to half of the time of a network on a CPU. Other C libraries are left as they are.
    """
    _hold(1)
    try:
        yield
    finally:
        _hold(-1)


def _hold(change: int) -> None:
    global _holders
    limit, trim = _of_libc("mallopt"), _of_libc("malloc_trim")
    with _lock:
        _holders += change
        if limit is None or trim is None or _holders != max(change, 0):
            return  # no glibc, or not the outermost block
        mb = KEPT_MB if change > 0 else _USUAL_MB
        limit(_MMAP_THRESHOLD, mb << 20)
        limit(_TRIM_THRESHOLD, 2 * mb << 20)
        if change < 0:
            trim(0)


def _of_libc(name: str) -> Any:
    """Function of the C library; None where it has no such."""
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None


def _mapped(size: int) -> mmap.mmap:
    size = max(size, 1)
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # never shared with a fork
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


def _give_back(key: tuple[int, int], block: mmap.mmap) -> None:
    if key[0] == os.getpid() and len(_free[key]) < _KEPT:
        _free[key].append(block)
