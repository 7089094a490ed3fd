"""Cells with enough counts and genes, and only the columns that are genes.

Floor 7, above evaluation. Called as sp.pp.filter_cells; used by cli/slide_commands, pipeline/run_steps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np

from spatialsig import _keys
from spatialsig._arguments import Natural, checked
from spatialsig.errors import InputError
from spatialsig.slide.counts import count_blocks
from spatialsig.slide.each import map_slides
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, Slide
from spatialsig.store.matrices import Selection, StreamedTable, is_stored
from spatialsig.store.metadata import quiet_names
from spatialsig.store.stored.table import light
from spatialsig.store.tables import parts_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy import sparse

GENE_EXPRESSION = "Gene Expression"


@checked
@needs_cells
def filter_cells(data: Data, *, min_counts: Natural = 10, min_genes: Natural = 5, table_key: str = _keys.TABLE) -> None:
    """Keep the cells of a table that have enough counts and genes, and only the columns that are genes.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    min_counts
        Smallest number of counts of a cell, over its genes.
    min_genes
        Smallest number of genes found in a cell.
    table_key
        Table of the cells, raw counts in ``X``.

    Returns
    -------
    Nothing; replaces ``tables[table_key]`` by its kept rows and columns, and writes
    ``tables[table_key].uns["spatialsig"]["filter_cells"]``: thresholds, ``n_cells_before``, ``n_cells_after``,
    ``n_controls_dropped``.

    Raises
    ------
    InputError
        If no cell of a slide passes, or ``X`` does not hold counts.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.filter_cells(sdata, min_counts=20)
    >>> sdata["table"].uns["spatialsig"]["filter_cells"]["min_counts"]
    20
    """
    map_slides(data, partial(_filter, min_counts=min_counts, min_genes=min_genes, table_key=table_key), "filter cells")


def _filter(slide: Slide, *, min_counts: int, min_genes: int, table_key: str) -> None:
    slide.replace(table_key, _kept(slide, slide.table(table_key), min_counts, min_genes, table_key))


def _are_enough(counts: sparse.csr_matrix, min_counts: int, min_genes: int) -> NDArray[np.bool_]:
    """Cells with enough counts and genes, ``(n_cells,)``."""
    enough_counts = np.asarray(counts.sum(axis=1)).ravel() >= min_counts
    return np.asarray(enough_counts & (counts.getnnz(axis=1) >= min_genes))


def _subset(table: ad.AnnData, cells: NDArray[np.bool_], genes: NDArray[np.bool_]) -> ad.AnnData:
    """Marked cells and genes of a table; matrices in a store stay there until the new table is written, block by block."""
    matrices = {"X": table.X, **{f"layers/{name}": values for name, values in parts_of(table, "layers").items()}}
    stored = {part: Selection(values, cells, genes) for part, values in matrices.items() if is_stored(values)}
    if not stored and isinstance(table, ad.AnnData):
        return table[cells, genes].copy()
    kept = light(table)[cells, genes].copy()
    return StreamedTable.of(kept, stored) if stored else kept


def _kept(slide: Slide, table: ad.AnnData, min_counts: int, min_genes: int, table_key: str) -> ad.AnnData:
    genes = np.ones(table.n_vars, bool)
    if "feature_types" in table.var:
        genes = (table.var["feature_types"] == GENE_EXPRESSION).to_numpy()
    blocks = (counts[:, genes] for _, counts in count_blocks(slide, table_key))
    cells = np.concatenate([_are_enough(counts, min_counts, min_genes) for counts in blocks])
    if not cells.any():
        msg = (
            f"slide {slide.name!r}: none of {table.n_obs} cells has {min_counts} counts and {min_genes} genes; "
            "lower `min_counts` and `min_genes`."
        )
        raise InputError(msg)
    with quiet_names():
        kept = _subset(table, cells, genes)
    kept.uns.setdefault(_keys.NAMESPACE, {})["filter_cells"] = {
        "min_counts": min_counts,
        "min_genes": min_genes,
        "n_cells_before": table.n_obs,
        "n_cells_after": int(cells.sum()),
        "n_controls_dropped": int((~genes).sum()),
    }
    return kept
