"""Chunk files of an array that zarr has described, from blocks of its values.

Chunks of the H&E are encoded and written here, in the thread that made the pixels: zarr's event loop takes three
times as long for the same bytes.

Floor 1, above the ground floor. Used by store/relayout, store/stream.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.store.manifest import entry_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from spatialsig._progress import Bar
    from spatialsig.store.layout import Layout
    from spatialsig.store.manifest import Entry


class ChunkWriter:
    """Chunks of one array, ``<path>/c/<i>/<j>/...``; may be used from several threads for different chunks.

    ``path`` is the directory of the array, made with ``layout.array_spec`` of this shape and these dims.
    """

    def __init__(self, path: Path, shape: Sequence[int], dims: Sequence[str], layout: Layout) -> None:
        self.path, self.shape, self.dims, self.layout = path, tuple(shape), tuple(dims), layout
        self.chunks = layout.chunk_shape(dims, shape)
        self.entries: dict[str, Entry] = {}  # of the files written, relative to ``path``

    def write(self, block: NDArray[Any], corner: Sequence[int]) -> None:
        """Write a block whose first element lies at ``corner``, the corner of a chunk.

        The block ends on a chunk or with the array; the last chunks are filled up with zeros.
        """
        starts = [range(0, size, chunk) for size, chunk in zip(block.shape, self.chunks, strict=True)]
        for start in itertools.product(*starts):
            part = block[tuple(slice(s, s + chunk) for s, chunk in zip(start, self.chunks, strict=True))]
            place = [(c + s) // chunk for c, s, chunk in zip(corner, start, self.chunks, strict=True)]
            self._put(place, part)

    def _put(self, place: Sequence[int], part: NDArray[Any]) -> None:
        if part.shape != self.chunks:
            whole = np.zeros(self.chunks, part.dtype)
            whole[tuple(slice(size) for size in part.shape)] = part
            part = whole
        name = "/".join(("c", *map(str, place)))
        file, data = self.path / name, self.layout.encode(part)
        self.entries[name] = entry_of(data)  # of what is in memory: the disk need not be asked
        try:
            file.write_bytes(data)
        except FileNotFoundError:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)


def in_threads(write: Callable[[Any], float], corners: Iterable[Any], *, n_threads: int, bar: Bar) -> None:
    """Write the block at every corner in threads, and advance the bar by what each returns; the first error ends all."""
    with ThreadPoolExecutor(max_workers=n_threads) as pool:
        futures = [pool.submit(write, corner) for corner in corners]
        try:
            for future in futures:
                bar.advance(future.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
