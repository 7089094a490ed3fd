"""Whether a level of an image shows what the finer one before it shows: a few windows of both are compared.

A level that is mirrored, black or of another image has the right size all the same, and patches would be read from it.

Floor 2, above geometry, nn, signatures, stats, store. Used by 7 modules of io, pp, slide.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zarr
from dask.array import Array as DaskArray
from xarray import DataArray

from spatialsig.data.file_levels import FileLevel
from spatialsig.data.pyramid import area_weights
from spatialsig.errors import InputError
from spatialsig.store.chunk_files import sources_of
from spatialsig.store.stored.damage import decoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from spatialsig.data.pyramid import ImageLevel

WINDOW_PX = 32  # edge of a window, px of the coarser level
PLACES = (
    (0.5, 0.5),
    (0.3, 0.3),
    (0.3, 0.7),
    (0.7, 0.3),
    (0.7, 0.7),
)  # middles of the windows, shares of height and width
MIN_CORRELATION = 0.2  # of pixels within windows; one pixel in 16 of pure noise gives 0.25, any tissue more than 0.7
MIN_TEXTURE = 4.0  # standard deviation within windows, gray levels: glass correlates with nothing
# layers of a graph that do nothing but cut an array, or read one that is stored
_AS_IT_IS = ("array-", "rechunk-", "from-zarr", "original-from-zarr")
MAX_OFFSET = 20.0  # mean difference of windows, gray levels


class Windows(NamedTuple):
    """A level that is read window by window."""

    shape: tuple[int, int]  # height and width
    read: Callable[[slice, slice], NDArray[Any]]  # rows and columns to pixels (h, w, 3)


class Difference(NamedTuple):
    """How two levels differ in their windows."""

    correlation: float
    means: tuple[float, float]  # of the coarser and of the finer one

    def __str__(self) -> str:
        """As a message says it."""
        return f"correlation {self.correlation:.2f}, mean {self.means[0]:.0f} instead of {self.means[1]:.0f}"


def check_shown(levels: Sequence[ImageLevel], index: int, *, name: str) -> None:
    """Refuse a level, or one between it and the finest, that shows something else than the one before it.

    Looked at are levels on disk and in memory. Lazy ones are taken as they are: those of a file were compared when it was
    opened, others are computed from the finer ones.

    Raises
    ------
    InputError
        Naming the image, the level and how it differs.
    """
    for number, (fine, coarse) in enumerate(itertools.pairwise(levels[: index + 1]), start=1):
        if is_lazy(fine.pixels) or is_lazy(coarse.pixels):
            continue
        found = difference(_windows(fine), _windows(coarse))
        if found is not None:
            msg = (
                f"{name}: its level {number} of {coarse.shape[0]} x {coarse.shape[1]} px (y, x) does not show what the finer one "
                f"shows ({found}). Make the levels anew from the finest, with `Image2DModel.parse(finest, scale_factors=[2, 2], "
                f"...)`, or import the image again."
            )
            raise InputError(msg)


def difference(fine: Windows, coarse: Windows) -> Difference | None:
    """How a level differs from the finer one it should be a reduction of; None where it does not, or nothing is seen."""
    factors = [whole / part for whole, part in zip(fine.shape, coarse.shape, strict=True)]
    # a size that is no multiple leaves pixels out, at the end or, as spatialdata does, at the beginning
    steps = [max(round(factor), 1) for factor in factors]
    rests = [n - step * m for n, step, m in zip(fine.shape, steps, coarse.shape, strict=True)]
    trimmed = [0 <= rest < step for rest, step in zip(rests, steps, strict=True)]
    factors = [step if is_trimmed else factor for step, factor, is_trimmed in zip(steps, factors, trimmed, strict=True)]
    starts = itertools.product(
        *({0, rest} if is_trimmed else {0} for rest, is_trimmed in zip(rests, trimmed, strict=True))
    )
    found = []
    for start in starts:
        found.append(_compared(list(_pairs(fine, coarse, factors, start))))
        if found[-1] is None:
            return None
    return max(one for one in found if one is not None)


def _compared(pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Difference | None:
    means = np.array([[window.mean(axis=(0, 1)) for window in pair] for pair in pairs])
    ours, theirs = (
        np.concatenate([(pair[which] - means[i, which]).ravel() for i, pair in enumerate(pairs)]) for which in (0, 1)
    )
    spread = ours.std(), theirs.std()
    correlation = float((ours * theirs).mean() / max(spread[0] * spread[1], 1e-9))
    offset = float(np.abs(means[:, 0] - means[:, 1]).mean())
    if offset <= MAX_OFFSET and (max(spread) < MIN_TEXTURE or correlation >= MIN_CORRELATION):
        return None
    return Difference(correlation, (float(means[:, 0].mean()), float(means[:, 1].mean())))


def _pairs(
    fine: Windows, coarse: Windows, factors: list[float], start: tuple[int, ...]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Windows of the coarser level, and the same places of the finer one averaged to its pixels."""
    for place in PLACES:
        rows, columns = (_span(share, size) for share, size in zip(place, coarse.shape, strict=True))
        parts, weights = [], []
        for span, factor, first, size in zip((rows, columns), factors, start, fine.shape, strict=True):
            low, high = span.start * factor + first, span.stop * factor + first
            part = slice(int(low), min(int(np.ceil(high)), size))
            parts.append(part)
            weights.append(
                area_weights(round(low - part.start, 6), high - low, span.stop - span.start, part.stop - part.start)
            )
        window = np.asarray(fine.read(*parts), np.float64)
        averaged = np.tensordot(
            np.tensordot(weights[0], window, (1, 0)), weights[1], (1, 1)
        )  # (rows, channels, columns)
        yield np.asarray(coarse.read(rows, columns), np.float64), np.moveaxis(averaged, 1, 2)


def _span(share: float, size: int) -> slice:
    edge = min(WINDOW_PX, size)
    first = min(max(round(share * size) - edge // 2, 0), size - edge)
    return slice(first, first + edge)


def _windows(level: ImageLevel) -> Windows:
    pixels = zarr.open_array(level.pixels, mode="r") if isinstance(level.pixels, Path) else level.pixels

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        with decoding(lambda: sources_of(pixels)):
            return np.moveaxis(np.asarray(pixels[:, rows, columns]), 0, 2)

    return Windows(level.shape, read)


def is_lazy(pixels: Any) -> bool:
    """Whether an array is computed when it is read: a window of a coarse level may take the whole image."""
    if isinstance(pixels, FileLevel):
        return True
    data = pixels.data if isinstance(pixels, DataArray) else pixels
    return isinstance(data, DaskArray) and not all(str(layer).startswith(_AS_IT_IS) for layer in data.dask.layers)
