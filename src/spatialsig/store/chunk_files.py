"""Chunks of Zarr images that are not where their grid says: a reader would take them for black.

Names are listed and compared; no chunk is opened.

Floor 1, above the ground floor. Used by 13 modules of data, io, pl, pp, slide, store.
"""

from __future__ import annotations

import itertools
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import zarr
from xarray import DataArray

from spatialsig._checks import first_few, warn
from spatialsig._files import object_or_empty
from spatialsig.errors import StoreError
from spatialsig.store.layout import levels_of
from spatialsig.store.manifest import NAME, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

_CLOCK_NS = 2_000_000_000  # ticks of the clocks of file systems are shorter
_SOURCE = "original-from-zarr"  # how dask calls the array that a lazy one reads


class Chunks(NamedTuple):
    """What the grid of an array asks for."""

    total: int
    missing: tuple[str, ...]  # names of files, relative to the array
    fill_value: Any  # of pixels in a missing one


class _Grid(NamedTuple):
    """How many chunks lie along each axis, and how their files are named."""

    counts: tuple[int, ...]
    steps: tuple[int, ...]  # values along each axis of a chunk
    start: str
    separator: str
    fill_value: Any


def check_whole(element: object) -> None:
    """Refuse an image or labels read from a store of ours that lost a chunk; warn where other writers' have none.

    An element in memory, and one of another kind, has no chunks to lose.

    Raises
    ------
    StoreError
        If a chunk is not there that the manifest of the element lists.

    Warns
    -----
    SpatialsigWarning
        How many chunks are not there in an element without a manifest: its writer may have left out what is black.
    """
    for group, arrays in itertools.groupby(arrays_behind(element), lambda array: array.parent):
        check_arrays(arrays, name=str(group))


def arrays_behind(element: object) -> list[Path]:
    """Zarr arrays on this disk that the pixels of an element are read from, sorted."""
    return sorted({source for level in levels_of(element) for source in sources_of(level)})


def sources_of(array: Any) -> set[Path]:
    """Zarr arrays on this disk that an array of xarray, dask or zarr reads."""
    if isinstance(array, DataArray):
        array = array.data
    layers = array.dask.layers.items() if hasattr(array, "dask") else ()
    sources = (
        [array]
        if isinstance(array, zarr.Array)
        else [graph[name] for name, graph in layers if name.startswith(_SOURCE)]
    )
    roots = [(getattr(source.store, "root", None), source.path) for source in sources]
    return {Path(root) / path for root, path in roots if root is not None}


def check_arrays(arrays: Iterable[Path], *, name: str) -> None:
    """As :func:`check_whole`, of the levels of one image called ``name``."""
    for array in arrays:
        chunks = chunks_of(array)
        if not chunks.missing:
            continue
        recorded = read_manifest(array.parent / NAME)
        if recorded is None:
            _warn(array, chunks, name)
        elif lost := [chunk for chunk in chunks.missing if f"{array.name}/{chunk}" in recorded]:
            msg = (
                f"image {name!r} lost {len(lost)} of the {chunks.total} chunks of level {array.name!r} ({first_few(lost)}), "
                f"which were written and would now be read as black: restore the store from a copy, or import the slide "
                f"again. `sp.io.verify` lists all that is missing."
            )
            raise StoreError(msg)


def was_written(array: Path, chunk: str) -> bool:
    """Whether the manifest of the element lists a chunk of one of its arrays."""
    recorded = read_manifest(array.parent / NAME)
    return recorded is not None and f"{array.name}/{chunk}" in recorded


def _warn(array: Path, chunks: Chunks, name: str) -> None:
    shade = {"0": " (black)", "255": " (white)"}.get(str(chunks.fill_value), "")
    msg = (
        f"image {name!r} has no file for {len(chunks.missing)} of the {chunks.total} chunks "
        f"({len(chunks.missing) / chunks.total:.1%}) of level {array.name!r}, such as {chunks.missing[0]!r}: their pixels are "
        f"taken as {chunks.fill_value}{shade}. Some writers leave out chunks that hold nothing else; if there was tissue, "
        f"copy or export the image again."
    )
    warn(msg)


def chunks_of(array: Path) -> Chunks:
    """Chunks of a Zarr array (format 2 or 3), and those that are no files; links that lead nowhere are none."""
    grid = _grid(array)
    stamps = _stamps(array, grid)
    if time.time_ns() - max(stamps) < _CLOCK_NS:  # a folder may change twice within a tick of the clock
        return _list(array, grid)
    return _kept(array, stamps)


def states_of(level: DataArray, regions: Iterable[tuple[slice, ...]]) -> tuple[tuple[str, int, int], ...] | None:
    """Name, time and size of the files that hold regions of an array; None of one that is not read as it is stored."""
    name, sources = getattr(level.data, "name", ""), sources_of(level)
    if len(sources) != 1 or set(level.data.dask.layers) != {name, f"original-{name}"}:
        return None
    array = sources.pop()
    grid = _grid(array)
    if grid is None:
        return None
    indices = {
        index
        for region in regions
        for index in itertools.product(
            *(range(axis.start // step, -(-axis.stop // step)) for axis, step in zip(region, grid.steps, strict=True))
        )
    }
    chunks = (grid.start + grid.separator.join(map(str, index)) for index in indices)
    files = [array / file for file in (*chunks, "zarr.json", ".zarray")]
    found = {str(file): file.stat() for file in files if file.exists()}
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in sorted(found.items()))


@lru_cache(maxsize=256)
def _kept(array: Path, _stamps: tuple[int, ...]) -> Chunks:
    return _list(array, _grid(array))


def _list(array: Path, grid: _Grid | None) -> Chunks:
    if grid is None:
        return Chunks(0, (), None)
    wanted = [
        grid.start + grid.separator.join(map(str, index)) for index in itertools.product(*map(range, grid.counts))
    ]
    found = set(_files(str(array), ""))
    return Chunks(len(wanted), tuple(name for name in wanted if name not in found), grid.fill_value)


def _grid(array: Path) -> _Grid | None:
    """Grid of a regular array; None for what is none, of which readers say more."""
    document = object_or_empty(array / "zarr.json")
    try:
        if document:
            encoding = document["chunk_key_encoding"]
            is_default = encoding["name"] == "default"
            chunk, start = document["chunk_grid"]["configuration"]["chunk_shape"], "c" if is_default else ""
            separator = encoding.get("configuration", {}).get("separator", "/" if is_default else ".")
        else:
            document = object_or_empty(array / ".zarray")
            chunk, start, separator = document["chunks"], "", document.get("dimension_separator", ".")
        steps = tuple(map(int, chunk))
        counts = tuple(-(-size // step) for size, step in zip(document["shape"], steps, strict=True))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (
        _Grid(counts, steps, start + separator if start else "", separator, document.get("fill_value"))
        if counts
        else None
    )


def _files(folder: str, prefix: str) -> Iterable[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _files(entry.path, f"{prefix}{entry.name}/")
            elif entry.is_file():
                yield f"{prefix}{entry.name}"


def _stamps(array: Path, grid: _Grid | None) -> tuple[int, ...]:
    """Times of the folders of an array, which change whenever a chunk comes or goes; the last ones are not listed."""
    stamps: list[int] = []
    folders = [str(array)]
    for _ in range(0 if grid is None or grid.separator != "/" else len(grid.counts) - 1 + bool(grid.start)):
        stamps += [os.stat(folder).st_mtime_ns for folder in folders]
        folders = [entry.path for folder in folders for entry in os.scandir(folder) if entry.is_dir()]
    return (*stamps, *(os.stat(folder).st_mtime_ns for folder in folders))
