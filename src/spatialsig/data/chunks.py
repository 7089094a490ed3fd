"""Decode the chunks of a Zarr array straight into the arrays that take their pixels.

Tensorstore decodes a chunk and then copies what was asked for; a patch that is a chunk needs no such copy. And a process
that has read with tensorstore cannot be forked. Arrays of uint8, plain or zstd, with or without a crc32c, are therefore
read here; all others by tensorstore.

Floor 2, above geometry, nn, signatures, stats, store. Used by data/patches, data/pyramid.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from google_crc32c import value as crc32c

from spatialsig._settings import settings
from spatialsig.data.file_levels import FileLevel
from spatialsig.data.resources import CHUNK_POOL_SHARE, batch_memory
from spatialsig.errors import InputError, StoreError
from spatialsig.store.chunk_files import was_written
from spatialsig.store.stored.documents import damaged, document_of, what_to_do

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Index = tuple[int, int, int]
    Part = tuple[NDArray[np.uint8], list[int], list[int]]  # a window; y0, x0, y1, x1 in it; the same in the chunk
    Job = tuple["StoredArray | FileLevel", Index, list[Part], bool, str]
    Ints = NDArray[np.int64]

_CODECS = {(): (False, False), ("zstd",): (True, False), ("crc32c",): (False, True), ("zstd", "crc32c"): (True, True)}
_CRC_BYTES = 4
_scratch = threading.local()


@dataclass(frozen=True)
class StoredArray:
    """Layout of a uint8 array on disk."""

    path: str  # directory of the array
    shape: tuple[int, int, int]  # shape, chunk: of the array and of a chunk, ``(c, y, x)``
    chunk: tuple[int, int, int]
    zstd: bool  # zstd, crc: whether chunks are compressed, and whether a crc32c follows them
    crc: bool
    key: str  # chunk indices to file name
    fill_value: int  # of pixels whose chunk was not written
    stamp: tuple[int, int]  # time and number of the file that describes the array: a replaced array is another one

    def decode(self, index: Index, out: NDArray[np.uint8]) -> None:
        """Decode chunk ``index`` into ``out``, contiguous and of the chunk's size."""
        file = f"{self.path}/{self.key.format(*index)}"
        flat = out.reshape(-1)
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except FileNotFoundError:
            if was_written(Path(self.path), self.key.format(*index)):
                msg = f"chunk {file} is not there, though it was written"
                raise ValueError(msg) from None
            flat[:] = self.fill_value
            return
        try:
            if self.zstd:
                self._decompress(os.read(descriptor, os.fstat(descriptor).st_size), flat, file)
            else:
                self._take(descriptor, flat, file)
        finally:
            os.close(descriptor)

    def _decompress(self, data: bytes, flat: NDArray[np.uint8], file: str) -> None:
        if self.crc:
            data, tail = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
            _check_crc(data, tail, file)
        try:
            n = len(imagecodecs.zstd_decode(data, out=flat.data))
        except RuntimeError as error:
            msg = f"chunk {file} is damaged: it cannot be decoded"
            raise ValueError(msg) from error
        _check_size(n, flat.size, file)

    def _take(self, descriptor: int, flat: NDArray[np.uint8], file: str) -> None:
        n_tail = _CRC_BYTES * self.crc
        tail = bytearray(n_tail + 1)  # a byte more: a file that is too long is damaged as well
        _check_size(os.readv(descriptor, [flat.data, tail]), flat.size + n_tail, file)
        if self.crc:
            _check_crc(flat, bytes(tail[:n_tail]), file)


def stored_array(path: Path) -> StoredArray | None:
    """Describe a Zarr 3 array that can be decoded here; None for any other."""
    file = path / "zarr.json"
    if not file.is_file() or not hasattr(os, "readv"):
        return None
    stat = file.stat()
    return _described(path, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=256)
def _described(path: Path, mtime_ns: int, inode: int) -> StoredArray | None:
    file = path / "zarr.json"
    document = document_of(file)
    try:
        return _layout(path, document, (mtime_ns, inode))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(file, "it does not describe an array") from error


def _layout(path: Path, document: dict[str, Any], stamp: tuple[int, int]) -> StoredArray | None:
    first, *others = [codec["name"] for codec in document["codecs"]]
    plain = first == "bytes" and tuple(others) in _CODECS and document["chunk_grid"]["name"] == "regular"
    if not plain or document["data_type"] != "uint8" or len(document["shape"]) != 3:
        return None
    zstd, crc = _CODECS[tuple(others)]
    encoding = document["chunk_key_encoding"]
    if encoding["name"] != "default" or document.get("storage_transformers"):
        return None
    separator = encoding.get("configuration", {}).get("separator", "/")
    return StoredArray(
        path=str(path),
        shape=tuple(document["shape"]),
        chunk=tuple(document["chunk_grid"]["configuration"]["chunk_shape"]),
        zstd=zstd,
        crc=crc,
        key=separator.join(("c", "{}", "{}", "{}")),
        fill_value=int(document["fill_value"]),
        stamp=stamp,
    )


def window_jobs(
    array: StoredArray | FileLevel,
    first: Ints,
    last: Ints,
    targets: Sequence[NDArray[np.uint8]],
    *,
    keep: bool,
    name: str,
) -> list[Job]:
    """One job per chunk that puts its pixels into all windows that show it.

    Parameters
    ----------
    array
        Where to read.
    first, last
        First and last-plus-one pixels of the windows, ``(b, 2)`` as y, x.
    targets
        Where window k goes, ``(c, last - first)`` each.
    keep
        Keep decoded chunks for later calls.
    name
        What is read, for errors.
    """
    edge = np.array(array.chunk[1:])
    top, bottom = first // edge, (last - 1) // edge + 1
    pairs = [
        (k, y, x)
        for k, ((y0, x0), (y1, x1)) in enumerate(zip(top.tolist(), bottom.tolist(), strict=True))
        for y in range(y0, y1)
        for x in range(x0, x1)
    ]
    window, chunk = np.array([p[0] for p in pairs], np.int64), np.array([p[1:] for p in pairs], np.int64).reshape(-1, 2)
    low, high = np.maximum(first[window], chunk * edge), np.minimum(last[window], (chunk + 1) * edge)
    to = np.hstack([low - first[window], high - first[window]]).tolist()
    source = np.hstack([low - chunk * edge, high - chunk * edge]).tolist()
    parts: dict[tuple[int, int], list[Part]] = {}
    for (k, *index), t, s in zip(pairs, to, source, strict=True):
        parts.setdefault((index[0], index[1]), []).append((targets[k], t, s))
    layers = range(-(-array.shape[0] // array.chunk[0]))
    return [(array, (layer, *index), part, keep, name) for index, part in parts.items() for layer in layers]


def _place(array: StoredArray | FileLevel, index: Index, parts: list[Part], keep: bool) -> None:  # noqa: FBT001 - part of a job
    depth, height, width = array.chunk
    start, stop = index[0] * depth, min((index[0] + 1) * depth, array.shape[0])
    if len(parts) == 1 and not keep:
        target, (y0, x0, y1, x1), _ = parts[0]
        part = target[start:stop, y0:y1, x0:x1]
        if part.shape == (depth, height, width) and part.flags.c_contiguous:
            array.decode(index, part)
            return
    chunk = _kept(os.getpid()).decoded(array, index) if keep else _decoded(array, index)
    for target, (y0, x0, y1, x1), (top, left, bottom, right) in parts:
        target[start:stop, y0:y1, x0:x1] = chunk[: stop - start, top:bottom, left:right]


def run(jobs: Sequence[Job]) -> None:
    """Run jobs on ``settings.threads`` threads; the first error is raised when all have ended.

    Raises
    ------
    StoreError
        If a chunk cannot be read.
    """
    n = min(settings.threads, len(jobs))
    if n <= 1:
        _each(jobs)
        return
    futures = [_threads(settings.threads, os.getpid()).submit(_each, jobs[k::n]) for k in range(n)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]


def _each(jobs: Sequence[Job]) -> None:
    for array, index, parts, keep, name in jobs:
        try:
            _place(array, index, parts, keep)
        except (ValueError, OSError) as error:
            if isinstance(array, FileLevel) or isinstance(error, InputError):
                raise  # it names the file and the place
            file = Path(array.path, array.key.format(*index))
            msg = f"{name}: cannot read {array.path}: {error}. {what_to_do(file)}"
            raise StoreError(msg) from error


@lru_cache(maxsize=2)
def _threads(n: int, _pid: int) -> ThreadPoolExecutor:  # threads do not survive a fork
    return ThreadPoolExecutor(n, thread_name_prefix="chunk-decode")


def _decoded(array: StoredArray | FileLevel, index: Index) -> NDArray[np.uint8]:
    """A chunk in memory of the calling thread, until its next one."""
    held: NDArray[np.uint8] | None = getattr(_scratch, "chunk", None)
    if held is None or held.shape != array.chunk:
        held = _scratch.chunk = batch_memory(array.chunk)
    array.decode(index, held)
    return held


class _KeptChunks:
    """Decoded chunks, the last used ones, up to a share of ``settings.patch_cache_mb``."""

    def __init__(self) -> None:
        self._chunks: OrderedDict[tuple[StoredArray | FileLevel, Index], NDArray[np.uint8]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def decoded(self, array: StoredArray | FileLevel, index: Index) -> NDArray[np.uint8]:
        key = array, index
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        chunk = batch_memory(array.chunk)
        array.decode(index, chunk)
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = chunk
                self._bytes += chunk.nbytes
            while self._bytes > settings.patch_cache_mb * 2**20 // CHUNK_POOL_SHARE:
                self._bytes -= self._chunks.popitem(last=False)[1].nbytes
        return chunk


@lru_cache(maxsize=1)
def _kept(_pid: int) -> _KeptChunks:
    """Decoded chunks of this process: another thread may have held the lock when it was forked."""
    return _KeptChunks()


def _check_size(size: int, expected: int, file: str) -> None:
    if size != expected:
        msg = f"chunk {file} is damaged: {size} bytes instead of {expected}"
        raise ValueError(msg)


def _check_crc(data: Any, tail: bytes, file: str) -> None:
    if crc32c(data) != int.from_bytes(tail, "little"):
        msg = f"chunk {file} is damaged: its checksum does not fit"
        raise ValueError(msg)
