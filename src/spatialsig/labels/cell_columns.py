"""Columns of the cells summarised per patch beside the labels: means or shares, and their standard errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from spatialsig._checks import check_key
from spatialsig.errors import InputError
from spatialsig.stats.grouped import (
    group_sizes,
    grouped_count,
    grouped_mean,
    grouped_sem,
    grouped_shares,
    pseudobulk,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad

    from spatialsig.slide.slides import Slide

COUNTS = "X"  # stands for the counts among the layers


def check_columns(
    slide: Slide, cells: ad.AnnData, *, obs: Sequence[str], obsm: Sequence[str], layers: Sequence[str]
) -> None:
    """Raise unless all that is to be summarised exists and can be."""
    for column in obs:
        check_key(cells.obs.columns, column, name="obs", where=f"the obs of slide {slide.name!r}")
        values = cells.obs[column]
        if not (is_category(values) or pd.api.types.is_numeric_dtype(values)):
            msg = (
                f"slide {slide.name!r}: `obs={column!r}` holds {values.dtype}, wanted numbers, booleans or categories; "
                f"convert it with `.astype('category')`."
            )
            raise InputError(msg)
    for key in obsm:
        check_key(cells.obsm, key, name="obsm", where=f"the obsm of slide {slide.name!r}")
    for layer in layers:
        check_key([COUNTS, *cells.layers], layer, name="layers", where=f"the layers of slide {slide.name!r}")


def add_obs(table: ad.AnnData, cells: ad.AnnData, membership: sparse.csr_matrix, columns: Sequence[str]) -> None:
    """Mean of numeric columns into ``obs``; share of each category into ``obsm["<column>_fraction"]``.

    Standard errors beside them, as ``<column>_sem`` and ``<column>_fraction_sem``.
    """
    for column in columns:
        values = cells.obs[column]
        if is_category(values):
            categories = [str(category) for category in values.cat.categories]
            shares = grouped_shares(values.cat.codes.to_numpy(), len(categories), membership)
            n = grouped_count(np.where(values.isna(), np.nan, 0.0)[:, None], membership)
            # the variance of a share over n - 1, as of any mean of zeros and ones
            errors = np.sqrt(np.divide(shares * (1 - shares), n - 1, out=np.full_like(shares, np.nan), where=n > 1))
            for name, part in ((f"{column}_fraction", shares), (f"{column}_fraction_sem", errors)):
                table.obsm[name] = pd.DataFrame(part, index=table.obs_names, columns=categories)
        else:
            numbers = values.to_numpy(np.float64, na_value=np.nan)
            table.obs[column] = grouped_mean(numbers[:, None], membership)[:, 0]
            table.obs[f"{column}_sem"] = grouped_sem(numbers[:, None], membership)[:, 0]


def add_obsm(table: ad.AnnData, cells: ad.AnnData, membership: sparse.csr_matrix, keys: Sequence[str]) -> None:
    """Mean of arrays into ``obsm`` and its standard error into ``obsm["<key>_sem"]``, float32."""
    for key in keys:
        values = cells.obsm[key]
        dense = values.toarray() if sparse.issparse(values) else np.asarray(values)
        table.obsm[key] = grouped_mean(dense, membership).astype(np.float32)
        table.obsm[f"{key}_sem"] = grouped_sem(dense, membership).astype(np.float32)


def add_layers(table: ad.AnnData, cells: ad.AnnData, membership: sparse.csr_matrix, layers: Sequence[str]) -> None:
    """Mean of layers into ``obsm["<layer>_mean"]``, its standard error into ``obsm["<layer>_sem"]``, CSR float32.

    Both are all zero where a patch has no cells, the error also where it has one.
    """
    n = group_sizes(membership)
    per_cell = sparse.diags_array(1 / np.maximum(n, 1))
    per_error = sparse.diags_array(np.where(n > 1, 1 / np.sqrt(np.maximum(n - 1, 1)), 0))
    for layer in layers:
        values = sparse.csr_matrix(cells.X if layer == COUNTS else cells.layers[layer], dtype=np.float64)
        mean = sparse.csr_matrix(per_cell @ pseudobulk(values, membership))
        spread = sparse.csr_matrix(per_cell @ pseudobulk(values.multiply(values).tocsr(), membership)) - mean.multiply(
            mean
        )
        error = sparse.csr_matrix(per_error @ spread.maximum(0).sqrt())
        table.obsm[f"{layer}_mean"] = sparse.csr_matrix(mean, dtype=np.float32)
        table.obsm[f"{layer}_sem"] = sparse.csr_matrix(error, dtype=np.float32)


def is_category(values: pd.Series) -> bool:
    """Whether a column of the cells holds categories."""
    return isinstance(values.dtype, pd.CategoricalDtype)
