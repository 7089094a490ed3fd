"""What all reads of a process share: memory for batches, and tensorstore handles of Zarr arrays.

Floor 2, above geometry, nn, signatures, stats, store. Used by data/cache, data/chunks, data/patches, data/pyramid.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig._settings import settings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_KEPT = 4  # free blocks of one size that wait for their next use
_free: dict[tuple[int, int], list[mmap.mmap]] = defaultdict(list)
CHUNK_POOL_SHARE = 8  # decoded chunks kept for neighbours: this part of the patch cache


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


def metadata_file(path: Path) -> Path:
    """The file that describes a Zarr array, of format 3 or 2."""
    return path / "zarr.json" if (path / "zarr.json").is_file() else path / ".zarray"


def open_array(path: Path) -> Any:
    """Tensorstore handle of a Zarr array."""
    metadata = metadata_file(path)
    stat = metadata.stat()
    # a handle must not outlive the replacement of its array
    return _opened(path, metadata.name, stat.st_mtime_ns, stat.st_ino, os.getpid())


@lru_cache(maxsize=256)
def _opened(path: Path, metadata: str, _mtime_ns: int, _inode: int, pid: int) -> Any:
    import tensorstore as ts

    spec = {
        "driver": "zarr3" if metadata == "zarr.json" else "zarr",
        "kvstore": {"driver": "file", "path": str(path)},
        "recheck_cached_data": "open",
    }
    context = _context(settings.patch_cache_mb, settings.threads, pid)
    return ts.open(spec, context=context, open=True, read=True).result()


@lru_cache(maxsize=4)
def _context(cache_mb: int, threads: int, _pid: int) -> Any:
    """Memory and threads that all arrays of a process share."""
    import tensorstore as ts

    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": cache_mb * 2**20 // CHUNK_POOL_SHARE},
            "data_copy_concurrency": {"limit": threads},
            "file_io_concurrency": {"limit": max(4, threads)},
        }
    )
