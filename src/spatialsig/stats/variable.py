"""Most variable genes of several slides from the moments of each slide: the definitions scanpy users know.

A choice takes one entry per slide, whose arrays follow the genes of that slide, and returns a frame indexed by gene. A
gene counts on the slides that measure it; nothing is filled in for the others.

Floor 1, above the ground floor. Used by pp/_hvg.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from scipy.stats import median_abs_deviation

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Clipped: TypeAlias = "Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]"
NO_MEAN = 1e-12  # stands for a mean of zero where it divides


@dataclass(frozen=True)
class Moments:
    """Sum and sum of squares over ``n`` cells of each gene, ``(n_genes,)``."""

    genes: Sequence[str]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    n: int

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each gene."""
        return self.total / self.n

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variance of each gene, over ``n - 1``."""
        return np.maximum(self.squares - self.total**2 / self.n, 0) / (self.n - 1)


def by_mean_variance(slides: Sequence[Moments], *, n_top_genes: int) -> pd.DataFrame:
    """Mean over the slides of the variance within each; the highest are chosen, ties in the order of the genes."""
    columns = [pd.Series(slide.variance, index=list(slide.genes)) for slide in slides]
    frame = pd.concat(columns, axis=1, sort=False).mean(axis=1).to_frame("variance")
    chosen = frame["variance"].sort_values(ascending=False, kind="stable").index[:n_top_genes]
    return frame.assign(highly_variable=frame.index.isin(chosen))


def by_dispersion(
    slides: Sequence[Moments], *, n_top_genes: int, n_bins: int, cell_ranger: bool = False
) -> pd.DataFrame:
    """Dispersion (variance over mean) relative to genes of similar mean: ``seurat``, or ``cell_ranger``.

    Genes chosen on most slides come first, ties by their normalised dispersion averaged over slides.
    """
    parts = [_dispersion(slide, n_top_genes, n_bins, cell_ranger=cell_ranger) for slide in slides]
    # plain arrays: on a panel of thousands of genes, frames would take as long as the counts
    names, gene = np.unique(np.concatenate([np.asarray(slide.genes, object) for slide in slides]), return_inverse=True)
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    chosen = np.bincount(gene, columns.pop("chosen"), len(names)).astype(np.int64)
    frame = {key: _mean_of(values, gene, len(names)) for key, values in columns.items()}
    order = np.lexsort((-frame["dispersions_norm"], -chosen))  # NaN last
    marked = np.zeros(len(names), bool)
    marked[order[:n_top_genes]] = True
    counted = {"highly_variable_nbatches": chosen, "highly_variable_intersection": chosen == len(slides)}
    return pd.DataFrame(frame | counted | {"highly_variable": marked}, index=names)


def standardised_variance(slide: Moments, clipped: Clipped, span: float) -> pd.Series:
    """Variance of the raw counts of a slide after division by what their mean lets expect, one value per gene.

    ``clipped`` gives sum and sum of squares of the counts cut off at a limit per gene: the expected standard deviation
    times the root of the number of cells, above the mean.
    """
    mean, variance = slide.mean, slide.variance
    varies = variance > 0
    expected = np.ones(len(mean))
    expected[varies] = 10 ** _loess(np.log10(mean[varies]), np.log10(variance[varies]), span)
    std = np.sqrt(expected)
    total, squares = clipped(std * np.sqrt(slide.n) + mean)
    values = (slide.n * mean**2 + squares - 2 * total * mean) / ((slide.n - 1) * std**2)
    return pd.Series(values, index=list(slide.genes))


def by_standardised_variance(
    slides: Sequence[Moments], norms: Sequence[pd.Series], *, n_top_genes: int
) -> pd.DataFrame:
    """Choose by the :func:`standardised_variance` ``norms`` of each slide: ``seurat_v3``.

    Genes of least median rank come first, ties by the number of slides on which they are chosen.
    """
    ranks = [pd.Series(np.argsort(np.argsort(-norm)), index=norm.index, dtype=np.float64) for norm in norms]
    rank = pd.concat([r.where(r < n_top_genes) for r in ranks], axis=1, sort=False)
    frame = _pooled(slides).assign(
        variances_norm=pd.concat(list(norms), axis=1, sort=False).mean(axis=1),
        highly_variable_rank=rank.median(axis=1),
        highly_variable_nbatches=rank.notna().sum(axis=1),
    )
    columns = ["highly_variable_rank", "highly_variable_nbatches"]
    order = frame.sort_values(columns, ascending=[True, False], na_position="last")
    return frame.assign(highly_variable=frame.index.isin(order.index[:n_top_genes]))


def _dispersion(slide: Moments, n_top_genes: int, n_bins: int, *, cell_ranger: bool) -> dict[str, NDArray[np.float64]]:
    seen = slide.total > 0
    mean = np.where(slide.mean[seen] > 0, slide.mean[seen], NO_MEAN)
    dispersion = slide.variance[seen] / mean
    if not cell_ranger:
        dispersion = np.log(np.where(dispersion > 0, dispersion, np.nan))
        mean = np.log1p(mean)
    edges: Any = np.r_[-np.inf, np.percentile(mean, np.arange(10, 105, 5)), np.inf] if cell_ranger else n_bins
    _, bins = np.unique(pd.cut(mean, edges, labels=False), return_inverse=True)
    centre, spread = _robust(dispersion, bins) if cell_ranger else _centre_and_spread(dispersion, bins)
    norm = (dispersion - centre[bins]) / spread[bins]
    ordered = np.sort(norm[~np.isnan(norm)])[::-1]
    limit = ordered[min(n_top_genes, len(ordered)) - 1] if len(ordered) else np.inf
    found = {"means": mean, "dispersions": dispersion, "dispersions_norm": norm, "chosen": norm >= limit}
    # a gene without counts is measured and does not vary
    return {key: _spread_out(values, seen) for key, values in found.items()}


def _spread_out(values: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    out = np.zeros(len(seen))
    out[seen] = values
    return out


def _mean_of(values: NDArray[np.float64], group: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Mean of each group without NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    size = np.bincount(group[known], minlength=n)
    total = np.bincount(group[known], values[known], n)
    mean: NDArray[np.float64] = np.divide(total, size, out=np.full(n, np.nan), where=size > 0)
    return mean


def _centre_and_spread(
    dispersion: NDArray[np.float64], bins: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each bin; a gene alone in its bin is to get a normalised dispersion of 1."""
    n = int(bins.max(initial=-1)) + 1
    centre = _mean_of(dispersion, bins, n)
    size = np.bincount(bins[~np.isnan(dispersion)], minlength=n)
    variance = _mean_of((dispersion - centre[bins]) ** 2, bins, n) * size / np.maximum(size - 1, 1)
    alone = size < 2
    return np.where(alone, 0.0, centre), np.where(alone, centre, np.sqrt(variance))


def _robust(
    dispersion: NDArray[np.float64], bins: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and median absolute deviation of each bin."""
    groups = [dispersion[bins == i] for i in range(int(bins.max(initial=-1)) + 1)]
    return np.array([np.median(group) for group in groups]), np.array(
        [median_abs_deviation(group, scale="normal") for group in groups]
    )


def _loess(x: NDArray[np.float64], y: NDArray[np.float64], span: float) -> NDArray[np.float64]:
    try:
        from skmisc.loess import loess
    except ImportError as error:
        msg = "`flavor='seurat_v3'` needs the package scikit-misc; `pip install scikit-misc`."
        raise InputError(msg) from error
    model = loess(x, y, span=span, degree=2)
    try:
        model.fit()
    except ValueError as error:
        msg = f"`flavor='seurat_v3'`: no curve fits {len(x)} genes with `span={span}` ({error}); raise `span`."
        raise InputError(msg) from error
    return np.asarray(model.outputs.fitted_values)


def _pooled(slides: Sequence[Moments]) -> pd.DataFrame:
    """Mean and variance over the cells of all slides together that measure the gene."""
    parts = [
        pd.DataFrame({"total": slide.total, "squares": slide.squares, "n": float(slide.n)}, index=list(slide.genes))
        for slide in slides
    ]
    sums = pd.concat(parts).groupby(level=0, sort=False).sum()
    total, squares, n = sums["total"], sums["squares"], sums["n"]
    return pd.DataFrame({"means": total / n, "variances": (squares - total**2 / n) / (n - 1)})
