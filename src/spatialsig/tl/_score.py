"""Score every cell for every signature."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_choice
from spatialsig._errors import InputError, SpatialsigWarning
from spatialsig._progress import track
from spatialsig.data.counts import common_genes, counts_of
from spatialsig.data.slides import open_slides, slide_count
from spatialsig.data.splits import positions, training_rows
from spatialsig.signatures import Coverage, coverage_table, measured_genes, read_signatures, weights
from spatialsig.stats.expression import gene_moments, library_size, scaler_from_moments, signature_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray
    from scipy import sparse

    from spatialsig.data.slides import Data, Slide

METHODS = ("zscore",)


def score_cells(
    data: Data,
    signatures: str | Path | Mapping[str, Sequence[str]] = "tumour_microenvironment",
    *,
    method: str = "zscore",
    test_fold: int | None = 0,
    min_genes: int = 3,
    min_fraction: float = 0.5,
    table_key: str = _keys.TABLE,
    key_added: str = _keys.CELL_SIGNATURES,
) -> pd.DataFrame:
    """Score every cell for every signature.

    The score is the mean over the signature's genes of the z-scored ``log1p(1e4 * count / library)``. Mean and standard
    deviation of each gene come from the training cells of all slides together and are the same for every slide. A
    signature uses the genes that **all** slides measure, so that it means the same everywhere; one with too few of them
    is NaN, never zero.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    signatures
        Name of a built-in set, file, or mapping of names to genes; see :func:`spatialsig.io.read_signatures`.
    method
        ``"zscore"``.
    test_fold
        Fold whose cells do not enter mean and standard deviation; ``None`` uses every cell.
    min_genes, min_fraction
        A signature is scored when at least this many and this share of its genes are measured.
    table_key
        Table of the cells, raw counts in ``X``.
    key_added
        Name of the result.

    Returns
    -------
    Coverage of each signature: genes wanted, genes measured, missing genes, and the reason where it is not scored.
    Writes ``tables[table_key].obsm[key_added]`` (``(n_cells, n_signatures)`` float32) and
    ``uns["spatialsig"]["score_cells"]`` (names, genes, scaler) on every slide.

    Raises
    ------
    InputError
        If no signature is measured well enough; nothing is written.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> coverage = sp.tl.score_cells(sdata, "seed", test_fold=None)
    >>> sdata["table"].obsm["signatures"].shape[1] == len(coverage)
    True
    """
    check_choice(method, METHODS, name="method")
    sets = read_signatures(signatures)
    panels = [list(slide.table(table_key).var_names) for slide in open_slides(data)]
    report = coverage_table(sets, panels, coverage=Coverage(min_genes, min_fraction))
    _check_coverage(report, panels)
    genes = common_genes(panels)
    mean, std = _fit_scaler(data, genes, test_fold, table_key)
    usable = weights(measured_genes(sets, panels), genes)
    usable[:, (report["reason"] != "").to_numpy()] = 0
    params: dict[str, Any] = {
        "method": method,
        "key": key_added,
        "names": list(sets),
        "n_genes_panel": report["n_genes_panel"].to_numpy(),
        "n_genes_measured": report["n_genes_measured"].to_numpy(),
        "reason": report["reason"].tolist(),
        "genes": genes,
        "mean": mean,
        "std": std,
        "weights": usable,
        "test_fold": -1 if test_fold is None else test_fold,
    }
    for slide in track(open_slides(data), "score cells", total=slide_count(data), unit="slide"):
        counts = counts_of(slide, table_key, genes)
        slide.table(table_key).obsm[key_added] = scores_under(params, counts)
        slide.params(table_key)["score_cells"] = dict(params)
        slide.commit(table_key)
    return report


def scores_under(params: Mapping[str, Any], counts: sparse.csr_matrix) -> NDArray[np.float32]:
    """Scores ``(n_cells, n_signatures)`` of counts on ``params["genes"]``; NaN for a signature that is not measured."""
    library = library_size(counts)
    scores = signature_scores(counts, library, params["mean"], params["std"], params["weights"])
    scores[:, ~np.asarray(params["weights"]).any(axis=0)] = np.nan
    return scores


def _check_coverage(report: pd.DataFrame, panels: list[list[str]]) -> None:
    dropped = report[report["reason"] != ""]
    if len(dropped) == len(report):
        zero = report.index[report["n_genes_measured"] == 0].tolist()
        said = "; ".join(f"{name}: {reason}" for name, reason in report["reason"].items())
        msg = (
            f"no signature is measured well enough on all {len(panels)} slides ({said}). Without any gene on the panel: "
            f"{zero}; the panel names its genes like {panels[0][:3]}. Use another set, or lower `min_fraction`."
        )
        raise InputError(msg)
    if len(dropped):
        said = "; ".join(f"{name} ({reason})" for name, reason in dropped["reason"].items())
        warnings.warn(f"not scored, NaN on every slide: {said}.", SpatialsigWarning, stacklevel=3)


def _fit_scaler(
    data: Data, genes: list[str], test_fold: int | None, table_key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    total, squares, n = np.zeros(len(genes)), np.zeros(len(genes)), 0
    for slide in open_slides(data):
        counts = _training_counts(slide, genes, test_fold, table_key)
        slide_total, slide_squares = gene_moments(counts, library_size(counts))
        total, squares, n = total + slide_total, squares + slide_squares, n + counts.shape[0]
    if n < 2:
        msg = f"`test_fold={test_fold}` leaves {n} training cells; choose another fold."
        raise InputError(msg)
    return scaler_from_moments(total, squares, n)


def _training_counts(slide: Slide, genes: list[str], test_fold: int | None, table_key: str) -> sparse.csr_matrix:
    rows = training_rows(slide, positions(slide, table_key), test_fold=test_fold)
    return counts_of(slide, table_key, genes)[rows]
