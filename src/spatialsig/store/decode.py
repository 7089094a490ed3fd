"""Decode every chunk of an element that has no checksums of its own: what no reader can read is found."""

from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pyarrow.parquet as pq
import zarr

from spatialsig._settings import settings

if TYPE_CHECKING:
    from pathlib import Path

Status: TypeAlias = Literal["ok", "missing chunk", "altered", "unfinished", "leftover", "not checksummed"]
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, EOFError)


def decode(element: Path) -> tuple[Status, str]:
    """Read everything in an element.

    Parameters
    ----------
    element
        Directory of the element.

    Returns
    -------
    ``"altered"`` and what cannot be read, or ``"not checksummed"``, as codecs without checksums let most flipped bits
    through; with the number of chunks that are not there, which read as zeros.
    """
    missing = total = 0
    for file in sorted(element.rglob("*.parquet")):
        if file.is_file():
            try:
                pq.ParquetFile(file).read()
            except _UNREADABLE as error:
                return "altered", f"{file.relative_to(element)} cannot be read: {error}"
    for file in sorted(element.rglob("zarr.json")):
        try:
            node = zarr.open(file.parent, mode="r", zarr_format=3)
            if isinstance(node, zarr.Array):
                _read(node)
                steps = node.shards or node.chunks
                expected = math.prod(-(-size // step) for size, step in zip(node.shape, steps, strict=True))
                total += expected
                missing += expected - _chunk_files(file.parent)
        except _UNREADABLE as error:
            return "altered", f"{file.parent.relative_to(element)} cannot be read: {type(error).__name__}: {error}"
    detail = f"{missing} of {total} chunks are not there: zeros, unless they were lost" if missing > 0 else ""
    return "not checksummed", detail


def _read(array: zarr.Array[Any]) -> None:
    """Decode chunk after chunk, from several threads."""
    steps = array.shards or array.chunks
    corners = itertools.product(*(range(0, size, step) for size, step in zip(array.shape, steps, strict=True)))

    def one(corner: tuple[int, ...]) -> None:
        array[tuple(slice(c, c + step) for c, step in zip(corner, steps, strict=True))]

    with ThreadPoolExecutor(max_workers=settings.threads) as pool:
        for _ in pool.map(one, corners):
            pass


def _chunk_files(array: Path) -> int:
    return sum(1 for file in array.rglob("*") if file.is_file() and file.name != "zarr.json")
