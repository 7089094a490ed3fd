"""Chunks that cannot be decoded: what a codec raises becomes an error that names the store, the element and the chunk.

A chunk is named only after it was tried by itself: an error that no chunk of these arrays explains stays what it is.

Floor 1, above the ground floor. Used by 22 modules of atlas, data, io, maps, pl, pp, slide, store.
"""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from spatialsig._files import DECODING_ERRORS, NOT_WRITABLE, of_disk
from spatialsig._settings import settings
from spatialsig.errors import SpatialsigError, StoreError
from spatialsig.store.chunk_files import sources_of
from spatialsig.store.stored.documents import FILE, owner, what_to_do

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_WORDS = {"images": "image", "labels": "labels", "tables": "table", "shapes": "shapes", "points": "points"}


@contextmanager
def decoding(arrays: Callable[[], Iterable[Path]]) -> Iterator[None]:
    """Read Zarr arrays inside; what their codecs raise becomes a :class:`StoreError` that names the chunk.

    ``arrays`` gives what is read, or directories above it, and is asked only after an error.
    """
    try:
        yield
    except SpatialsigError:
        raise
    except DECODING_ERRORS as error:
        said = of_disk(error)
        if said is not None and said.errno in NOT_WRITABLE:  # of what is written inside as well
            raise
        damaged = next(filter(None, map(damaged_file, arrays_in(arrays()))), None)
        if damaged is None:
            raise
        raise StoreError(in_words(damaged)) from error


def computed(array: Any) -> NDArray[Any]:
    """What an array of dask, xarray or zarr holds, in memory; errors as of :func:`decoding`."""
    with decoding(lambda: sources_of(array)):
        return np.asarray(array)


def arrays_in(places: Iterable[Path]) -> Iterator[Path]:
    """Zarr arrays at these places and below them."""
    for place in places:
        files = [file for name in (FILE, ".zarray") for file in sorted(place.rglob(name))]
        yield from (file.parent for file in files if _may_be_array(file.parent))


def _may_be_array(node: Path) -> bool:
    try:
        return isinstance(zarr.open(node, mode="r"), zarr.Array)
    except DECODING_ERRORS:
        return True


def damaged_file(array: Path) -> Path | None:
    """The first file of a Zarr array that cannot be read: its metadata or a chunk; None where all can."""
    try:
        opened = zarr.open_array(array, mode="r")
    except DECODING_ERRORS:
        return array / FILE
    chunk = undecodable(opened)
    return None if chunk is None else array / chunk


def undecodable(array: zarr.Array[Any]) -> str | None:
    """Name of the first chunk that cannot be decoded, tried one after another from several threads."""
    steps = array.shards or array.chunks

    def tried(index: tuple[int, ...]) -> str | None:
        try:
            array[tuple(slice(i * step, (i + 1) * step) for i, step in zip(index, steps, strict=True))]
        except DECODING_ERRORS:
            return str(array.metadata.encode_chunk_key(index))
        return None

    with ThreadPoolExecutor(max_workers=settings.threads) as pool:
        found = next(filter(None, pool.map(tried, _indices(array))), None)
        pool.shutdown(cancel_futures=True)
    return found


def chunk_names(array: zarr.Array[Any]) -> Iterator[str]:
    """Names of all chunks of an array, relative to it, whether they were written or not."""
    return (str(array.metadata.encode_chunk_key(index)) for index in _indices(array))


def _indices(array: zarr.Array[Any]) -> Iterator[tuple[int, ...]]:
    steps = array.shards or array.chunks
    return itertools.product(*(range(-(-size // step)) for size, step in zip(array.shape, steps, strict=True)))


def in_words(file: Path) -> str:
    """What is damaged and what to do, for a file of an array that cannot be read."""
    store, element = owner(file)
    if store is None:
        return f"{str(file)!r} is damaged and cannot be decoded. {what_to_do(file)}"
    return (
        f"{_WORDS[element.parent.name]} {element.name!r} of store {str(store)!r} is damaged: "
        f"{str(file.relative_to(element))!r} cannot be decoded. {what_to_do(file)}"
    )
