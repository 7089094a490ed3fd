"""Outside predictions as scores of the signatures that the labels have: names matched, genes scored as the cells were.

Floor 11, above report. Used by referee/doubts, referee/laid, referee/units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from spatialsig._checks import first_few, plain_name
from spatialsig.errors import InputError
from spatialsig.labels.scorers import scores_under
from spatialsig.signatures import Coverage, describe_names
from spatialsig.stats.expression import TARGET_SUM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from spatialsig.referee.columns import Outside

SCORES, LOG1P, CP10K, COUNTS = "scores", "log1p_cp10k", "cp10k", "counts"
UNITS = (SCORES, LOG1P, CP10K, COUNTS)
_LINEAR = ("zscore", "score_genes")  # in log-normalised expression


@dataclass(frozen=True)
class Genes:
    """Predicted genes of the panel: their values, and where they stand on it."""

    values: NDArray[np.float64]  # (n, k)
    columns: NDArray[np.int64]  # places among the genes of the labels
    names: list[str]


def signature_scores_of(outside: Outside, signatures: Sequence[str]) -> tuple[NDArray[np.float64], list[str]]:
    """Columns that are signatures, in the order of the labels, NaN where there is none; and those that are missing."""
    by_name = {plain_name(name): column for column, name in enumerate(outside.names)}
    columns = [by_name.get(plain_name(name), -1) for name in signatures]
    if max(columns, default=-1) < 0:
        msg = (
            f"{outside.where}: no column is one of the signatures {first_few(list(signatures))}; it has {first_few(outside.names)}. "
            "If these are genes, say in which unit: `unit='log1p_cp10k'`, 'cp10k' or 'counts'."
        )
        raise InputError(msg)
    scores = np.full((len(outside.values), len(columns)), np.nan)
    there = np.array(columns) >= 0
    scores[:, there] = outside.values[:, np.array(columns)[there]]
    return scores, [name for name, column in zip(signatures, columns, strict=True) if column < 0]


def genes_of(outside: Outside, scored: Mapping[str, Any]) -> Genes:
    """Columns that are genes by which the labels were scored."""
    panel = pd.Index([str(gene) for gene in scored["genes"]])
    columns = np.asarray(panel.get_indexer(pd.Index(outside.names)))
    used: NDArray[np.bool_] = np.abs(np.asarray(scored["weights"])).sum(axis=1) > 0
    known = columns >= 0
    if not used[columns[known]].any():
        wanted = panel[used].tolist()
        said = describe_names(wanted, pd.DataFrame(index=outside.names))
        msg = (
            f"{outside.where}: none of the {len(wanted)} genes of the signatures ({first_few(wanted)}) is among its {len(outside.names)} "
            f"columns ({first_few(outside.names)}). {said} For columns that are scores of signatures pass `unit='scores'`."
        )
        raise InputError(msg)
    return Genes(outside.values[:, known], columns[known], [outside.names[k] for k in np.flatnonzero(known)])


def in_common(genes: Sequence[Genes]) -> Genes:
    """Values of several slides for the genes that were predicted on all of them."""
    shared = [name for name in genes[0].names if all(name in part.names for part in genes)]
    places = [[part.names.index(name) for name in shared] for part in genes]
    values = np.concatenate([part.values[:, place] for part, place in zip(genes, places, strict=True)])
    return Genes(values, genes[0].columns[places[0]], shared)


def scores_of_genes(
    genes: Genes, scored: Mapping[str, Any], signatures: Sequence[str], unit: str
) -> tuple[NDArray[np.float64], dict[str, str]]:
    """Scores ``(n, n_signatures)`` of predicted genes by the scorer of the labels, and signatures with too few genes, and why.

    Weights of genes that were not predicted are shared out among the others of a signature, so that its size stays.
    """
    weights = np.asarray(scored["weights"], np.float64)
    predicted = np.zeros(len(weights), bool)
    predicted[genes.columns] = True
    kept = np.where(predicted[:, None], weights, 0.0)
    size, left = np.abs(weights).sum(axis=0), np.abs(kept).sum(axis=0)
    kept *= np.divide(size, left, out=np.zeros_like(size), where=left > 0)
    reasons = {}
    for k, name in enumerate(map(str, scored["names"])):
        n_there, n_all = int((kept[:, k] != 0).sum()), int((weights[:, k] != 0).sum())
        if n_all and (reason := Coverage().reason(n_there, n_all)):
            reasons[name], kept[:, k] = reason.replace("measured", "predicted"), 0.0
    found = _scores(genes, dict(scored) | {"weights": kept}, unit)
    found[:, ~kept.any(axis=0)] = np.nan
    names = pd.Index([str(name) for name in scored["names"]]).get_indexer(pd.Index(list(signatures)))
    scores = np.full((len(found), len(names)), np.nan)
    scores[:, names >= 0] = found[:, names[names >= 0]]
    return scores, reasons


def _scores(genes: Genes, scored: Mapping[str, Any], unit: str) -> NDArray[np.float64]:
    if unit != COUNTS and scored["method"] in _LINEAR:
        expression = genes.values if unit == LOG1P else np.log1p(np.maximum(genes.values, 0))
        return _linear(expression, genes.columns, scored)
    values = np.expm1(np.minimum(genes.values, np.log1p(TARGET_SUM))) if unit == LOG1P else genes.values
    panel = np.zeros((len(values), len(scored["genes"])), np.float64)
    panel[:, genes.columns] = np.nan_to_num(np.maximum(values, 0))
    return np.asarray(scores_under(scored, sparse.csr_matrix(panel)), np.float64)


def _linear(
    expression: NDArray[np.float64], columns: NDArray[np.int64], scored: Mapping[str, Any]
) -> NDArray[np.float64]:
    """Scores that are sums over log-normalised expression: the same of a mean over cells as the mean of theirs."""
    weights = np.asarray(scored["weights"], np.float64)
    if scored["method"] == "zscore":
        mean, std = (np.asarray(scored[name], np.float64) for name in ("mean", "std"))
        return np.asarray(((expression - mean[columns]) / std[columns]) @ weights[columns])
    return np.asarray(expression @ (weights - np.asarray(scored["controls"], np.float64))[columns])
