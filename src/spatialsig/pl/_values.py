"""Scores of the patches of a slide, in the order of its patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import issparse
from spatialdata.models import get_table_keys

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig._errors import InputError

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.data.slides import Slide

HOW_TO_MEASURE = "Call `sp.tl.aggregate_patches` first."
HOW_TO_PREDICT = "Call `sp.tl.predict` first."


def signature_table(slide: Slide, table_key: str, *, name: str) -> ad.AnnData:
    """Table of measured or predicted scores; the error names the slide, what exists, and the verb that makes it."""
    fix = HOW_TO_PREDICT if name == "predictions_key" else HOW_TO_MEASURE
    return slide.table(table_key, name=name, fix=fix)


def shown_values(slide: Slide, name: str, table_key: str, patches_key: str) -> NDArray[np.float64]:
    """What colours the patches, ``(n_patches,)``: a signature, a numeric column of its table, or one of the patches.

    Raises
    ------
    KeyMissingError
        If nothing numeric has that name; the message lists what has.
    """
    shapes = slide.sdata.shapes[patches_key]
    columns = shapes.drop(columns="geometry").select_dtypes(["number", "bool"])
    if name in columns:
        shown: NDArray[np.float64] = columns[name].to_numpy(np.float64)
        return shown
    if table_key not in slide.sdata.tables:
        available = f"columns of {patches_key!r}, and there is no table {table_key!r} ({HOW_TO_MEASURE})"
        check_key(list(columns), name, name="signature", where=f"slide {slide.name!r}: {available}")
    table = slide.sdata.tables[table_key]
    numeric = table.obs.select_dtypes(["number", "bool"])
    if name in table.var_names:
        return patch_values(slide, table, name, table_key=table_key, patches_key=patches_key, fold=None)
    where = f"the signatures and numeric columns of slide {slide.name!r}"
    check_key([*table.var_names, *numeric, *columns], name, name="signature", where=where)
    rows = patch_rows(slide, table, table_key=table_key, patches_key=patches_key)
    values = np.full(len(shapes), np.nan)
    values[rows] = numeric[name].to_numpy(np.float64)
    return values


def patch_values(
    slide: Slide, table: ad.AnnData, signature: str, *, table_key: str, patches_key: str, fold: int | None
) -> NDArray[np.float64]:
    """One signature, ``(n_patches,)`` in the order of ``shapes[patches_key]``; NaN where there is none.

    With ``fold``, patches of any other fold are NaN too.
    """
    where = f"table {table_key!r} of slide {slide.name!r}"
    check_key(list(table.var_names), signature, name="signature", where=where)
    rows = patch_rows(slide, table, table_key=table_key, patches_key=patches_key)
    column = table[:, signature].X
    column = column.toarray() if issparse(column) else np.asarray(column)
    values = np.full(len(slide.sdata.shapes[patches_key]), np.nan)
    values[rows] = column[:, 0]
    if fold is not None:
        check_key(list(table.obs), _keys.FOLD, name="obs", where=where, fix="Call `sp.pp.split` first.")
        values[rows[np.asarray(table.obs[_keys.FOLD]) != fold]] = np.nan
    return values


def patch_rows(slide: Slide, table: ad.AnnData, *, table_key: str, patches_key: str) -> NDArray[np.int64]:
    """Row of ``shapes[patches_key]`` that each row of the table describes, ``(n_rows,)``."""
    where = f"table {table_key!r} of slide {slide.name!r}"
    regions, _, instance_key = get_table_keys(table)
    if patches_key not in np.atleast_1d(regions):
        msg = f"{where} annotates {regions!r}, not `patches_key={patches_key!r}`."
        raise InputError(msg)
    shapes = slide.sdata.shapes[patches_key]
    rows = shapes.index.get_indexer(table.obs[instance_key])
    if (rows < 0).any():
        msg = (
            f"{where} describes {(rows < 0).sum()} patches that are not in {patches_key!r}: the patches were laid anew "
            "after the table was made. Make the table again."
        )
        raise InputError(msg)
    found: NDArray[np.int64] = rows
    return found
