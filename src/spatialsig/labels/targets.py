"""Columns, arrays and layers of the cells that become labels of patches.

Floor 5, above slide. Used by labels/patch_labels, tl/_aggregate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from spatialsig._checks import check_choice, check_key
from spatialsig._text import MISSING, composed
from spatialsig.errors import InputError
from spatialsig.slide.counts import gene_names, in_memory
from spatialsig.stats.grouped import group_sizes, grouped_count, grouped_mean, grouped_sem, grouped_shares, pseudobulk
from spatialsig.store.tables import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

COUNTS = "X"  # stands for the counts among the layers
SOURCES = ("obs", "obsm", "layers", "genes")
BLOCK_BYTES = 64 * 2**20  # of a layer that are dense at a time


def check_columns(
    slide: Slide, table_key: str, *, obs: Sequence[str], obsm: Sequence[str], layers: Sequence[str]
) -> None:
    """Raise unless all that is to be summarised exists, can be summarised, and is fresh."""
    cells = slide.table(table_key)
    for part in (f"{section}/{key}" for section, keys in (("obsm", obsm), ("layers", layers)) for key in keys):
        slide.lineage.check(f"{table_key}/{part}")
    for column in obs:
        check_key(cells.obs.columns, column, name="obs", where=f"the obs of slide {slide.name!r}")
        values = cells.obs[column]
        _check_values(values, where=f"slide {slide.name!r}: `obs={column!r}`")
        if not (is_category(values) or pd.api.types.is_numeric_dtype(values)):
            msg = (
                f"slide {slide.name!r}: `obs={column!r}` holds {values.dtype}, wanted numbers, booleans or categories; "
                f"convert it with `.astype('category')`."
            )
            raise InputError(msg)
    for key in obsm:
        check_key(cells.obsm, key, name="obsm", where=f"the obsm of slide {slide.name!r}")
    for layer in layers:
        check_key(
            [COUNTS, *parts_of(cells, "layers")], layer, name="layers", where=f"the layers of slide {slide.name!r}"
        )
    arrays = {f"layers[{layer!r}]": cells.layers[layer] for layer in layers if layer != COUNTS}
    for place, array in ({f"obsm[{key!r}]": cells.obsm[key] for key in obsm} | arrays).items():
        kinds = list(array.dtypes) if isinstance(array, pd.DataFrame) else [array.dtype]
        other = next((kind for kind in kinds if kind.kind not in "biuf"), None)
        if other is not None:
            msg = f"slide {slide.name!r}: {place} of the cells holds {other}, wanted numbers, of which patches get the mean."
            raise InputError(msg)


def _check_values(values: pd.Series[Any], *, where: str) -> None:
    """Raise :class:`InputError` for infinite numbers, and categories that are words for missing."""
    if is_category(values):
        words = [str(category) for category in values.cat.categories if str(category) in {"", *MISSING}]
        if words:
            msg = (
                f"{where} has {int(values.isin(words).sum())} cells of the category {words[0]!r}, a word for missing that would "
                f"count as a class: `.cat.remove_categories({words})` makes them missing, another name a class."
            )
            raise InputError(msg)
        names = [composed(str(category)) for category in values.cat.categories]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            msg = (
                f"{where} has category {twice!r} twice, in other characters that look the same: write them the same way, such as "
                "with `.astype(str).str.normalize('NFC').astype('category')`."
            )
            raise InputError(msg)
    elif values.dtype.kind == "f" and np.isinf(values.to_numpy(np.float64, na_value=np.nan)).any():
        msg = f"{where} has infinite values, whose mean is no label; make them missing (NaN) or leave these cells out."
        raise InputError(msg)


def add_obs(table: ad.AnnData, cells: ad.AnnData, membership: sparse.csr_matrix, columns: Sequence[str]) -> None:
    """Mean of numeric columns into ``obs``; share of each category into ``obsm["<column>_fraction"]``.

    Standard errors beside them, as ``<column>_sem`` and ``<column>_fraction_sem``.
    """
    for column in columns:
        values = cells.obs[column]
        if is_category(values):
            categories = [
                composed(str(category)).replace("/", "_") for category in values.cat.categories
            ]  # no keys of a store
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
        values = sparse.csr_matrix(in_memory(cells.X if layer == COUNTS else cells.layers[layer]), dtype=np.float64)
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


@dataclass(frozen=True)
class Targets:
    """Columns of the cells, by where they lie; ``genes`` says which columns of the layers (all of them when empty)."""

    obs: tuple[str, ...] = ()
    obsm: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    genes: tuple[str, ...] = ()

    @classmethod
    def of(cls, columns: Mapping[str, str | Sequence[str]]) -> Targets:
        """Read the argument ``targets``."""
        for source in columns:
            check_choice(source, SOURCES, name="targets")
        targets = cls(**{k: (v,) if isinstance(v, str) else tuple(v) for k, v in columns.items()})
        if not (targets.obs or targets.obsm or targets.layers):
            msg = f"`targets={dict(columns)!r}` names no column; wanted for example {{'obs': 'cell_type'}}."
            raise InputError(msg)
        if targets.genes and not targets.layers:
            msg = "`targets['genes']` chooses columns of a layer; add `'layers': 'X'` (the counts) or another layer."
            raise InputError(msg)
        return targets

    def record(self) -> dict[str, list[str]]:
        """The same as lists, to be kept with a table."""
        return {source: list(getattr(self, source)) for source in SOURCES if getattr(self, source)}

    def check(self, slide: Slide, table_key: str) -> None:
        """Raise unless a slide has all of it."""
        check_columns(slide, table_key, obs=self.obs, obsm=self.obsm, layers=self.layers)
        names = gene_names(slide, table_key) if self.genes else []
        absent = [gene for gene in self.genes if gene not in names]
        if absent:
            msg = f"slide {slide.name!r} does not measure {len(absent)} of {len(self.genes)} genes: {absent[:10]}."
            raise InputError(msg)

    def categories(self, cells: ad.AnnData) -> dict[str, list[str]]:
        """Categories of each column that has some."""
        columns = [column for column in self.obs if is_category(cells.obs[column])]
        return {column: [str(category) for category in cells.obs[column].cat.categories] for column in columns}

    def blocks(
        self, cells: ad.AnnData, categories: Mapping[str, Sequence[str]]
    ) -> Iterator[tuple[list[str], NDArray[Any]]]:
        """Names and values ``(n_cells, d)`` of the columns, some at a time; a category is 1 or 0, NaN where unknown.

        Names carry that of their source only where there is more than one.
        """
        alone = len(self.obs) + len(self.obsm) + len(self.layers) == 1
        for column in self.obs:
            values = cells.obs[column]
            if column in categories:
                category = pd.Categorical(
                    values.astype(str).where(values.notna()), categories=pd.Index(categories[column])
                )
                shares = np.where(
                    category.isna()[:, None], np.nan, category.codes[:, None] == np.arange(len(category.categories))
                )
                yield _named(column, list(category.categories), alone=alone), shares.astype(np.float32)
            else:
                yield [column], values.to_numpy(np.float64, na_value=np.nan)[:, None]
        for key in self.obsm:
            array = cells.obsm[key]
            dense = array.toarray() if sparse.issparse(array) else np.asarray(array)
            names = list(array.columns) if isinstance(array, pd.DataFrame) else list(range(dense.shape[1]))
            yield [f"{key}_{name}" for name in names], dense
        for layer in self.layers:
            yield from self._layer(layer, cells, alone=alone)

    def _layer(self, layer: str, cells: ad.AnnData, *, alone: bool) -> Iterator[tuple[list[str], NDArray[Any]]]:
        genes = list(self.genes or cells.var_names)
        columns = cells.var_names.get_indexer(genes)
        matrix = sparse.csc_matrix(in_memory(cells.X if layer == COUNTS else cells.layers[layer]))
        step = max(1, BLOCK_BYTES // (4 * max(cells.n_obs, 1)))
        for first in range(0, len(genes), step):
            dense = matrix[:, columns[first : first + step]].toarray()
            yield _named(layer, genes[first : first + step], alone=alone), dense.astype(np.float32, copy=False)


def _named(source: str, names: Sequence[str], *, alone: bool) -> list[str]:
    return [str(name) if alone else f"{source}_{name}" for name in names]
