"""What every result was made from: recorded when it is written, compared before it is used.

A part is an element of the object or something in it: ``patches``, ``table/X``, ``table/obsm/X_ae``,
``he_image/pixels``, ``he_image/place``. What a function writes is recorded in ``attrs["spatialsig"]["lineage"]`` with the
fingerprints of what it was made from. A part without a record, made in memory or by other software, is taken as it is.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
from scipy import sparse

from spatialsig import _keys
from spatialsig._hashing import json_hash
from spatialsig.errors import AlignmentError, StaleError
from spatialsig.slide.coordinates import full_resolution, image_to_um

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import anndata as ad
    from numpy.typing import NDArray
    from xarray import DataArray, DataTree

    from spatialsig.slide.slides import Slide

LINEAGE = "lineage"  # under attrs["spatialsig"]
MADE_BY, CONTENT, SOURCES, SPOTS = "made_by", "content", "from", "spots"
PIXELS, PLACE, STAIN = "pixels", "place", "stain"  # of an image; of patches
FOLDS = "/folds"  # part that is the folds of the slide; no element has a name like this
BLOCK_PX = 256  # edge of the three blocks of an image that stand for its pixels, and of the chunks we write
N_SPOTS = 64  # values of a table that tell a selection of its rows and columns from other numbers


def pixels_of(image_key: str) -> str:
    """Part that is the pixels of an image."""
    return f"{image_key}/{PIXELS}"


def place_of(image_key: str) -> str:
    """Part that is where an image lies."""
    return f"{image_key}/{PLACE}"


def stain_of(patches_key: str) -> str:
    """Part that is the matrix by which the colours of patches are normalised."""
    return f"{patches_key}/{STAIN}"


def counts_of_table(table_key: str, test_fold: int | None = None) -> list[str]:
    """Parts that are ``X`` of a table and, where a fold of it is left out, the folds."""
    return [f"{table_key}/X", *([] if test_fold is None else [FOLDS])]


class Lineage:
    """Record of what the parts of one slide were made from; what was found is kept until :meth:`forget`."""

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self._prints: dict[str, str | None] = {}
        self._fresh: set[str] = set()

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """Part -> who made it, its fingerprint then, those of its sources, and values by which a selection is known."""
        entries: dict[str, dict[str, Any]] = self.slide.attrs.get(LINEAGE, {})
        return entries

    def forget(self) -> None:
        """Look at every part anew: something was replaced."""
        self._prints.clear()
        self._fresh.clear()

    def record(self, part: str, sources: Iterable[str], *, made_by: str) -> None:
        """Record on the object what a part was made from; sources that are not there are left out."""
        prints = {source: self.fingerprint(source) for source in sources}
        self.slide.attrs.setdefault(LINEAGE, {})[part] = {
            MADE_BY: made_by,
            CONTENT: self.fingerprint(part),
            SOURCES: {source: found for source, found in prints.items() if found is not None},
            SPOTS: {source: spots for source in sorted(prints) if (spots := _spots(*self._numbers(source)))},
        }

    def check(self, part: str) -> None:
        """Refuse a stale part; whatever reads a part of a slide, in any room above too, calls this first.

        Raises
        ------
        StaleError
            Naming the part, what changed, and the function to call again.
        """
        for message in self.stale(part):
            raise StaleError(message)

    def stale(self, part: str) -> Iterator[str]:
        """What has changed since a part was made, one sentence each, in the order in which to make things again."""
        if part in self._fresh:
            return
        recorded = self.entries.get(part, self.entries.get(part.partition("/")[0], {SOURCES: {}}))
        fresh = True
        for source, before in sorted(recorded[SOURCES].items()):
            for message in self.stale(source):
                fresh = False
                yield message
            by_row = part.startswith(
                f"{source.partition('/')[0]}/"
            )  # belongs to single rows, so that others may be left out
            if not self._is_same(source, before, recorded[SPOTS].get(source), by_row=by_row):
                fresh = False
                yield (
                    f"slide {self.slide.name!r}: {self._described(part)} was made from {self._described(source)}, which "
                    f"changed afterwards; call `sp.{recorded[MADE_BY]}` again."
                )
        if fresh:
            self._fresh.add(part)

    def rows(self) -> Iterator[dict[str, str]]:
        """Every part that a function of ours made: ``part``, ``made_by``, ``made_from``, ``state``, ``detail``."""
        for part, entry in self.entries.items():
            if self.fingerprint(part) is None or not entry[MADE_BY]:
                continue
            reasons = list(dict.fromkeys(self.stale(part)))
            made = {"part": part, "made_by": f"sp.{entry[MADE_BY]}", "made_from": ", ".join(entry[SOURCES])}
            yield made | {"state": "stale" if reasons else "fresh", "detail": " ".join(reasons)}

    def fingerprint(self, part: str) -> str | None:
        """Hash of what a part holds now; None where it is not there or holds what is not in memory."""
        if part not in self._prints:
            self._prints[part] = self._fingerprint(part)
        return self._prints[part]

    def _fingerprint(self, part: str) -> str | None:
        attrs, sdata = self.slide.attrs, self.slide.sdata
        key, _, aspect = part.partition("/")
        if part == FOLDS:
            return json_hash(attrs["split"]) if "split" in attrs else None
        if key in sdata.tables:
            return _of_table(sdata.tables[key], *self._numbers(part), aspect=aspect)
        if key in sdata.images:
            return self._of_place(key) if aspect == PLACE else _of_pixels(sdata.images[key])
        if key not in sdata.shapes:
            return None
        spec = attrs.get("patches", {}).get(key)
        if aspect == STAIN:
            return json_hash((spec or {}).get(STAIN))
        return _of_shapes(sdata.shapes[key], spec)

    def _of_place(self, image_key: str) -> str | None:
        try:
            matrix = image_to_um(self.slide, image_key)
        except AlignmentError:
            return None
        return json_hash((np.round(matrix, 9) + 0.0).tolist())

    def _numbers(self, part: str) -> tuple[Any, pd.Index, pd.Index]:
        """Numbers of a part of a table, names of their rows, and of their columns; None where there are none in memory."""
        key, _, aspect = part.partition("/")
        section, _, name = (aspect or "X").partition("/")
        table = self.slide.sdata.tables.get(key)
        if table is None or section not in {"X", "obsm", "layers"}:
            return None, pd.Index([]), pd.Index([])
        values = table.X if section == "X" else getattr(table, section).get(name)
        values = values.to_numpy() if isinstance(values, pd.DataFrame) else values
        if _checksums(values) is None:
            return None, pd.Index([]), pd.Index([])
        columns = pd.RangeIndex(values.shape[1]).astype(str) if section == "obsm" else table.var_names
        return values, table.obs_names, columns

    def _is_same(self, source: str, before: str, spots: Mapping[str, Any] | None, *, by_row: bool) -> bool:
        now = self.fingerprint(source)
        if now is None or now == before or spots is None:
            return now is None or now == before
        values, rows, columns = self._numbers(source)
        if list(values.shape) != list(spots["n"]) and not by_row:
            return False
        return _is_selection(spots, values, rows, columns)

    def _described(self, part: str) -> str:
        key, _, aspect = part.partition("/")
        section, _, name = aspect.partition("/")
        if part == FOLDS:
            return "its folds"
        if section in {PIXELS, PLACE, STAIN}:
            what = {PIXELS: "the pixels of image", PLACE: "the alignment of image", STAIN: "the stain of patches"}
            return f"{what[section]} {key!r}"
        if section:
            return f"`tables[{key!r}].{section}[{name!r}]`" if name else f"`tables[{key!r}].{section}`"
        sdata = self.slide.sdata
        kind = "table" if key in sdata.tables else "image" if key in sdata.images else "shapes"
        return f"{kind} {key!r}"


def _of_shapes(shapes: pd.DataFrame, spec: Mapping[str, Any] | None) -> str:
    """Places of patches; outlines of other shapes."""
    if spec is None or not {_keys.Y0, _keys.X0} <= set(shapes):
        return json_hash([_text(shapes.index), zlib.crc32(b"".join(shapely.to_wkb(np.asarray(shapes["geometry"]))))])
    origins = np.asarray(shapes[[_keys.Y0, _keys.X0]], np.int64)
    return json_hash([_text(shapes.index), _checksums(origins), spec["size_l0"], spec["image_key"]])


def _of_pixels(image: DataArray | DataTree) -> str:
    """Size of an image, and three blocks of it at full resolution: the same in memory and in any layout of a store."""
    full = full_resolution(image)
    height, width = full.sizes["y"], full.sizes["x"]
    blocks = []
    for share in (0.25, 0.5, 0.75):
        y, x = (int(share * size) // BLOCK_PX * BLOCK_PX for size in (height, width))  # no block lies in two chunks
        blocks.append(_checksums(full[:, y : y + BLOCK_PX, x : x + BLOCK_PX].to_numpy()))
    return json_hash([height, width, blocks])


def _of_table(table: ad.AnnData, values: Any, rows: pd.Index, columns: pd.Index, *, aspect: str) -> str | None:
    section, _, key = aspect.partition("/")
    if section in {"obs", "var"}:
        frame = getattr(table, section)
        if key not in frame:
            return None
        by_name = pd.util.hash_pandas_object(frame[key].astype(str), index=True)  # a sum of them knows no order
        return json_hash([len(frame), int(by_name.to_numpy().sum(dtype=np.uint64))])
    return None if values is None else json_hash([_text(rows), _text(columns), _checksums(values)])


def _checksums(values: Any) -> list[Any] | None:
    """Shape, type and checksum of an array or sparse matrix; None for what is not in memory."""
    if isinstance(values, sparse.csr_matrix | sparse.csr_array | sparse.csc_matrix | sparse.csc_array):
        return [values.shape, *(_checksums(part) for part in (values.data, values.indices, values.indptr))]
    if not isinstance(values, np.ndarray) or values.dtype.hasobject:
        return None
    return [values.shape, values.dtype.str, zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)]


def _text(names: pd.Index | pd.Series) -> list[int]:
    """Length and checksum of names, or of a column of any type."""
    return [len(names), zlib.crc32("\n".join(map(str, names)).encode())]


def _spots(values: Any, rows: pd.Index, columns: pd.Index) -> dict[str, Any] | None:
    """Some values of a table with the names of their rows and columns."""
    if values is None or 0 in values.shape:
        return None
    row = np.unique(np.linspace(0, len(rows) - 1, N_SPOTS).astype(int))
    column = row % values.shape[1]
    if sparse.issparse(values):  # the first of each row that holds something: zeros tell little
        chosen = values[row].tocsr()
        filled = np.diff(chosen.indptr) > 0
        column[filled] = chosen.indices[chosen.indptr[:-1][filled]]
    names = {"row": rows[row].astype(str).tolist(), "column": columns[column].astype(str).tolist()}
    return {"n": list(values.shape), **names, "value": _at(values, row, column), **_whole(values, rows, columns)}


def _whole(values: Any, rows: pd.Index, columns: pd.Index) -> dict[str, Any]:
    """What tells the same numbers in another order or form from other numbers: their sum, and how they were kept."""
    return {
        "sum": float(values.sum(dtype=np.float64)),
        "kept": [_text(rows), _text(columns), str(type(values)), str(values.dtype)],
    }


def _at(values: Any, rows: NDArray[Any], columns: NDArray[Any]) -> list[float]:
    return [float(value) for value in np.asarray(values[rows, columns]).ravel()]


def _is_selection(spots: Mapping[str, Any], values: Any, rows: pd.Index, columns: pd.Index) -> bool:
    """Whether a table now holds what it held, or some of its rows and columns, in another order or form.

    That is so when the values that were kept are the same, and where nothing was left out also the sum of all.
    """
    if list(values.shape) == list(spots["n"]):
        whole = _whole(values, rows, columns)
        if whole["kept"] == spots["kept"] or not np.isclose(whole["sum"], spots["sum"], rtol=1e-9, atol=0):
            return False
    elif any(now > before for now, before in zip(values.shape, spots["n"], strict=True)):
        return False
    row, column = rows.get_indexer(spots["row"]), columns.get_indexer(spots["column"])
    kept = (row >= 0) & (column >= 0)
    before = np.asarray(spots["value"], float)[kept]
    return bool(kept.any()) and np.array_equal(_at(values, row[kept], column[kept]), before, equal_nan=True)
