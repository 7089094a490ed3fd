"""Highly variable genes over the training slides of a cohort, straight from the counts of each slide.

Floor 7, above evaluation. Called as sp.pp.highly_variable_genes; used by cli/model_commands, pipeline/run_steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._arguments import Count, Key, Natural, Positive, checked
from spatialsig._checks import check_choice
from spatialsig.errors import InputError
from spatialsig.slide.coordinates import positions
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.counts import common_genes, count_blocks, gene_names
from spatialsig.slide.each import map_slides
from spatialsig.slide.folds import is_training
from spatialsig.slide.parts import counts_of_table
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, Slide, learn_from, open_slides
from spatialsig.stats.expression import clipped_moments, gene_moments, library_size
from spatialsig.stats.variable import (
    Moments,
    by_dispersion,
    by_mean_variance,
    by_standardised_variance,
    standardised_variance,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd
    from numpy.typing import NDArray
    from scipy import sparse

    Blocks = Iterable[tuple[slice, sparse.csr_matrix]]


FLAVORS = ("seed", "seurat", "cell_ranger", "seurat_v3")
PANELS = ("intersection", "union")


@checked
@needs_cells
def highly_variable_genes(
    data: Data,
    *,
    n_top_genes: Count = 2000,
    flavor: str = "seed",
    panel: str = "intersection",
    n_bins: Count = 20,
    span: Positive = 0.3,
    test_fold: Natural | None = 0,
    table_key: Key = _keys.TABLE,
) -> None:
    """Mark the genes whose counts vary most over the training cells of all slides.

    Variation is looked at within each slide and then combined, so that differences between slides do not make a gene
    variable. All flavors but ``"seed"`` agree with :func:`scanpy.pp.highly_variable_genes` on the slides put together,
    with the slide as ``batch_key``; no slide is made dense and no two are held in memory.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    n_top_genes
        How many genes to mark; all of them where the panels are smaller.
    flavor
        With ``x = 1e4 * count / library``:

        - ``"seed"`` (default): variance of ``log1p(x)``, averaged over slides.
        - ``"seurat"`` [1]_: logarithm of variance over mean of ``x``, relative to genes of similar mean.
        - ``"cell_ranger"`` [2]_: variance over mean of ``log1p(x)``, relative to genes of similar mean.
        - ``"seurat_v3"`` [3]_: variance of the counts relative to a curve through the variances of all genes; needs the
          package scikit-misc.
    panel
        Where slides measure different genes: ``"intersection"`` looks at those that all of them measure, ``"union"`` at
        every gene, on the slides that measure it. Nothing is ever filled in. The autoencoder needs genes that every
        slide measures.
    n_bins
        Bins of the mean for ``"seurat"``.
    span
        Share of the genes that shape the curve at one point, for ``"seurat_v3"``.
    test_fold
        Fold whose cells are not looked at; ``None`` uses every cell.
    table_key
        Table of the cells, raw counts in ``X``.

    Returns
    -------
    Nothing; writes to ``var`` of ``tables[table_key]`` on every slide ``highly_variable`` (bool) and the numbers behind
    it, NaN for a gene that was not looked at: ``variance`` (``"seed"``); ``means``, ``dispersions``,
    ``dispersions_norm``, ``highly_variable_nbatches``, ``highly_variable_intersection`` (``"seurat"``,
    ``"cell_ranger"``); ``means``, ``variances``, ``variances_norm``, ``highly_variable_rank``,
    ``highly_variable_nbatches`` (``"seurat_v3"``). ``uns["spatialsig"]["highly_variable_genes"]`` keeps the parameters
    and how many genes all slides measure (``n_genes_common``) and any does (``n_genes_any``).

    Raises
    ------
    InputError
        If slides share no gene, no training cell is left, or scikit-misc is missing; nothing is written.

    References
    ----------
    .. [1] Satija R, Farrell JA, Gennert D, Schier AF, Regev A. Spatial reconstruction of single-cell gene expression
       data. Nature Biotechnology 33, 495-502 (2015). https://doi.org/10.1038/nbt.3192
    .. [2] Zheng GXY, Terry JM, Belgrader P, et al. Massively parallel digital transcriptional profiling of single
       cells. Nature Communications 8, 14049 (2017). https://doi.org/10.1038/ncomms14049
    .. [3] Stuart T, Butler A, Hoffman P, et al. Comprehensive integration of single-cell data. Cell 177, 1888-1902
       (2019). https://doi.org/10.1016/j.cell.2019.05.031

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.highly_variable_genes(sdata, n_top_genes=50, test_fold=None)
    >>> int(sdata["table"].var["highly_variable"].sum())
    50
    """
    check_choice(flavor, FLAVORS, name="flavor")
    check_choice(panel, PANELS, name="panel")
    refuse_leaks(data, [] if test_fold is None else [test_fold])
    panels = [gene_names(slide, table_key) for slide in open_slides(learn_from(data))]
    genes = common_genes(panels)
    if not genes and panel == "intersection":
        msg = f"the {len(panels)} slides have no gene in common; check that `var_names` hold the same kind of name."
        raise InputError(msg)
    settings = _Settings(flavor, n_top_genes, n_bins, span, test_fold, table_key)
    result = _choose(learn_from(data), genes if panel == "intersection" else None, settings)
    params = {
        "flavor": flavor,
        "panel": panel,
        "n_top_genes": n_top_genes,
        "n_genes_common": len(genes),
        "n_genes_any": len(set().union(*panels)),
        # -1 stands for None, which Zarr attributes cannot hold in every version
        "test_fold": -1 if test_fold is None else test_fold,
    }
    for slide in open_slides(data):
        var = slide.table(table_key).var
        for column, values in result.items():
            var[column] = values.reindex(var.index, fill_value=False if values.dtype == bool else np.nan)
        slide.params(table_key)["highly_variable_genes"] = dict(params)
        slide.commit_table(
            table_key,
            var=list(result.columns),
            steps=["highly_variable_genes"],
            made_by="pp.highly_variable_genes",
            sources=counts_of_table(table_key, test_fold),
        )


@dataclass(frozen=True)
class _Settings:
    flavor: str
    n_top_genes: int
    n_bins: int
    span: float
    test_fold: int | None
    table_key: str


def _choose(data: Data, genes: list[str] | None, settings: _Settings) -> pd.DataFrame:
    measured = map_slides(data, partial(_measure, genes=genes, settings=settings), "variable genes")
    moments = [moment for moment, _ in measured if moment is not None]
    norms = [norm for _, norm in measured if norm is not None]
    if not moments:
        msg = f"`test_fold={settings.test_fold}` leaves no training cells; choose another fold."
        raise InputError(msg)
    if settings.flavor == "seed":
        return by_mean_variance(moments, n_top_genes=settings.n_top_genes)
    if settings.flavor == "seurat_v3":
        return by_standardised_variance(moments, norms, n_top_genes=settings.n_top_genes)
    return by_dispersion(
        moments, n_top_genes=settings.n_top_genes, n_bins=settings.n_bins, cell_ranger=settings.flavor == "cell_ranger"
    )


def _measure(slide: Slide, *, genes: list[str] | None, settings: _Settings) -> tuple[Moments | None, pd.Series | None]:
    """Moments of every gene over the training cells of a slide, and its standardised variance where it is asked for."""
    rows = is_training(slide, positions(slide, settings.table_key), test_fold=settings.test_fold)
    if rows.sum() < 2:
        return None, None
    names = list(slide.table(settings.table_key).var_names) if genes is None else genes
    blocks = partial(count_blocks, slide, settings.table_key, genes)
    moments = _moments(blocks(), names, settings.flavor, rows)
    if settings.flavor != "seurat_v3":
        return moments, None
    return moments, standardised_variance(moments, partial(_clipped, blocks, rows), settings.span)


def _moments(blocks: Blocks, genes: list[str], flavor: str, rows: NDArray[np.bool_]) -> Moments:
    sums = np.zeros((2, len(genes)))
    for block, counts in blocks:
        library = None if flavor == "seurat_v3" else library_size(counts)
        sums += gene_moments(counts, library, rows=rows[block], log1p=flavor in ("seed", "cell_ranger"))
    return Moments(genes, sums[0], sums[1], int(rows.sum()))


def _clipped(
    blocks: Callable[[], Blocks], rows: NDArray[np.bool_], limits: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    sums = np.zeros((2, len(limits)))
    for block, counts in blocks():
        sums += clipped_moments(counts, limits, rows=rows[block])
    return sums[0], sums[1]
