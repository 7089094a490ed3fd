"""Memory for batches: page-aligned, and used again once nobody holds the batch."""

from __future__ import annotations

import mmap
import os
import weakref
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEPT = 4  # free blocks of one size that wait for their next use
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
