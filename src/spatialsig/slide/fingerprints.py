"""Fingerprints of what the parts of a slide hold: the same in memory and in any store, another one when a value changes.

Floor 4, above train. Used by slide/lineage.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import compress
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pandas as pd
import shapely
from dask.base import compute
from imagecodecs import deflate_crc32
from scipy import sparse

from spatialsig import _keys
from spatialsig._hashing import json_hash
from spatialsig.data.level_pixels import is_lazy
from spatialsig.slide.coordinates import full_resolution
from spatialsig.store.chunk_files import check_whole, sources_of, states_of
from spatialsig.store.layout import levels_of
from spatialsig.store.matrices import is_stored, rows_of, value_blocks
from spatialsig.store.stored.answers import ANSWERS
from spatialsig.store.stored.damage import decoding
from spatialsig.store.stored.files import StoredNames
from spatialsig.store.stored.table import Columns, row_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import anndata as ad
    from numpy.typing import NDArray
    from xarray import DataArray, DataTree

BLOCK_PX = 256  # edge of the three blocks of an image that stand for its pixels, and of the chunks we write
WHOLE = 2**20  # values of an image that are few enough to look at all of them
WHOLE_LEVEL = 2**22  # ... of a coarser level: the coarsest one, of 1,024 px at most, shows the whole image
N_SPOTS = 64  # values of a table that tell a selection of its rows and columns from other numbers
T = TypeVar("T")
crc32: Callable[..., int] = deflate_crc32  # the numbers of `zlib.crc32`, five times as fast
_SPARSE = (sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.csc_array)


class Kept:
    """What was found of objects, as long as they live; right where nobody writes into them."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, str], tuple[weakref.ref[Any], Any]] = {}

    def of(self, value: Any, what: Callable[[Any], T]) -> T:
        """``what(value)``, found once for each object."""
        key = id(value), what.__name__
        reference, found = self._found.get(key, (None, None))
        if reference is None or reference() is not value:  # an id is given anew once its object is gone
            found = what(value)
            self._found[key] = weakref.ref(value, lambda _: self._found.pop(key, None)), found
        return cast("T", found)


@dataclass(frozen=True)
class Names:
    """Names of rows or columns, which all parts of a table share."""

    index: pd.Index | StoredNames
    kept: Kept

    @property
    def checksum(self) -> list[int]:
        """Length and checksum."""
        return self.kept.of(self.index, _text)


@dataclass(frozen=True)
class Numbers:
    """Numbers of a part of a table, with the names of their rows and columns; what is derived of them is kept."""

    values: Any  # array or sparse matrix
    rows: Names
    columns: Names
    kept: Kept

    @classmethod
    def of(cls, table: ad.AnnData, aspect: str, kept: Kept) -> Numbers | None:
        """Numbers of ``X``, ``obsm/key`` or ``layers/key``; None where there are none in memory."""
        section, _, key = aspect.partition("/")
        if section not in {"X", "obsm", "layers"}:
            return None
        values = table.X if section == "X" else getattr(table, section).get(key)
        values = values.to_numpy() if isinstance(values, pd.DataFrame) else values
        if not (
            isinstance(values, _SPARSE)
            or is_stored(values)
            or (isinstance(values, np.ndarray) and not values.dtype.hasobject)
        ):
            return None
        columns = pd.RangeIndex(values.shape[1]).astype(str) if section == "obsm" else table.var_names
        return cls(values, Names(row_names(table), kept), Names(columns, kept), kept)

    @property
    def fingerprint(self) -> str:
        """Hash of names and values."""
        return json_hash([self.rows.checksum, self.columns.checksum, self.kept.of(self.values, _checksums)])

    @property
    def form(self) -> list[Any]:
        """What may differ while the numbers stay the same: order of names, kind of matrix, type."""
        kind = sparse.csr_matrix if is_stored(self.values) else type(self.values)
        return [self.rows.checksum, self.columns.checksum, str(kind), str(self.values.dtype)]

    @cached_property
    def spots(self) -> dict[str, Any]:
        """Some values with the names of their rows and columns, the sum of all, and their form; empty without values."""
        if 0 in self.values.shape:
            return {}
        row = np.unique(np.linspace(0, self.values.shape[0] - 1, N_SPOTS).astype(int))
        column = row % self.values.shape[1]
        if sparse.issparse(self.values) or is_stored(
            self.values
        ):  # the first of each row that holds something: zeros tell little
            chosen = rows_of(self.values, row).tocsr()
            filled = np.diff(chosen.indptr) > 0
            column[filled] = chosen.indices[chosen.indptr[:-1][filled]]
        return {
            "n": list(self.values.shape),
            "row": self.rows.index[row].astype(str).tolist(),
            "column": self.columns.index[column].astype(str).tolist(),
            "value": self._at(row, column),
            "sum": self.kept.of(self.values, _sum).hex(),
            "kept": self.form,
        }

    def _at(self, rows: NDArray[Any], columns: NDArray[Any]) -> list[str]:
        """Values exactly, as text: JSON knows neither NaN nor infinity."""
        found = (
            rows_of(self.values, rows).tocsr()[np.arange(len(rows)), columns]
            if is_stored(self.values)
            else self.values[rows, columns]
        )
        return [(float(value) + 0.0).hex() for value in np.asarray(found).ravel()]

    def is_selection(self, spots: Mapping[str, Any]) -> bool:
        """Whether these are the numbers of ``spots``, or some of their rows and columns, in another order or form.

        That is so when the values that were kept are the same, and where nothing was left out also the sum of all.
        """
        if not (self.rows.index.is_unique and self.columns.index.is_unique):
            return False
        if list(self.values.shape) == list(spots["n"]):
            if self.form == spots["kept"] or not self._has_sum(float.fromhex(spots["sum"])):
                return False
        elif any(now > before for now, before in zip(self.values.shape, spots["n"], strict=True)):
            return False
        row, column = self.rows.index.get_indexer(spots["row"]), self.columns.index.get_indexer(spots["column"])
        kept = (row >= 0) & (column >= 0)
        before = list(compress(spots["value"], kept))
        return bool(kept.any()) and self._at(row[kept], column[kept]) == before

    def _has_sum(self, before: float) -> bool:
        return bool(np.isclose(self.kept.of(self.values, _sum), before, rtol=1e-9, atol=0, equal_nan=True))


def of_shapes(shapes: pd.DataFrame, spec: Mapping[str, Any] | None) -> str:
    """Places of patches; outlines of other shapes."""
    if spec is None or not {_keys.Y0, _keys.X0} <= set(shapes):
        return json_hash([_text(shapes.index), crc32(b"".join(shapely.to_wkb(np.asarray(shapes["geometry"]))))])
    origins = np.asarray(shapes[[_keys.Y0, _keys.X0]], np.int64)
    return json_hash([_text(shapes.index), _checksums(origins), spec["size_l0"], spec["image_key"]])


def of_pixels(image: DataArray | DataTree, number: int = 0) -> str | None:
    """Size of a level of an image, and three blocks of it (a small one whole): the same in any layout of a store.

    None where there is no such level, and for a coarser one that is lazy and large: its pixels are made from the finest
    when they are read, and a block of it would take all of them.
    """
    if number == 0:
        check_whole(image)  # of all levels: what is lost is not what was changed
        return _of_blocks(full_resolution(image), whole=WHOLE)
    levels = levels_of(image)
    if number >= len(levels) or (is_lazy(levels[number]) and levels[0].size > WHOLE_LEVEL):
        return None
    return _of_blocks(levels[number], whole=WHOLE_LEVEL)


def _of_blocks(level: DataArray, *, whole: int) -> str:
    """As :func:`of_pixels`; of a level in a store once for as long as the files of these blocks stay."""
    height, width = level.sizes["y"], level.sizes["x"]
    blocks = [(slice(0, height), slice(0, width))]
    if level.size > whole:
        blocks = []
        for share in (0.25, 0.5, 0.75):
            y, x = (int(share * size) // BLOCK_PX * BLOCK_PX for size in (height, width))  # no block lies in two chunks
            blocks.append((slice(y, min(y + BLOCK_PX, height)), slice(x, min(x + BLOCK_PX, width))))
    channels = [slice(0, level.sizes["c"])] if "c" in level.dims else []  # labels have none
    regions = tuple((*channels, *block) for block in blocks)
    state = states_of(level, regions)
    if state is None:
        return _of_regions(level, regions)
    return ANSWERS.of(json_hash([level.shape, level.dtype.str, state]), partial(_of_regions, level, regions))


def _of_regions(level: DataArray, regions: tuple[tuple[slice, ...], ...]) -> str:
    blocks = [level[region].data for region in regions]
    # stored blocks are read faster than threads are started
    with decoding(lambda: sources_of(level)):
        pixels = compute(*blocks, scheduler=None if is_lazy(level) else "synchronous")  # type: ignore[no-untyped-call]
    found = [_checksums(np.asarray(block)) for block in pixels]
    return json_hash([level.sizes["y"], level.sizes["x"], found[0] if len(found) == 1 else found])


def of_column(frame: pd.DataFrame | Columns, key: str, kept: Kept) -> str | None:
    """Hash of a column by the names of its rows, whatever their order; None where it is not there.

    The sum of ``pandas.util.hash_pandas_object`` over the rows as text, with each name and each distinct value hashed once.
    """
    if key not in frame:
        return None
    if pd.api.types.is_float_dtype(frame[key]):  # hardly any value twice, and 0.0 is not -0.0
        codes, values = np.arange(len(frame)), frame[key]
    else:
        codes, distinct = pd.factorize(frame[key], use_na_sentinel=False)
        values = pd.Series(distinct)
    # objects, and one word for what is missing: the same whatever kind of text pandas uses
    text = values.astype(str).astype(object).where(values.notna(), "nan").to_numpy()
    index = frame.names if isinstance(frame, Columns) else frame.index
    by_name = np.full(len(frame), 0x345678, np.uint64)
    for number, hashes in enumerate((_hashes(text)[codes], kept.of(index, _hashes_of_names))):
        by_name = (by_name ^ hashes) * np.uint64(1000003 + number * (82520 + 4))
    return json_hash([len(frame), int((by_name + np.uint64(97531)).sum(dtype=np.uint64))])


def _hashes_of_names(names: pd.Index | StoredNames) -> NDArray[np.uint64]:
    return np.concatenate(
        [_hashes(block.astype(object).to_numpy()) for block in _blocks(names)] or [np.empty(0, np.uint64)]
    )


def _blocks(names: pd.Index | StoredNames) -> Iterable[pd.Index]:
    return names.blocks() if isinstance(names, StoredNames) else [names]


def _hashes(values: NDArray[np.object_]) -> NDArray[np.uint64]:
    return pd.util.hash_array(values, categorize=False)


def _checksums(values: Any) -> list[Any]:
    """Shape, type and checksum of an array, or of the arrays of a sparse matrix."""
    if is_stored(values):
        return [values.shape, *(_checksums_of(value_blocks(values, part)) for part in ("data", "indices", "indptr"))]
    if isinstance(values, _SPARSE):
        return [values.shape, *(_checksums(part) for part in (values.data, values.indices, values.indptr))]
    return [values.shape, values.dtype.str, crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)]


def _sum(values: Any) -> float:
    """Sum of what is a number; rows without a label are NaN."""
    if is_stored(values):
        return sum(map(_sum, value_blocks(values, "data")), start=0.0)
    held = values.data if sparse.issparse(values) else values
    total = float(held.sum(dtype=np.float64))
    return total if np.isfinite(total) else float(np.nansum(held, dtype=np.float64))


def _checksums_of(blocks: Iterable[NDArray[Any]]) -> list[Any]:
    """Shape, type and checksum of an array that is read block by block."""
    n, kind, checksum = 0, "", 0
    for block in blocks:
        n, kind, checksum = (
            n + len(block),
            block.dtype.str,
            crc32(np.ascontiguousarray(block).view(np.uint8).data, checksum),
        )
    return [(n,), kind, checksum]


def _text(names: pd.Index | StoredNames) -> list[int]:
    """Length and checksum of names, with a line break between two."""
    checksum = 0
    for number, block in enumerate(_blocks(names)):
        joined = ("\n" if number else "") + _joined(block.tolist())
        checksum = crc32(joined.encode(), checksum)
    return [len(names), checksum]


def _joined(names: list[Any]) -> str:
    try:
        return "\n".join(names)
    except TypeError:  # numbers, dates, missing ones
        return "\n".join(map(str, names))
