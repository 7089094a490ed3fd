"""Highly variable genes over the training slides of a cohort, one sparse pass per slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_positive
from spatialsig._errors import InputError
from spatialsig._progress import track
from spatialsig.data.counts import common_genes, counts_of
from spatialsig.data.slides import open_slides, slide_count
from spatialsig.data.splits import positions, training_rows
from spatialsig.stats.expression import gene_moments, library_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.data.slides import Data, Slide


def highly_variable_genes(
    data: Data, *, n_top_genes: int = 2000, test_fold: int | None = 0, table_key: str = _keys.TABLE
) -> None:
    """Mark the genes that vary most, judged on training cells only.

    The variance of ``log1p(1e4 * count / library)`` is taken within each slide and averaged over the slides, so that
    differences between slides do not make a gene variable. Only genes that every slide measures take part.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    n_top_genes
        How many genes to mark; all of them where the panels are smaller.
    test_fold
        Fold whose cells are not looked at; ``None`` uses every cell.
    table_key
        Table of the cells, raw counts in ``X``.

    Returns
    -------
    Nothing; writes ``var["highly_variable"]`` (bool), ``var["variance"]`` (float, NaN for a gene that some slide does
    not measure) and ``uns["spatialsig"]["highly_variable_genes"]`` of ``tables[table_key]`` on every slide.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.highly_variable_genes(sdata, n_top_genes=50, test_fold=None)
    >>> int(sdata["table"].var["highly_variable"].sum())
    50
    """
    check_positive(n_top_genes=n_top_genes)
    panels = [list(slide.table(table_key).var_names) for slide in open_slides(data)]
    genes = common_genes(panels)
    if not genes:
        msg = f"the {len(panels)} slides have no gene in common; check that `var_names` hold the same kind of name."
        raise InputError(msg)
    slides = track(open_slides(data), "variable genes", total=slide_count(data), unit="slide")
    variances = [v for slide in slides if (v := _variance(slide, genes, test_fold, table_key)) is not None]
    if not variances:
        msg = f"`test_fold={test_fold}` leaves no training cells; choose another fold."
        raise InputError(msg)
    mean = np.mean(variances, axis=0)
    # ties go to the gene that comes first, so that the choice does not depend on the sorting algorithm
    top = {genes[i] for i in np.argsort(-mean, kind="stable")[:n_top_genes]}
    for slide in open_slides(data):
        _write(slide, dict(zip(genes, mean, strict=True)), top, n_top_genes, test_fold, table_key)


def _variance(slide: Slide, genes: list[str], test_fold: int | None, table_key: str) -> NDArray[np.float64] | None:
    rows = training_rows(slide, positions(slide, table_key), test_fold=test_fold)
    if rows.sum() < 2:
        return None
    counts = counts_of(slide, table_key, genes)[rows]
    total, squares = gene_moments(counts, library_size(counts))
    n = counts.shape[0]
    variance: NDArray[np.float64] = (squares - total**2 / n) / (n - 1)
    return variance


def _write(
    slide: Slide, variance: dict[str, float], top: set[str], n_top_genes: int, test_fold: int | None, table_key: str
) -> None:
    table = slide.table(table_key)
    table.var[_keys.HIGHLY_VARIABLE] = [gene in top for gene in table.var_names]
    table.var["variance"] = [variance.get(gene, np.nan) for gene in table.var_names]
    slide.params(table_key)["highly_variable_genes"] = {
        "flavor": "mean_variance",
        "n_top_genes": n_top_genes,
        # -1 stands for None, which Zarr attributes cannot hold in every version
        "test_fold": -1 if test_fold is None else test_fold,
    }
    slide.commit(table_key)
