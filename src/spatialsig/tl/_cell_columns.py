"""Columns of the cells summarised per patch: numbers averaged, categories counted, layers averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from spatialsig._checks import check_key
from spatialsig._errors import InputError
from spatialsig.data.slides import require_obsm
from spatialsig.stats.grouped import group_sizes, grouped_mean, grouped_shares, pseudobulk

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad

    from spatialsig.data.slides import Slide

COUNTS = "X"  # stands for the counts among the layers


def check_columns(
    slide: Slide, cells: ad.AnnData, *, obs: Sequence[str], obsm: Sequence[str], layers: Sequence[str]
) -> None:
    """Raise unless all that is to be summarised exists and can be."""
    for column in obs:
        check_key(cells.obs.columns, column, name="obs", where=f"the obs of slide {slide.name!r}")
        values = cells.obs[column]
        if not (_is_category(values) or pd.api.types.is_numeric_dtype(values)):
            msg = (
                f"slide {slide.name!r}: `obs={column!r}` holds {values.dtype}, wanted numbers, booleans or categories; "
                f"convert it with `.astype('category')`."
            )
            raise InputError(msg)
    for key in obsm:
        require_obsm(cells, key, name="obsm", slide=slide, fix="")
    for layer in layers:
        check_key([COUNTS, *cells.layers], layer, name="layers", where=f"the layers of slide {slide.name!r}")


def add_obs(table: ad.AnnData, cells: ad.AnnData, membership: sparse.csr_matrix, columns: Sequence[str]) -> None:
    """Mean of numeric columns into ``obs``; share of each category into ``obsm["<column>_fraction"]``."""
    for column in columns:
        values = cells.obs[column]
        if _is_category(values):
            categories = [str(category) for category in values.cat.categories]
            shares = grouped_shares(values.cat.codes.to_numpy(), len(categories), membership)
            table.obsm[f"{column}_fraction"] = pd.DataFrame(shares, index=table.obs_names, columns=categories)
        else:
            numbers = values.to_numpy(np.float64, na_value=np.nan)
            table.obs[column] = grouped_mean(numbers[:, None], membership)[:, 0]


def add_obsm(table: ad.AnnData, cells: ad.AnnData, membership: sparse.csr_matrix, keys: Sequence[str]) -> None:
    """Mean of arrays into ``obsm``, float32."""
    for key in keys:
        values = cells.obsm[key]
        dense = values.toarray() if sparse.issparse(values) else np.asarray(values)
        table.obsm[key] = grouped_mean(dense, membership).astype(np.float32)


def add_layers(table: ad.AnnData, cells: ad.AnnData, membership: sparse.csr_matrix, layers: Sequence[str]) -> None:
    """Mean of layers into ``obsm["<layer>_mean"]``, CSR float32; all zero where a patch has no cells."""
    per_cell = sparse.diags_array(1 / np.maximum(group_sizes(membership), 1))
    for layer in layers:
        values = sparse.csr_matrix(cells.X if layer == COUNTS else cells.layers[layer])
        mean = per_cell @ pseudobulk(values, membership)
        table.obsm[f"{layer}_mean"] = sparse.csr_matrix(mean, dtype=np.float32)


def _is_category(values: pd.Series) -> bool:
    return isinstance(values.dtype, pd.CategoricalDtype)
