"""H&E patches straight from the pyramid of an image: the right level, the right window, nothing else decoded.

Floor 2, above geometry, nn, signatures, stats, store. Used by 19 modules of 9 rooms.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from dask.array import Array as DaskArray
from dask.base import compute
from xarray import DataArray

from spatialsig._checks import check_positive
from spatialsig.data.chunks import run, stored_array, window_jobs
from spatialsig.data.file_levels import FileLevel
from spatialsig.data.pyramid import ImageLevel, area_weights, image_levels, level_corner, resample
from spatialsig.data.resources import batch_memory, open_array
from spatialsig.errors import InputError, StoreError
from spatialsig.stats.stain import recolour
from spatialsig.store.chunk_files import sources_of
from spatialsig.store.remote.pixels import workers_for
from spatialsig.store.stored.damage import decoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from spatialsig.data.chunks import Job

    Rows = Sequence[int] | NDArray[np.integer[Any]]
    Ints = NDArray[np.int64]

__all__ = ["ImageLevel", "PatchSource", "Request", "image_levels", "read_patches", "read_slides"]

_LEVEL_TOLERANCE = 1e-6
_SHARING = 1.05  # windows per chunk above which decoded chunks are worth keeping for the next batch


@dataclass(frozen=True)
class PatchSource:
    """The patches of one slide."""

    sample: str  # name of the slide
    levels: tuple[ImageLevel, ...]  # pyramid, finest first
    origins: Ints  # top-left corners ``(n_patches, 2)`` as ``y0, x0``, integer level-0 px
    size_l0: float  # edge of a patch, level-0 px
    out_px: int  # edge of a patch as read, px
    # matrix ``(3, 3)`` that optical densities are multiplied by, see :mod:`spatialsig.stats.stain`; None leaves the
    # colours of the scan
    recolour: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        check_positive(size_l0=self.size_l0, out_px=self.out_px)
        if not self.levels:
            msg = f"slide {self.sample!r}: the image has no levels."
            raise InputError(msg)
        if self.origins.ndim != 2 or self.origins.shape[1] != 2 or self.origins.dtype.kind not in "iu":
            msg = (
                f"slide {self.sample!r}: origins {self.origins.shape} of {self.origins.dtype}; wanted integers (n, 2)."
            )
            raise InputError(msg)
        self._check_inside()

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.origins)

    def rows(self, rows: NDArray[np.int64]) -> PatchSource:
        """Some of the patches."""
        return replace(self, origins=self.origins[rows])

    @cached_property
    def level(self) -> ImageLevel:
        """Coarsest level that is still at least as fine as the patches asked for (the finest, where none is)."""
        coarsest = self.size_l0 / self.out_px * (1 + _LEVEL_TOLERANCE)
        fine = [level for level in self.levels if max(level.downsample) <= coarsest]
        return max(fine, key=lambda level: max(level.downsample), default=self.levels[0])

    @cached_property
    def corner(self) -> NDArray[np.float64]:
        """Level-0 px (y, x) at which :attr:`level` begins."""
        return np.array(level_corner(self.levels[0], self.level))

    @cached_property
    def windows(self) -> tuple[Ints, Ints]:
        """First and last-plus-one pixel of :attr:`level` that each patch needs, ``(n_patches, 2)`` each."""
        downsample = np.array(self.level.downsample)
        return _window((self.origins - self.corner) / downsample, self.size_l0 / downsample, np.array(self.level.shape))

    @cached_property
    def is_exact(self) -> NDArray[np.bool_]:
        """Mask of the patches that are pixels of :attr:`level` as they are, ``(n_patches,)``."""
        first, last = self.windows
        at_pixel = (
            np.abs((self.origins - self.corner) / np.array(self.level.downsample) - first).max(axis=1)
            <= _LEVEL_TOLERANCE
        )
        scaled = np.abs(self.size_l0 / np.array(self.level.downsample) - self.out_px).max() > _LEVEL_TOLERANCE
        exact: NDArray[np.bool_] = at_pixel & (last - first == self.out_px).all(axis=1) & (not scaled)
        return exact

    @cached_property
    def chunk_visits(self) -> tuple[float, float]:
        """Chunks that a patch needs, and patches that need a chunk: means over the slide; ``(0, 0)`` in memory."""
        if self.level.chunk_px is None or not len(self):
            return 0.0, 0.0
        first, last = (edge // np.array(self.level.chunk_px) for edge in (self.windows[0], self.windows[1] - 1))
        span = last - first + 1  # (n, 2), chunks
        steps = np.indices(tuple(span.max(axis=0))).reshape(2, -1).T  # every offset that some window reaches
        needed = first[:, None] + steps, (steps < span[:, None]).all(axis=2)
        touched = len(np.unique(needed[0][needed[1]], axis=0))
        return float(span.prod(axis=1).mean()), float(span.prod(axis=1).sum() / touched)

    @property
    def amplification(self) -> float:
        """Pixels decoded per pixel of a patch when patches are read one by one; 1 for an array in memory."""
        if self.level.chunk_px is None or not len(self):
            return 1.0
        area = float((self.windows[1] - self.windows[0]).prod(axis=1).mean())
        return self.chunk_visits[0] * self.level.chunk_px[0] * self.level.chunk_px[1] / area

    def _check_inside(self) -> None:
        height, width = self.levels[0].shape
        end = self.origins + self.size_l0
        outside = (self.origins < 0).any(axis=1) | (end > np.array([height, width]) + _LEVEL_TOLERANCE).any(axis=1)
        if outside.any():
            row = int(np.flatnonzero(outside)[0])
            msg = (
                f"slide {self.sample!r}: {int(outside.sum())} patches cross the border of the image of "
                f"{height} x {width} px (y, x); the first is row {row} at (y0, x0) = {tuple(self.origins[row].tolist())} "
                f"with an edge of {self.size_l0:g} px."
            )
            raise InputError(msg)


@dataclass(frozen=True)
class Request:
    """Patches to read, and the arrays to put them in."""

    source: PatchSource  # source, rows: slide, and which of its patches
    rows: Ints
    out: Sequence[NDArray[np.uint8]]  # an array ``(3, out_px, out_px)`` for each of them
    # whether the patches that share chunks with these are among them, so that no chunk is worth keeping
    local: bool = False


def read_patches(source: PatchSource, rows: Rows) -> NDArray[np.uint8]:
    """Read patches ``rows`` of a slide, ``(len(rows), 3, out_px, out_px)`` uint8 RGB.

    A window that is not exactly ``out_px`` pixels of its level is area-averaged at its exact, possibly fractional,
    position.

    Raises
    ------
    StoreError
        If the image cannot be read from its store.
    """
    chosen: Ints = np.asarray(rows, dtype=np.int64)
    out = batch_memory((len(chosen), 3, source.out_px, source.out_px))
    read_slides([Request(source, chosen, list(out))])
    return out


def read_slides(requests: Sequence[Request]) -> None:
    """Read patches of several slides at once, as :func:`read_patches` does, into given arrays."""
    started = [_start(request) for request in requests]
    run([job for jobs, _ in started for job in jobs])
    for _, finish in started:
        finish()


def _start(request: Request) -> tuple[list[Job], Callable[[], None]]:
    """Jobs for this process's threads, and what is left to do after them; all other reads are in flight already."""
    source, out = request.source, list(request.out)
    first, last = (edge[request.rows] for edge in source.windows)
    inexact = np.flatnonzero(~source.is_exact[request.rows]).tolist()
    for k in inexact:
        out[k] = np.empty((3, *(last[k] - first[k])), np.uint8)
    pixels = source.level.pixels
    stored = stored_array(pixels) if isinstance(pixels, Path) else pixels if isinstance(pixels, FileLevel) else None
    with _named(source):
        wait = None if stored is not None else _read(pixels, first, last, out)

    def finish() -> None:
        if wait is not None:
            with _named(source):
                wait()
        for k in inexact:
            request.out[k][...] = _resampled(source, int(request.rows[k]), out[k])
        if source.recolour is not None:
            for patch in request.out:
                recolour(patch, source.recolour)

    keep = not request.local and source.chunk_visits[1] > _SHARING
    name = f"slide {source.sample!r}"
    jobs = [] if stored is None else window_jobs(stored, first, last, out, keep=keep, name=name)
    return jobs, finish


@contextmanager
def _named(source: PatchSource) -> Iterator[None]:
    """Say which slide cannot be read."""
    pixels = source.level.pixels
    try:
        with decoding(lambda: [pixels] if isinstance(pixels, Path) else sources_of(pixels)):
            yield
    except StoreError as error:
        msg = f"slide {source.sample!r}: {error}"
        raise StoreError(msg) from error
    except (ValueError, OSError) as error:
        msg = f"slide {source.sample!r}: cannot read {pixels}: {error}"
        raise StoreError(msg) from error


def _window(start: NDArray[np.float64], size: NDArray[np.float64], shape: Ints) -> tuple[Ints, Ints]:
    """First and last-plus-one pixel to read, ``(n, 2)`` each; a px of margin where the window cuts through pixels."""
    first = np.floor(start + _LEVEL_TOLERANCE).astype(np.int64)
    last = np.ceil(start + size - _LEVEL_TOLERANCE).astype(np.int64)
    whole = np.abs(size - np.round(size)).max() <= _LEVEL_TOLERANCE
    margin = (np.abs(start - np.round(start)) > _LEVEL_TOLERANCE).any(axis=1, keepdims=True) | (not whole)
    first = np.clip(first - margin, 0, shape - 1)
    return first, np.maximum(np.minimum(last + margin, shape), first + 1)


def _resampled(source: PatchSource, row: int, window: NDArray[np.uint8]) -> NDArray[np.uint8]:
    downsample = np.array(source.level.downsample)
    start = (source.origins[row] - source.corner) / downsample - source.windows[0][row]
    size = source.size_l0 / downsample
    y, x = (
        area_weights(round(float(start[axis]), 6), float(size[axis]), source.out_px, window.shape[axis + 1])
        for axis in (0, 1)
    )
    return resample(window, y, x)


def _read(pixels: Path | Any, first: Ints, last: Ints, out: Sequence[NDArray[np.uint8]]) -> Callable[[], None]:
    """Start to read windows of an array into ``out``; the result waits for them."""
    boxes = [np.s_[:, y0:y1, x0:x1] for (y0, x0), (y1, x1) in zip(first.tolist(), last.tolist(), strict=True)]
    if isinstance(pixels, Path):
        store = open_array(pixels)
        futures = [store[box].read() for box in boxes]  # all in flight at once: shared chunks are decoded once
        return lambda: _fill(out, (future.result() for future in futures))
    if isinstance(pixels, DataArray):
        pixels = pixels.data
    windows = [pixels[box] for box in boxes]
    return lambda: _fill(out, _computed(windows) if isinstance(pixels, DaskArray) else windows)


def _computed(windows: Sequence[DaskArray]) -> Iterable[Any]:
    """Windows of a lazy array in one computation, so that what they share is read once."""
    windows = list(windows)
    return compute(*windows, **workers_for(windows[0])) if windows else ()  # type: ignore[no-untyped-call]


def _fill(out: Sequence[NDArray[np.uint8]], windows: Iterable[Any]) -> None:
    for target, window in zip(out, windows, strict=True):
        target[...] = window
