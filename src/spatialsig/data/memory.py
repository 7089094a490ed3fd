"""Memory for batches: page-aligned, and used again once nobody holds the batch."""

from __future__ import annotations

import mmap
import os
import weakref
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEPT = 8  # free blocks of one size that wait for their next use
_free: dict[tuple[int, int], list[mmap.mmap]] = defaultdict(list)


def batch_memory(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Array of bytes with any content.

    It starts on a page: processors copy from the page cache several times slower to an address a few bytes behind the
    start of a page, where the allocator of numpy puts large arrays. Memory that no array or tensor refers to any more
    serves the next call, so that its pages need not be cleared and mapped again.
    """
    size = int(np.prod(shape))
    if size == 0:
        return np.empty(shape, np.uint8)
    key = (os.getpid(), size)
    try:
        block = _free[key].pop()
    except IndexError:
        block = mmap.mmap(-1, size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            block.madvise(mmap.MADV_HUGEPAGE)
    # every view of it, numpy's or torch's, holds this array: numpy does not look behind memory it does not own
    flat: NDArray[np.uint8] = np.frombuffer(block, np.uint8)
    weakref.finalize(flat, _give_back, key, block).atexit = False
    return flat.reshape(shape)


def _give_back(key: tuple[int, int], block: Any) -> None:
    if key[0] == os.getpid() and len(_free[key]) < _KEPT:
        _free[key].append(block)
