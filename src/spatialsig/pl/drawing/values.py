"""Scores of the patches of a slide, in the order of its patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import issparse

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig.errors import InputError

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.slide.patches import Patches
    from spatialsig.slide.slides import Slide

HOW_TO_MEASURE = "Call `sp.tl.aggregate_patches` first."
HOW_TO_PREDICT = "Call `sp.tl.predict` first."


def signature_table(slide: Slide, table_key: str, *, name: str) -> ad.AnnData:
    """Table of measured or predicted scores; the error names the slide, what exists, and the function that makes it."""
    fix = HOW_TO_PREDICT if name == "predictions_key" else HOW_TO_MEASURE
    return slide.table(table_key, name=name, fix=fix)


def shown_values(patches: Patches, name: str, table_key: str) -> NDArray[np.float64]:
    """Values that colour the patches, ``(n_patches,)``: a signature, a numeric column of its table, or one of the patches.

    Raises
    ------
    KeyMissingError
        If nothing numeric has that name; the message lists what has.
    """
    slide = patches.slide
    columns = patches.shapes.drop(columns="geometry").select_dtypes(["number", "bool"])
    if name in columns:
        shown: NDArray[np.float64] = columns[name].to_numpy(np.float64)
        return shown
    if table_key not in slide.sdata.tables:
        available = f"columns of {patches.key!r}, and there is no table {table_key!r} ({HOW_TO_MEASURE})"
        check_key(list(columns), name, name="signature", where=f"slide {slide.name!r}: {available}")
    table = slide.sdata.tables[table_key]
    numeric = table.obs.select_dtypes(["number", "bool"])
    if name in table.var_names:
        return patch_values(patches, table_key, name, name="signatures_key")
    where = f"the signatures and numeric columns of slide {slide.name!r}"
    check_key([*table.var_names, *numeric, *columns], name, name="signature", where=where)
    _check_annotates(patches, table_key)
    return patches.column(table_key, name)


def patch_values(
    patches: Patches, table_key: str, signature: str, *, name: str, fold: int | None = None
) -> NDArray[np.float64]:
    """One signature, ``(n_patches,)`` in the order of the patches; NaN where there is none.

    With ``fold``, patches of any other fold are NaN too. ``name`` is the argument that named the table.
    """
    table = signature_table(patches.slide, table_key, name=name)
    where = f"table {table_key!r} of slide {patches.slide.name!r}"
    check_key(list(table.var_names), signature, name="signature", where=where)
    _check_annotates(patches, table_key)
    rows = patches.rows_in(table_key)
    column = table[:, signature].X
    column = column.toarray() if issparse(column) else np.asarray(column)
    values = np.where(rows >= 0, column[rows, 0].astype(np.float64), np.nan)
    if fold is not None:
        check_key(list(table.obs), _keys.FOLD, name="obs", where=where, fix="Call `sp.pp.split` first.")
        values[patches.column(table_key, _keys.FOLD) != fold] = np.nan
    return values


def _check_annotates(patches: Patches, table_key: str) -> None:
    """Refuse a table none of whose rows describes one of the patches."""
    if not (patches.rows_in(table_key) >= 0).any():
        region = patches.slide.table(table_key).uns.get("spatialdata_attrs", {}).get("region")
        msg = f"table {table_key!r} of slide {patches.slide.name!r} annotates {region!r}, not `patches_key={patches.key!r}`."
        raise InputError(msg)
