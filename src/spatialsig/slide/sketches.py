"""Short summaries of cells and images by which copies are known however they are stored: another layout, order, or half of the rows.

Floor 4, above train. Used by slide/copies.
"""

from __future__ import annotations

import warnings
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from scipy import sparse

from spatialsig import _keys
from spatialsig._files import DECODING_ERRORS
from spatialsig._hashing import content_hash
from spatialsig.errors import SpatialsigError, SpatialsigWarning
from spatialsig.slide.slides import open_slides
from spatialsig.store.matrices import is_stored, rows_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

N_CELLS = (
    512  # of a slide that are compared: those with the smallest hashes of their places, the same ones in every copy
)
N_COUNTED = 64  # ... whose counts are looked at where places are shared
MIN_SHARED = 0.25  # share of the places within the sample: a half of a slide shares half of it, another slide none
MIN_ALIKE, MIN_COUNTED = 0.9, 8  # share of the shared cells with counts that have the same, and how many different ones
_STEPS_PER_UNIT = 1000  # places are compared to a thousandth of a unit, whatever type they are stored in
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))  # odd numbers without a pattern
_SHIFT = np.uint64(29)


@dataclass(frozen=True)
class Cells:
    """Sample of the cells of a table in a store, by the hashes of their places; counts are read once they are asked for."""

    store: Path
    table: str
    places: NDArray[np.uint64]  # (n,), ascending
    rows: NDArray[np.int64]  # (n,), of the table

    def are_those_of(self, other: Cells) -> bool:
        """Whether one of two tables holds many of the cells of the other: the same places, with the same counts."""
        top = min(self.places[-1], other.places[-1])  # below it both samples are complete
        ours, theirs = (each.places[each.places <= top] for each in (self, other))
        shared = len(np.intersect1d(ours, theirs))
        if shared < MIN_SHARED * min(len(ours), len(theirs)) or shared < MIN_COUNTED:
            return False
        counted = self.counts.keys() & other.counts.keys()
        alike = [self.counts[place] for place in counted if self.counts[place] == other.counts[place]]
        # cells that all have one and the same count are alike on any slide
        return len(set(alike)) >= MIN_COUNTED and len(alike) >= MIN_ALIKE * len(counted)

    @cached_property
    def counts(self) -> dict[int, int]:
        """Hash of the counts of the first cells that have any, by that of their places; genes may be in any order."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SpatialsigWarning)
            (slide,) = open_slides(self.store)
            table = slide.sdata.tables[self.table]
        order = np.sort(self.rows[:N_COUNTED])
        values = rows_of(table.X, order) if is_stored(table.X) else table.X[order]
        values = sparse.csr_matrix(values)
        weights = np.array([zlib.crc32(str(name).encode()) for name in table.var_names], np.int64)
        values.data = np.round(np.nan_to_num(values.data.astype(np.float64)) * _STEPS_PER_UNIT)
        hashed = np.asarray(values.astype(np.int64) @ weights).ravel()
        place_of = dict(zip(self.rows.tolist(), self.places.tolist(), strict=True))
        return {place_of[row]: int(found) for row, found in zip(order.tolist(), hashed, strict=True) if found}


def cells_of(store: Path, table: str) -> Cells | None:
    """Sample of the cells of a table; None where nothing says where they lie, or they are too few to tell."""
    try:
        xy = np.asarray(zarr.open_array(store / "tables" / table / "obsm" / _keys.SPATIAL, mode="r")[:, :2], np.float64)
    except DECODING_ERRORS:  # a frame, of another program, or damaged, which the functions that read it say
        return None
    known = np.flatnonzero(np.isfinite(xy).all(axis=1))
    steps = np.round(xy[known] * _STEPS_PER_UNIT).astype(np.int64).view(np.uint64)
    hashed = _mixed(steps[:, 0] * _MIX[0] + _mixed(steps[:, 1]) * _MIX[1])
    if len(hashed) < MIN_COUNTED:
        return None
    first = np.argpartition(hashed, min(N_CELLS, len(hashed)) - 1)[:N_CELLS]
    first = first[np.argsort(hashed[first], kind="stable")]
    return Cells(store, table, hashed[first], known[first])


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    values = (values ^ (values >> _SHIFT)) * _MIX[0]
    return values ^ (values >> _SHIFT)


def image_sizes(store: Path) -> dict[str, tuple[int, ...]]:
    """Size of every image in a store, by name; those that cannot be read are left out."""
    found = {}
    for image in sorted((store / "images").iterdir()) if (store / "images").is_dir() else []:
        with suppress(*DECODING_ERRORS):
            found[image.name] = zarr.open_array(_levels(image)[0], mode="r").shape
    return found


def coarsest_hash(store: Path, image: str) -> str | None:
    """Hash of the coarsest level of an image, whatever its chunks; None where it cannot be read."""
    with suppress(*DECODING_ERRORS, SpatialsigError):
        pixels = np.asarray(zarr.open_array(_levels(store / "images" / image)[-1], mode="r")[:])
        return content_hash([str(pixels.shape), pixels])
    return None


def _levels(image: Path) -> list[Path]:
    """Arrays of the levels of an image, the finest first."""
    group: dict[str, Any] = zarr.open_group(image, mode="r").attrs.asdict()
    scales = group.get("ome", group)["multiscales"][0]["datasets"]
    return [image / dataset["path"] for dataset in scales]
