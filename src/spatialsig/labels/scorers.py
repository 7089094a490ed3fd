"""Scorers of cells: the parameters that each learns from the training cells, and the scores under them.

Floor 5, above slide. Used by evaluation/ceiling, labels/statistics, referee/scores, tl/_score, whole_slides/record.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig.errors import InputError
from spatialsig.slide.coordinates import positions
from spatialsig.slide.counts import count_blocks
from spatialsig.slide.each import map_slides
from spatialsig.slide.folds import is_training
from spatialsig.slide.records import SCORERS
from spatialsig.stats.cell_scores import control_genes, signature_scores
from spatialsig.stats.expression import gene_moments, library_size, log1p_cp10k, scaler_from_moments
from spatialsig.stats.ranks import detected_genes, rank_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.slide.slides import Data, Slide

METHODS = tuple(SCORERS)
# those that use weights of genes, and signs; another one refuses signatures that have them
WEIGHTED = ("zscore", "score_genes", "ulm")
SIGNED = (*WEIGHTED, "ucell")
# what a score of a cell is: numbers of slides that were scored in one call compare, those of two methods do not
UNITS = {
    "zscore": "mean z-score over the genes of the signature of log1p(counts per 10,000); mean and deviation of each gene over the "
    "training cells of all slides",
    "score_genes": "log1p(counts per 10,000): mean over the genes of the signature minus mean over control genes",
    "ucell": "Mann-Whitney U of the ranks of the genes of the signature within the cell, 0 to 1",
    "aucell": "area under the recovery curve of the genes of the signature in the ranks of the cell, 0 to 1",
    "ulm": "t of the slope of the expression of the cell on the weights of the signature",
}
BATCH = 50_000  # cells that decoupler makes dense at a time


@dataclass(frozen=True)
class ScorerFit:
    """Which cells a method may learn from, and its settings."""

    genes: list[str]
    test_fold: int | None
    table_key: str
    max_rank: int | None
    n_bins: int
    n_controls: int
    seed: int


def check_weights(method: str, weights: NDArray[np.float64], names: list[str]) -> None:
    """Refuse signs and weights of genes that ``method`` would not use; ``weights`` is ``(n_genes, n_signatures)``."""
    for name, own in zip(names, weights.T, strict=True):
        lost, others = "", list(WEIGHTED)
        if method not in WEIGHTED and _is_weighted(np.abs(own)):
            lost = "weights"
        elif method not in SIGNED and (own < 0).any():
            lost, others = "genes with a minus", list(SIGNED)
        elif method == "ucell" and (own < 0).any() and not (own > 0).any():
            lost = "only genes with a minus on the panel"
        if lost:
            msg = f"signature {name!r} has {lost}, which `method={method!r}` does not use; choose one of {others}."
            raise InputError(msg)


def _is_weighted(weights: NDArray[np.float64]) -> bool:
    """Whether genes of one signature ``(n_genes,)`` weigh differently."""
    return len(np.unique(weights[weights != 0])) > 1


def largest_set(weights: NDArray[np.float64]) -> int:
    """Genes of the largest set that is ranked: those of a signature, with a minus apart from the others."""
    return int(max((sign * weights > 0).sum(axis=0).max() for sign in (1, -1)))


def fit_method(
    method: str, weights: NDArray[np.float64], excluded: NDArray[np.bool_], data: Data, fit: ScorerFit
) -> dict[str, Any]:
    """Parameters of ``method`` from the training cells of all slides together; they hold for every slide.

    ``weights`` is ``(n_genes, n_signatures)``, not 0 at the genes of a signature, whose sizes add up to 1. ``excluded``
    ``(n_genes,)`` marks the genes of any signature, which are no controls.
    """
    if method == "zscore":
        # a scaler of the genes that weigh in; 0 and 1 for the others, which no score reads
        mean, std, _ = _moments(data, fit, np.asarray(weights.any(axis=1)))
        return {"mean": mean, "std": std, "weights": weights}
    if method == "score_genes":
        mean, _, _ = _moments(data, fit)
        rng = np.random.default_rng(fit.seed)
        options: dict[str, Any] = {"n_bins": fit.n_bins, "n_controls": fit.n_controls, "rng": rng}
        controls = control_genes(mean, weights > 0, excluded, **options)
        if (weights < 0).any():
            down = control_genes(mean, weights < 0, excluded, **options)
            controls = controls * weights.clip(min=0).sum(axis=0) + down * weights.clip(max=0).sum(axis=0)
        return {"n_bins": fit.n_bins, "weights": weights, "controls": controls}
    if method == "ucell":
        return {"max_rank": fit.max_rank or _max_rank(weights, data, fit), "weights": weights}
    decoupler()
    n_up = int(np.clip(np.ceil(0.05 * len(fit.genes)), 2, None))  # the default of decoupler, fixed for all slides
    return {"weights": weights} | ({"n_up": n_up} if method == "aucell" else {})


def scores_under(params: Mapping[str, Any], counts: sparse.csr_matrix) -> NDArray[np.float32]:
    """Scores ``(n_cells, n_signatures)`` of counts on ``params["genes"]``; NaN for a signature that is not measured."""
    weights = np.asarray(params["weights"])
    method = params["method"]
    if method == "zscore":
        scores = signature_scores(counts, library_size(counts), params["mean"], params["std"], weights)
    elif method == "score_genes":
        zeros, ones = np.zeros(len(weights)), np.ones(len(weights))
        scores = signature_scores(counts, library_size(counts), zeros, ones, weights - params["controls"])
    elif method == "ucell":
        scores = rank_scores(counts, weights > 0, max_rank=int(params["max_rank"]))
        if (weights < 0).any():
            down = np.nan_to_num(rank_scores(counts, weights < 0, max_rank=int(params["max_rank"])))
            scores = np.maximum(scores - down, 0)
    else:
        scores = _by_decoupler(params, counts)
    scores[:, ~weights.any(axis=0)] = np.nan
    return scores


def decoupler() -> Any:
    """The optional package, or an error that says how to get it."""
    try:
        import decoupler as package
    except ImportError as error:
        msg = "`method='aucell'` and `method='ulm'` need the package decoupler; `pip install decoupler`."
        raise InputError(msg) from error
    return package


def _moments(
    data: Data, fit: ScorerFit, genes: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    sums = map_slides(data, partial(_sums, fit=fit, genes=genes), "learn from cells")
    total, squares, n = (sum(parts) for parts in zip(*sums, strict=True))
    if n < 2:
        msg = f"`test_fold={fit.test_fold}` leaves {n} training cells; choose another fold."
        raise InputError(msg)
    return *scaler_from_moments(total, squares, n), n


def _sums(
    slide: Slide, *, fit: ScorerFit, genes: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Sum and sum of squares of every gene over the training cells of a slide, and the number of these."""
    total, squares = np.zeros(len(fit.genes)), np.zeros(len(fit.genes))
    rows = is_training(slide, positions(slide, fit.table_key), test_fold=fit.test_fold)
    for block, counts in count_blocks(slide, fit.table_key, fit.genes):
        more = gene_moments(counts, library_size(counts), rows=rows[block], genes=genes)
        total, squares = total + more[0], squares + more[1]
    return total, squares, int(rows.sum())


def _max_rank(weights: NDArray[np.float64], data: Data, fit: ScorerFit) -> int:
    """The least median number of detected genes of any training slide: one limit that suits all slides.

    With more, the ranks of the worst slide would be those of genes it did not detect.
    """
    found = map_slides(data, partial(_median_detected, fit=fit), "learn from cells")
    medians = [median for median in found if median is not None]
    if not medians:
        msg = f"`test_fold={fit.test_fold}` leaves 0 training cells; choose another fold."
        raise InputError(msg)
    return int(np.clip(min(medians), largest_set(weights), len(fit.genes)))


def _median_detected(slide: Slide, *, fit: ScorerFit) -> float | None:
    """Median number of genes in a training cell of a slide; None where it has none."""
    rows = is_training(slide, positions(slide, fit.table_key), test_fold=fit.test_fold)
    if not rows.any():
        return None
    detected = [detected_genes(counts) for _, counts in count_blocks(slide, fit.table_key, fit.genes)]
    return float(np.median(np.concatenate(detected)[rows]))


def _by_decoupler(params: Mapping[str, Any], counts: sparse.csr_matrix) -> NDArray[np.float32]:
    import anndata as ad

    # numbers for names: symbols may hold what another package treats specially
    genes = np.arange(counts.shape[1]).astype(str)
    weights = np.asarray(params["weights"])
    target, source = np.nonzero(weights)
    net = pd.DataFrame({"source": source.astype(str), "target": genes[target]})
    if (weights < 0).any() or any(map(_is_weighted, weights.T)):
        net["weight"] = weights[target, source]
    cells = ad.AnnData(
        log1p_cp10k(counts, library_size(counts)),
        obs=pd.DataFrame(index=np.arange(counts.shape[0]).astype(str)),
        var=pd.DataFrame(index=genes),
    )
    options = {"n_up": int(params["n_up"])} if params["method"] == "aucell" else {}
    run = getattr(decoupler().mt, params["method"])
    run(cells, net, tmin=1, empty=False, bsize=BATCH, **options)
    scores = pd.DataFrame(cells.obsm[f"score_{params['method']}"])
    names = np.arange(np.shape(params["weights"])[1]).astype(str)
    return scores.reindex(columns=names).to_numpy(np.float32)
