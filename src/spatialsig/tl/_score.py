"""Scores of every cell for every signature.

Floor 7, above evaluation. Called as sp.tl.score_cells; used by cli/slide_commands, datasets/_toy, pipeline/run_steps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import Count, Fraction, Key, Natural, NewKey, Seed, Several, checked
from spatialsig._checks import check_choice, warn
from spatialsig.errors import InputError
from spatialsig.labels.scorers import METHODS, UNITS, ScorerFit, check_weights, fit_method, largest_set, scores_under
from spatialsig.signatures import (
    Coverage,
    Source,
    coverage_table,
    describe_names,
    in_panel_names,
    measured_genes,
    read_signatures,
    weights,
)  # fmt: skip
from spatialsig.slide.added import check_added_part
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.counts import common_genes, count_blocks, named_genes
from spatialsig.slide.each import map_slides
from spatialsig.slide.parts import counts_of_table
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, Slide, learn_from, open_slides

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spatialsig.signatures import Genes


@checked
@needs_cells
def score_cells(
    data: Data,
    signatures: Source = "tumour_microenvironment",
    *,
    method: str = "zscore",
    test_fold: Natural | None = 0,
    min_genes: Natural = 3,
    min_fraction: Fraction = 0.5,
    max_rank: Count | None = None,
    n_bins: Several = 10,
    n_controls: Count = 50,
    seed: Seed = 0,
    gene_symbols: Key | None = None,
    table_key: Key = _keys.TABLE,
    key_added: NewKey = _keys.CELL_SIGNATURES,
) -> pd.DataFrame:
    """Score every cell for every signature from its counts.

    Whatever a method learns comes from the training cells of all slides together and is the same for every slide. A
    signature uses the genes that **all** slides measure, so that it means the same everywhere; one with too few of them
    is NaN, never zero.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    signatures
        Name of a built-in set, file, or mapping of names to genes or to weights by gene; see
        :func:`spatialsig.io.read_signatures`.
    method
        With ``x = log1p(1e4 * count / library)``:

        - ``"zscore"`` (default): mean z-score of ``x`` over the genes of the signature; weighted where they have weights.
        - ``"score_genes"``: mean of ``x`` minus the mean of control genes from the same expression bins [1]_, as in
          :func:`scanpy.tl.score_genes`, except that no gene of any signature is a control. Weights are used; genes with a
          minus have controls of their own.
        - ``"ucell"``: Mann-Whitney U of the genes' ranks within the cell [2]_, with exact ties. That of the genes with a
          minus is taken off, and what is below 0 becomes 0, as UCell does; other weights are refused.
        - ``"aucell"`` [3]_, ``"ulm"`` [4]_: by the package decoupler, which has to be installed. ``"ulm"`` uses weights,
          ``"aucell"`` refuses them.
    test_fold
        Fold whose cells nothing is learnt from; ``None`` uses every cell.
    min_genes, min_fraction
        A signature is scored when at least this many and this share of its genes are measured.
    max_rank
        Largest rank of ``"ucell"``: genes ranked lower count as tied. By default the least median number of detected genes of
        any training slide, but at least the size of the largest signature.
    n_bins, n_controls, seed
        Expression bins of ``"score_genes"``, controls drawn from each (at most), and seed of the draw. On a panel of a
        few hundred genes more bins leave too few controls.
    gene_symbols
        Column of ``var`` with the names that signatures use, where ``var_names`` are others, such as Ensembl ids.
    table_key
        Table of the cells, raw counts in ``X``.
    key_added
        Name of the result.

    Returns
    -------
    Coverage of each signature: genes wanted, genes measured, missing genes, and the reason where it is not scored.
    Writes ``tables[table_key].obsm[key_added]`` (``(n_cells, n_signatures)`` float32) and
    ``uns["spatialsig"]["score_cells"]`` (``unit`` of the scores in words, names, genes, weights of the genes, what the method learnt) on every slide.

    Raises
    ------
    InputError
        If no signature is measured well enough, the method cannot use signs or weights that are there, ``max_rank`` is
        smaller than a signature, no gene is left as control, or decoupler is not installed; nothing is written.

    References
    ----------
    .. [1] Tirosh I, Izar B, Prakadan SM, et al. Dissecting the multicellular ecosystem of metastatic melanoma by
       single-cell RNA-seq. Science 352, 189-196 (2016). https://doi.org/10.1126/science.aad0501
    .. [2] Andreatta M, Carmona SJ. UCell: robust and scalable single-cell gene signature scoring. Computational and
       Structural Biotechnology Journal 19, 3796-3798 (2021). https://doi.org/10.1016/j.csbj.2021.06.043
    .. [3] Aibar S, González-Blas CB, Moerman T, et al. SCENIC: single-cell regulatory network inference and clustering.
       Nature Methods 14, 1083-1086 (2017). https://doi.org/10.1038/nmeth.4463
    .. [4] Badia-i-Mompel P, Vélez Santiago J, Braunger J, et al. decoupleR: ensemble of computational methods to infer
       biological activities from omics data. Bioinformatics Advances 2, vbac016 (2022).
       https://doi.org/10.1093/bioadv/vbac016

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> coverage = sp.tl.score_cells(sdata, "seed", test_fold=None)
    >>> sdata["table"].obsm["signatures"].shape[1] == len(coverage)
    True
    """
    check_choice(method, METHODS, name="method")
    refuse_leaks(data, [] if test_fold is None else [test_fold])
    var = {}
    for slide in open_slides(learn_from(data)):
        var[slide.name] = named_genes(slide, table_key)
        check_added_part(slide, table_key, "obsm", key_added, made_by="tl.score_cells")
    sets = in_panel_names(read_signatures(signatures), var, gene_symbols)
    panels = [list(frame.index) for frame in var.values()]
    report = coverage_table(sets, panels, coverage=Coverage(min_genes, min_fraction))
    _check_coverage(report, sets, next(iter(var.values())), len(var))
    genes = common_genes(panels)
    usable = weights(measured_genes(sets, panels), genes)
    excluded = np.asarray(usable.any(axis=1))
    usable[:, (report["reason"] != "").to_numpy()] = 0
    check_weights(method, usable, list(sets))
    _check_max_rank(max_rank, usable)
    fit = ScorerFit(genes, test_fold, table_key, max_rank, n_bins, n_controls, seed)
    learnt = fit_method(method, usable, excluded, learn_from(data), fit)
    params: dict[str, Any] = {
        "method": method,
        "unit": UNITS[method],
        "key": key_added,
        "names": list(sets),
        "n_genes_panel": report["n_genes_panel"].to_numpy(),
        "n_genes_measured": report["n_genes_measured"].to_numpy(),
        "reason": report["reason"].tolist(),
        "genes": genes,
        "test_fold": -1 if test_fold is None else test_fold,
        **learnt,
    }
    map_slides(data, partial(_score, params=params, table_key=table_key, test_fold=test_fold), "score cells")
    return report


def _score(slide: Slide, *, params: dict[str, Any], table_key: str, test_fold: int | None) -> None:
    scores = [scores_under(params, counts) for _, counts in count_blocks(slide, table_key, params["genes"])]
    slide.table(table_key).obsm[params["key"]] = np.concatenate(scores)
    slide.params(table_key)["score_cells"] = dict(params)
    slide.commit_table(
        table_key,
        obsm=[params["key"]],
        steps=["score_cells"],
        made_by="tl.score_cells",
        sources=counts_of_table(table_key, test_fold),
    )


def _check_max_rank(max_rank: int | None, usable: NDArray[np.float64]) -> None:
    largest = largest_set(usable)
    if max_rank is not None and max_rank < largest:
        msg = f"`max_rank={max_rank}` is smaller than the largest signature ({largest} genes measured)."
        raise InputError(msg)


def _check_coverage(report: pd.DataFrame, sets: Mapping[str, Genes], var: pd.DataFrame, n_slides: int) -> None:
    dropped = report[report["reason"] != ""]
    hint = describe_names([gene for name in dropped.index for gene in sets[name]], var)
    if len(dropped) == len(report):
        zero = report.index[report["n_genes_measured"] == 0].tolist()
        reasons = "; ".join(f"{name}: {reason}" for name, reason in report["reason"].items())
        msg = (
            f"no signature is measured well enough on {'the slide' if n_slides == 1 else f'all {n_slides} slides'} ({reasons}). Without any gene on the panel: "
            f"{zero}; the panel names its genes like {list(var.index[:3])}. {hint or 'Use another set, or lower `min_fraction`.'}"
        )
        raise InputError(msg)
    if len(dropped):
        reasons = "; ".join(f"{name} ({reason})" for name, reason in dropped["reason"].items())
        warn(f"not scored, NaN on every slide: {reasons}. {hint}".rstrip())
