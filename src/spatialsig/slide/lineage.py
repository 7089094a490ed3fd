"""What every result was made from: recorded when it is written, compared before it is used.

A part is an element of the object or something in it: ``patches``, ``table/X``, ``table/obsm/X_ae``,
``he_image/pixels``, ``he_image/place``. What a function writes is recorded in ``attrs["spatialsig"]["lineage"]`` with the
fingerprints of what it was made from. A part without a record, made in memory or by other software, is taken as it is.
What was found is kept in ``slide.prints`` and ``slide.verified`` until ``slide.changed()``.
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
BLOCK_PX = 256  # edge of the three blocks of an image that stand for its pixels
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


def record(slide: Slide, part: str, sources: Iterable[str], *, made_by: str) -> None:
    """Record on the object what a part was made from; sources that are not there are left out."""
    prints = {source: fingerprint(slide, source) for source in sources}
    by_row = {source for source in prints if part.startswith(f"{source.partition('/')[0]}/")}
    slide.attrs.setdefault(LINEAGE, {})[part] = {
        MADE_BY: made_by,
        CONTENT: fingerprint(slide, part),
        SOURCES: {source: print_ for source, print_ in prints.items() if print_ is not None},
        SPOTS: {source: spots for source in sorted(by_row) if (spots := _spots(slide, source))},
    }


def check_fresh(slide: Slide, part: str) -> None:
    """Refuse a stale part; whatever reads a part of a slide, in any room above too, calls this first.

    Raises
    ------
    StaleError
        Naming the part, what changed, and the function to call again.
    """
    for message in stale(slide, part):
        raise StaleError(message)


def stale(slide: Slide, part: str) -> Iterator[str]:
    """What has changed since a part was made, one sentence each."""
    if part in slide.verified:
        return
    entry = _entry(slide, part) or {SOURCES: {}}
    fresh = True
    for source, before in sorted(entry[SOURCES].items()):
        if not _is_same(slide, source, before, entry[SPOTS].get(source)):
            fresh = False
            yield (
                f"slide {slide.name!r}: {_described(slide, part)} was made from {_described(slide, source)}, which changed "
                f"afterwards; call `sp.{entry[MADE_BY]}` again."
            )
        for message in stale(slide, source):
            fresh = False
            yield message
    if fresh:
        slide.verified.add(part)


def lineage_rows(slide: Slide) -> list[dict[str, str]]:
    """Every recorded part that is there: ``part``, ``made_by``, ``made_from``, ``state`` (``fresh`` or ``stale``), ``detail``."""
    recorded: dict[str, dict[str, Any]] = slide.attrs.get(LINEAGE, {})
    rows = []
    for part, entry in recorded.items():
        if fingerprint(slide, part) is None or not entry[MADE_BY]:
            continue
        reasons = list(dict.fromkeys(stale(slide, part)))
        made = {"part": part, "made_by": f"sp.{entry[MADE_BY]}", "made_from": ", ".join(entry[SOURCES])}
        rows.append(made | {"state": "stale" if reasons else "fresh", "detail": " ".join(reasons)})
    return rows


def _entry(slide: Slide, part: str) -> dict[str, Any] | None:
    """Record of a part, or of the element that it was written with."""
    recorded: dict[str, Any] = slide.attrs.get(LINEAGE, {})
    return recorded.get(part, recorded.get(part.partition("/")[0]))


def fingerprint(slide: Slide, part: str) -> str | None:
    """Hash of what a part holds now; None where it is not there or holds what is not in memory."""
    if part not in slide.prints:
        slide.prints[part] = _fingerprint(slide, part)
    return slide.prints[part]


def _fingerprint(slide: Slide, part: str) -> str | None:
    key, _, aspect = part.partition("/")
    if part == FOLDS:
        return json_hash(slide.attrs["split"]) if "split" in slide.attrs else None
    if key not in slide.sdata:
        return None
    if key in slide.sdata.tables:
        return _of_table(slide.sdata.tables[key], aspect)
    if key in slide.sdata.images:
        return _of_place(slide, key) if aspect == PLACE else _of_pixels(slide.sdata.images[key])
    if aspect == STAIN:
        return json_hash(slide.attrs.get("patches", {}).get(key, {}).get(STAIN))
    return _of_shapes(slide, key) if key in slide.sdata.shapes else None


def _of_shapes(slide: Slide, key: str) -> str:
    """Places of patches; outlines of other shapes."""
    shapes, spec = slide.sdata.shapes[key], slide.attrs.get("patches", {}).get(key)
    if spec is None or not {_keys.Y0, _keys.X0} <= set(shapes):
        wkb = shapely.to_wkb(np.asarray(shapes.geometry))
        return json_hash([_text(shapes.index), zlib.crc32(b"".join(wkb)), len(wkb)])
    origins = np.asarray(shapes[[_keys.Y0, _keys.X0]], np.int64)
    return json_hash([_text(shapes.index), _numbers(origins), spec["size_l0"], spec["image_key"]])


def _of_place(slide: Slide, image_key: str) -> str | None:
    try:
        matrix = image_to_um(slide, image_key)
    except AlignmentError:
        return None
    return json_hash((np.round(matrix, 9) + 0.0).tolist())


def _of_pixels(image: DataArray | DataTree) -> str:
    """Size of an image, and three blocks of it at full resolution: the same in memory and in any layout of a store."""
    full = full_resolution(image)
    height, width = full.sizes["y"], full.sizes["x"]
    blocks = []
    for share in (0.25, 0.5, 0.75):
        y, x = (max(0, int(share * size) - BLOCK_PX // 2) for size in (height, width))
        blocks.append(_numbers(full[:, y : y + BLOCK_PX, x : x + BLOCK_PX].to_numpy()))
    return json_hash([height, width, blocks])


def _of_table(table: ad.AnnData, aspect: str) -> str | None:
    section, _, key = (aspect or "X").partition("/")
    if section in {"obs", "var"}:
        frame = getattr(table, section)
        return json_hash([_text(frame.index), _text(frame[key])]) if key in frame else None
    numbers = _numbers(_array(table, section, key))
    if numbers is None:
        return None
    columns = _text(table.var_names) if section in {"X", "layers"} else 0
    return json_hash([_text(table.obs_names), columns, numbers])


def _array(table: ad.AnnData, section: str, key: str) -> Any:
    """Numbers of a table in memory; None where they are not there."""
    values = table.X if section == "X" else getattr(table, section).get(key)
    return values.to_numpy() if isinstance(values, pd.DataFrame) else values


def _numbers(values: Any) -> list[Any] | None:
    """Shape, type and checksum of an array or sparse matrix; None for what is not in memory."""
    if isinstance(values, sparse.csr_matrix | sparse.csr_array | sparse.csc_matrix | sparse.csc_array):
        return [values.shape, *(_numbers(part) for part in (values.data, values.indices, values.indptr))]
    if not isinstance(values, np.ndarray) or values.dtype.hasobject:
        return None
    return [values.shape, values.dtype.str, zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)]


def _text(names: pd.Index | pd.Series) -> list[int]:
    """Length and checksum of names, or of a column of any type."""
    return [len(names), zlib.crc32("\n".join(map(str, names)).encode())]


def _is_same(slide: Slide, source: str, before: str, spots: Mapping[str, Any] | None) -> bool:
    now = fingerprint(slide, source)
    return now is None or now == before or (spots is not None and _is_selection(slide, source, spots))


def _spots(slide: Slide, source: str) -> dict[str, Any] | None:
    """Some values of a table with the names of their rows and columns."""
    key, _, aspect = source.partition("/")
    section, _, name = aspect.partition("/")
    if key not in slide.sdata.tables or section not in {"X", "obsm", "layers"}:
        return None
    table = slide.sdata.tables[key]
    values = _array(table, section, name)
    if _numbers(values) is None or 0 in values.shape:
        return None
    rows = np.unique(np.linspace(0, table.n_obs - 1, N_SPOTS).astype(int))
    columns = _shown_columns(values, rows)
    return {
        "n": list(values.shape),
        "row": table.obs_names[rows].astype(str).tolist(),
        "column": [str(c) for c in (table.var_names[columns] if section != "obsm" else columns)],
        "value": _at(values, rows, columns),
    }


def _shown_columns(values: Any, rows: NDArray[Any]) -> NDArray[np.int64]:
    """A column for each row: in turn, or the first that holds something in a sparse matrix."""
    columns = rows % values.shape[1]
    if sparse.issparse(values):
        by_row = values[rows].tocsr()
        filled = np.diff(by_row.indptr) > 0
        columns[filled] = by_row.indices[by_row.indptr[:-1][filled]]
    return np.asarray(columns, np.int64)


def _at(values: Any, rows: NDArray[Any], columns: NDArray[Any]) -> list[float]:
    return [float(value) for value in np.asarray(values[rows, columns]).ravel()]


def _is_selection(slide: Slide, source: str, spots: Mapping[str, Any]) -> bool:
    """Whether a table now holds some rows and columns of what it held, with the same values as far as they were kept."""
    key, _, aspect = source.partition("/")
    section, _, name = aspect.partition("/")
    table = slide.sdata.tables[key]
    values = _array(table, section, name)
    smaller = all(now <= before for now, before in zip(values.shape, spots["n"], strict=True))
    if not smaller or list(values.shape) == list(spots["n"]):
        return False
    names = table.var_names if section != "obsm" else pd.RangeIndex(values.shape[1]).astype(str)
    rows, columns = table.obs_names.get_indexer(spots["row"]), names.get_indexer(spots["column"])
    kept = (rows >= 0) & (columns >= 0)
    before = np.asarray(spots["value"], float)[kept]
    return bool(kept.any()) and np.array_equal(_at(values, rows[kept], columns[kept]), before, equal_nan=True)


def _described(slide: Slide, part: str) -> str:
    key, _, aspect = part.partition("/")
    section, _, name = aspect.partition("/")
    if part == FOLDS:
        return "its folds"
    if section in {PIXELS, PLACE, STAIN}:
        what = {PIXELS: "the pixels of image", PLACE: "the alignment of image", STAIN: "the stain of patches"}[section]
        return f"{what} {key!r}"
    if section:
        return f"`tables[{key!r}].{section}[{name!r}]`" if name else f"`tables[{key!r}].{section}`"
    kind = "table" if key in slide.sdata.tables else "image" if key in slide.sdata.images else "shapes"
    return f"{kind} {key!r}"
