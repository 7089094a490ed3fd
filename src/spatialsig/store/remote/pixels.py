"""Pixels of a store of another machine: lazy arrays that fetch a chunk when something of it is asked for, once per computation.

Floor 1, above the ground floor. Used by data/patches, store/remote/reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import zarr
from dask.base import tokenize
from zarr.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from spatialsig._checks import warn
from spatialsig.errors import StoreError
from spatialsig.store.manifest import NAME, entries_of
from spatialsig.store.remote.places import REQUESTS, reaching
from spatialsig.store.stored.documents import FILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.store.remote.places import Place

_LAYER = "array-remote-"  # `array-`: nothing is computed, as for arrays of a store of this machine


@dataclass(frozen=True)
class RemotePixels:
    """A Zarr array of another machine."""

    place: Place
    name: str  # path of the array in the store
    metadata: str  # of the array, as JSON
    stamp: str  # of the metadata of the store: one that was replaced is another one

    @property
    def array(self) -> zarr.Array[Any]:
        """The array without its chunks."""
        return self._with({})

    @property
    def shape(self) -> tuple[int, ...]:
        """As dask asks for it."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """As dask asks for it."""
        return np.dtype(self.array.dtype)

    @property
    def ndim(self) -> int:
        """As dask asks for it."""
        return self.array.ndim

    def __getitem__(self, window: tuple[slice, ...]) -> NDArray[Any]:
        """Pixels of a window that lies in one chunk (of a sharded array: in one shard)."""
        empty = self.array
        index = tuple(part.start // step for part, step in zip(window, empty.shards or empty.chunks, strict=True))
        chunk = str(empty.metadata.encode_chunk_key(index))
        content = self.place.fetch(f"{self.name}/{chunk}")
        if content is None:
            self._check_left_out(chunk)
        with reaching(self.place, f"{self.name}/{chunk}"):
            return np.asarray((empty if content is None else self._with({chunk: content}))[window])

    def lazy(self) -> da.Array:
        """As an array of dask."""
        empty = self.array
        pixels: da.Array = da.from_array(
            self,
            chunks=empty.shards or empty.chunks,
            name=_LAYER + tokenize(self.place.address, self.name, self.stamp),  # type: ignore[no-untyped-call]
            getitem=_chunk,
            inline_array=True,
            meta=np.empty((0,) * empty.ndim, empty.dtype),
        )
        return pixels

    def _with(self, chunks: dict[str, bytes]) -> zarr.Array[Any]:
        held = {FILE: self.metadata.encode()} | chunks
        store = MemoryStore({name: Buffer.from_bytes(content) for name, content in held.items()}, read_only=True)
        return zarr.open_array(store, mode="r", zarr_format=3)

    def _check_left_out(self, chunk: str) -> None:
        """Refuse a chunk that was written and is lost; warn of one whose writer keeps no list."""
        kind, element, *rest = self.name.split("/")
        listed = _listed(self.place, f"{kind}/{element}", self.stamp)
        if listed is None:
            _say_left_out(self.place, self.name, chunk)
        elif "/".join((*rest, chunk)) in listed:
            msg = (
                f"'{self.place.name}/{self.name}/{chunk}' is not there, though it was written, and would be read as black: copy the "
                "store to that place again."
            )
            raise StoreError(msg)


def _chunk(array: RemotePixels, window: tuple[slice, ...], **_: Any) -> NDArray[Any]:
    """A chunk. Dask narrows its own function to what each window needs, which would fetch a chunk for every window."""
    return array[window]


def workers_for(array: da.Array) -> dict[str, int]:
    """How dask is to compute windows of an array: with many requests at a time where they go to another machine."""
    remote = any(str(layer).startswith(_LAYER) for layer in array.dask.layers)
    return {"num_workers": REQUESTS} if remote else {}


@lru_cache(maxsize=64)
def _listed(place: Place, element: str, _stamp: str) -> frozenset[str] | None:
    """Files that the writer of an element listed; None where it listed none."""
    held = place.fetch(f"{element}/{NAME}")
    return None if held is None else frozenset(entries_of(held, name=f"{place.name}/{element}/{NAME}"))


@lru_cache(maxsize=256)
def _say_left_out(place: Place, name: str, chunk: str) -> None:
    msg = (
        f"'{place.name}/{name}' has no file for chunk {chunk!r}: its pixels are taken as the fill value. Some writers leave out "
        "chunks that hold nothing else; if there was tissue, copy the store to that place again."
    )
    warn(msg)
