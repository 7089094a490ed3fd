"""Store the images of a store in another layout; the pixels of every level stay as they are.

Floor 1, above the ground floor. Used by io/_store.
"""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from spatialsig._files import DECODING_ERRORS
from spatialsig._progress import progress_bar
from spatialsig._settings import settings
from spatialsig.errors import StoreError
from spatialsig.store.chunk_files import sources_of
from spatialsig.store.chunk_writer import ChunkWriter, in_threads
from spatialsig.store.lock import is_stale, lock_file, read_lock, writer_lock
from spatialsig.store.manifest import manifest_file
from spatialsig.store.metadata import consolidate, elements_on_disk, root_document
from spatialsig.store.stored.damage import decoding
from spatialsig.store.stored.documents import FILE, damaged, document_of
from spatialsig.store.swap import clear_leftovers, swap_in
from spatialsig.store.verify import verify_element

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from spatialsig._progress import Bar
    from spatialsig.store.layout import Layout
    from spatialsig.store.manifest import Entry

MAX_BLOCK_BYTES = 96 * 2**20  # decoded, per thread
BLOCK_CHUNKS = 8  # along an edge, where memory allows


@dataclass(frozen=True)
class _Level:
    path: str
    array: zarr.Array[Any]
    dims: tuple[str, ...]


@dataclass(frozen=True)
class Rewritten:
    """Bytes that an image took before and after."""

    image: str
    bytes_before: int
    bytes_after: int


def relayout(path: Path, layout: Layout) -> Iterator[Rewritten]:
    """Rewrite the images of a store of any origin, one after another, each swapped in when it is complete.

    Yields one :class:`Rewritten` per image that had another layout, of all levels. Raises :class:`StoreError` if
    ``path`` is no store, or chunks of an image are missing or altered.
    """
    _finish(path)
    for name in [name for kind, name, finished in elements_on_disk(path) if kind == "images" and finished]:
        image = path / "images" / name
        levels = _levels(image)
        if all(_has_layout(level, layout) for level in levels):
            continue
        _require_whole(image, name)
        before = _size(image)
        total = round(sum(level.array.nbytes for level in levels) / 1e6, 1)
        with progress_bar(f"rewriting {name}", total=total, unit="MB") as bar:
            with writer_lock(path, f"rewriting image {name!r}"):
                swap_in(path, {name: "images"}, lambda new, n=name, b=bar: _rewrite(path, new, n, layout, b))  # type: ignore[misc]
        yield Rewritten(name, before, _size(image))


def _finish(path: Path) -> None:
    """Complete the commit of an interrupted run: its image has the layout already, and would not be visited again."""
    lock = lock_file(path)
    interrupted = lock.exists() and is_stale(read_lock(lock) or {})
    if interrupted or root_document(path).get("consolidated_metadata") is None:
        with writer_lock(path, "finishing an interrupted commit"):
            clear_leftovers(path)
            consolidate(path)


def _require_whole(image: Path, name: str) -> None:
    """Never make zeros of chunks that were lost."""
    if not manifest_file(image, "images").exists():
        return
    faults = [f"{found.status}: {found.detail}" for found in verify_element(image, "images", name) if found.detail]
    if faults:
        fix = "import the slide again, or move elsewhere what was put into the image"
        msg = (
            f"image {name!r} of store {str(image.parents[1])!r} is damaged and was not rewritten ({'; '.join(faults)}); {fix}. "
            f"`sp.io.verify({str(image.parents[1])!r})` lists all that is damaged."
        )
        raise StoreError(msg)


def _levels(image: Path) -> list[_Level]:
    try:
        scales = document_of(image / FILE)["attributes"]["ome"]["multiscales"][0]
        dims = tuple(str(axis["name"]) for axis in scales["axes"])
        paths = [d["path"] for d in scales["datasets"]]
    except (LookupError, TypeError) as error:
        raise damaged(image / FILE, "it does not describe the levels of an image") from error
    return [_Level(path, _opened(image / path), dims) for path in paths]


def _opened(level: Path) -> zarr.Array[Any]:
    document_of(level / FILE)
    try:
        return zarr.open_array(level, mode="r", use_consolidated=False)
    except DECODING_ERRORS as error:
        raise damaged(level / FILE, "it does not describe an array") from error


def _has_layout(level: _Level, layout: Layout) -> bool:
    spec = layout.array_spec(level.array.shape, level.dims, dtype=level.array.dtype)
    same_codec = list(level.array.compressors) == spec["compressors"]
    return same_codec and level.array.shards is None and level.array.chunks == spec["chunks"]


def _rewrite(path: Path, staging: Path, name: str, layout: Layout, bar: Bar) -> dict[str, dict[str, Entry]]:
    """Make ``images/<name>`` in ``staging``: its metadata, then level after level; return what is known of files."""
    known: dict[str, Entry] = {}
    old, new = path / "images" / name, staging / "images" / name
    new.mkdir(parents=True)
    shutil.copyfile(old / "zarr.json", new / "zarr.json")
    for level in _levels(old):
        source = level.array
        spec = layout.array_spec(source.shape, level.dims, dtype=source.dtype)
        # what reads beyond the pixels, the names of the axes and the notes of others stay
        spec |= {"fill_value": source.fill_value, "dimension_names": _names(source), "attributes": dict(source.attrs)}
        zarr.create_array(new / level.path, **spec)
        writer = ChunkWriter(new / level.path, source.shape, level.dims, layout)
        _copy(source, writer, bar)
        known |= {f"{level.path}/{file}": entry for file, entry in writer.entries.items()}
    return {name: known}


def _names(array: zarr.Array[Any]) -> Any:
    return getattr(array.metadata, "dimension_names", None)


def _copy(source: zarr.Array[Any], writer: ChunkWriter, bar: Bar) -> None:
    block = _block(source, writer.chunks)

    def copy(corner: Sequence[int]) -> float:
        with decoding(lambda: sources_of(source)):
            pixels = np.asarray(source[tuple(slice(c, c + b) for c, b in zip(corner, block, strict=True))])
        writer.write(pixels, corner)
        return pixels.nbytes / 1e6

    corners = itertools.product(*(range(0, size, b) for size, b in zip(source.shape, block, strict=True)))
    in_threads(copy, corners, n_threads=settings.threads, bar=bar)


def _block(source: zarr.Array[Any], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Block of whole new chunks, large enough for whole old ones unless that would take too much memory."""
    old = source.shards or source.chunks
    edges = [
        c if c == s else -(-max(o, BLOCK_CHUNKS * c) // c) * c
        for o, c, s in zip(old, chunks, source.shape, strict=True)
    ]
    edges[:-2] = chunks[:-2]  # all channels, one plane
    axis = 0
    while np.prod(np.minimum(edges, source.shape)) * source.dtype.itemsize > MAX_BLOCK_BYTES:
        axis = -2 if edges[-2] > chunks[-2] else -1
        if edges[axis] == chunks[axis]:
            break
        edges[axis] = max(edges[axis] // 2 // chunks[axis], 1) * chunks[axis]
    return tuple(edges)


def _size(root: Path) -> int:
    return sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
