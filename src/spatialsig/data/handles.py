"""Tensorstore handles of Zarr arrays, one set per process, for arrays that :mod:`.chunks` does not decode."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from spatialsig._settings import settings

if TYPE_CHECKING:
    from pathlib import Path

CHUNK_POOL_SHARE = 8  # decoded chunks kept for neighbours: this part of the patch cache


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
