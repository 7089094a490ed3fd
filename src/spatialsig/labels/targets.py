"""Targets other than scores: columns, arrays and layers of the cells that become columns of a patch table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from spatialsig._checks import check_choice
from spatialsig.errors import InputError
from spatialsig.labels.cell_columns import COUNTS, check_columns, is_category

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

SOURCES = ("obs", "obsm", "layers", "genes")
BLOCK_BYTES = 64 * 2**20  # of a layer that are dense at a time


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

    def check(self, slide: Slide, cells: ad.AnnData) -> None:
        """Raise unless a slide has all of it."""
        check_columns(slide, cells, obs=self.obs, obsm=self.obsm, layers=self.layers)
        absent = [gene for gene in self.genes if gene not in cells.var_names]
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
        matrix = sparse.csc_matrix(cells.X if layer == COUNTS else cells.layers[layer])
        step = max(1, BLOCK_BYTES // (4 * max(cells.n_obs, 1)))
        for first in range(0, len(genes), step):
            dense = matrix[:, columns[first : first + step]].toarray()
            yield _named(layer, genes[first : first + step], alone=alone), dense.astype(np.float32, copy=False)


def _named(source: str, names: Sequence[str], *, alone: bool) -> list[str]:
    return [str(name) if alone else f"{source}_{name}" for name in names]
