"""Tables in the form that a store keeps: names of their parts, kinds of their columns, and what is missing stays missing.

Floor 1, above the ground floor. Used by 11 modules of datasets, io, labels, pp, slide, store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from spatialdata import sanitize_name

from spatialsig._checks import first_few
from spatialsig.errors import InputError
from spatialsig.store.metadata import quiet_names
from spatialsig.store.stored.table import StoredTable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SECTIONS = ("obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns")
FRAMES = ("obs", "var")
X_AMONG_LAYERS = ("layers", None)
MAX_NAME = 200  # of a column, which is a directory
_CATEGORIES = frozenset({"string", "integer", "floating", "mixed-integer-float", "boolean", "empty"})
_FLOATS = ("float64", "float64")
# what objects are, and the kind they become where all are there, and where some are missing
_OBJECTS = {
    "integer": ("int64", "Int64"), "boolean": ("bool", "boolean"),
    "floating": _FLOATS, "mixed-integer-float": _FLOATS, "empty": _FLOATS,
}  # fmt: skip
_FIX = "Turn it into text, numbers or categories, for example with `.astype(str)`, or leave it out."


def parts_of(table: ad.AnnData, section: str) -> Mapping[str, Any]:
    """Entries of a section of a table; ``X``, which AnnData 0.13 lists among the layers as None, is none of them.

    Those of a table in a store are read when they are asked for.
    """
    if isinstance(table, StoredTable):
        stored: Mapping[str, Any] = getattr(table, section)
        return stored
    return {name: values for name, values in getattr(table, section).items() if (section, name) != X_AMONG_LAYERS}


def storable(table: ad.AnnData, *, where: str) -> ad.AnnData:
    """The same table if a store can keep it as it is, else a new one of the same arrays whose frames it can keep.

    Raises :class:`InputError` naming the parts that no store keeps, and the fix; ``where`` names the table.
    """
    for section in SECTIONS:
        check_names(parts_of(table, section), where=f"{where}.{section}")
    frames = {name: storable_frame(getattr(table, name), where=f"{where}.{name}") for name in FRAMES}
    framed = {key: values for key, values in table.obsm.items() if isinstance(values, pd.DataFrame)}
    kept = {key: storable_frame(values, where=f"{where}.obsm[{key!r}]") for key, values in framed.items()}
    if all(frames[name] is getattr(table, name) for name in FRAMES) and all(kept[key] is framed[key] for key in kept):
        return table
    others = {name: parts_of(table, name) for name in ("varm", "obsp", "varp", "layers")}
    with quiet_names():
        new = ad.AnnData(X=table.X, uns=dict(table.uns), obsm=dict(table.obsm) | kept, **frames, **others)
    if table.raw is not None:
        new.raw = table.raw.to_adata()
    return new


def check_names(names: Iterable[Any], *, where: str) -> None:
    """Raise :class:`InputError` naming columns or parts whose names cannot be stored, with names that can."""
    names = list(names)
    column = where.endswith(FRAMES)
    wanted = {name: _plain(name, column=column) for name in names}
    wrong = {name: plain for name, plain in wanted.items() if name != plain}
    folded = [str(name).casefold() for name in names]
    alike = [name for name, low in zip(names, folded, strict=True) if folded.count(low) > 1]
    if not (wrong or alike):
        return
    why = "names that differ in case only are one on some disks"
    if wrong:
        texts = [name for name in wrong if isinstance(name, str)]
        why = "names are letters, digits, '_', '-' and '.'" if texts else "names are text"
        why += (
            ", and '_index' and what begins with '__' belongs to the format"
            if any(t.startswith("_") for t in texts)
            else ""
        )
    fix = f"`rename(columns={wrong})`" if wrong else "Rename one of them"
    msg = (
        f"{where} has {first_few(list(map(repr, wrong or alike)), n=5)}, which cannot be stored: {why}. {fix}, or "
        "`spatialdata.sanitize_table(table)` for all at once."
    )
    raise InputError(msg)


def _plain(name: Any, *, column: bool) -> str:
    """The nearest name that can be stored: the same where it can."""
    return sanitize_name(str(name) or "unnamed", is_dataframe_column=column)[:MAX_NAME] if name != "" else "unnamed"


def storable_frame(frame: pd.DataFrame, *, where: str) -> pd.DataFrame:
    """The same frame if a store can keep its columns, else a copy with columns that it can."""
    changed = {}
    for name, values in frame.items():
        kept = storable_column(values, where=f"{where}[{name!r}]")
        if kept is not values:
            changed[str(name)] = kept
    index = frame.index
    if isinstance(index.dtype, pd.StringDtype):
        index = index.astype(object)
    if not changed and index is frame.index:
        return frame
    return frame.assign(**changed).set_axis(index, axis=0)


def storable_column(values: pd.Series[Any], *, where: str) -> pd.Series[Any]:
    """The same column if a store keeps it: numbers, booleans, text, categories, and what is missing among them.

    Text with missing values becomes categories, nullable floats become floats, objects of one kind that kind. Raises
    :class:`InputError` for anything else.
    """
    if isinstance(values.dtype, pd.ArrowDtype):
        values = values.convert_dtypes(dtype_backend="numpy_nullable")
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _categories(values, where=where)
    if isinstance(dtype, pd.Float32Dtype | pd.Float64Dtype):
        return pd.Series(values.to_numpy(np.float64, na_value=np.nan), index=values.index)
    if isinstance(dtype, pd.StringDtype):
        text = values.astype(object)
        return text.where(values.notna(), np.nan).astype("category") if values.isna().any() else text
    if dtype.kind == "O" and isinstance(dtype, np.dtype):
        return _objects(values, where=where)
    if dtype.kind not in "biufc":
        msg = f"{where} holds {dtype}, which cannot be stored. {_FIX}"
        raise InputError(msg)
    return values


def _categories(values: pd.Series[Any], *, where: str) -> pd.Series[Any]:
    categories = values.cat.categories
    if isinstance(categories.dtype, pd.StringDtype | pd.IntervalDtype):
        return values.cat.rename_categories(categories.astype(str).tolist())
    kind = pd.api.types.infer_dtype(categories)
    if kind not in _CATEGORIES:
        msg = f"{where} has categories that are {kind}, which cannot be stored. {_FIX}"
        raise InputError(msg)
    return values


def _objects(values: pd.Series[Any], *, where: str) -> pd.Series[Any]:
    """What a column of objects holds, as the kind that it is."""
    kind, missing = pd.api.types.infer_dtype(values, skipna=True), values.isna()
    if kind == "string" or values.empty:
        return values.where(~missing, np.nan).astype("category") if missing.any() else values
    if kind not in _OBJECTS:
        msg = f"{where} holds objects that are {kind}, which cannot be stored. {_FIX}"
        raise InputError(msg)
    objects: Any = values.where(~missing, None).tolist()
    kinds: Any = _OBJECTS[kind][int(missing.any())]
    typed: pd.Series[Any] = pd.Series(objects, index=values.index, dtype=kinds)
    return typed
