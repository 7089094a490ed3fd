"""Raw counts of a slide on a given list of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from spatialsig.errors import InputError
from spatialsig.stats.expression import value_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad

    from spatialsig.slide.slides import Slide


def counts_of(slide: Slide, table_key: str, genes: Sequence[str] | None = None) -> sparse.csr_matrix:
    """Counts ``(n_cells, n_genes)`` as CSR, columns in the order of ``genes`` (all of them when None).

    Raises :class:`InputError` if ``X`` does not hold counts, or a gene is not measured on the slide (never filled with
    zeros).
    """
    table = slide.table(table_key)
    if genes is not None and list(genes) != list(table.var_names):  # no copy where nothing changes
        table = table[:, column_indices(table, genes, slide=slide)]
    counts = sparse.csr_matrix(table.X)
    whole, low, high = value_range(counts.data)
    if not (whole and low >= 0):
        msg = (
            f"slide {slide.name!r}: tables[{table_key!r}].X must hold raw counts (whole numbers from 0); "
            f"found values from {low:g} to {high:g}. Put the counts into X."
        )
        raise InputError(msg)
    return counts


def column_indices(table: ad.AnnData, genes: Sequence[str], *, slide: Slide) -> np.ndarray:
    """Columns of ``genes`` in a table."""
    index = table.var_names.get_indexer(list(genes))
    if (index < 0).any():
        absent = [gene for gene, i in zip(genes, index, strict=True) if i < 0]
        msg = f"slide {slide.name!r} does not measure {len(absent)} of {len(genes)} genes: {absent[:10]}."
        raise InputError(msg)
    return np.asarray(index)


def common_genes(panels: Sequence[Sequence[str]]) -> list[str]:
    """Genes that all panels measure, in the order of the first."""
    shared = set(panels[0]).intersection(*panels[1:])
    return [gene for gene in panels[0] if gene in shared]
