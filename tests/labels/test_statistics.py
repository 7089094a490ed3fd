"""Statistics of the cells of a patch are those of pandas, with their standard errors."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spatialsig.labels.scorers import scores_under
from spatialsig.labels.statistics import (
    PSEUDOBULK,
    STATISTICS,
    pseudobulk_labels,
    score_labels,
    standard_error,
    statistic,
)

N_CELLS, N_PATCHES = 60, 5
ORACLES: dict[str, Callable[[pd.Series], float]] = {
    "mean": lambda s: s.mean(),
    "median": lambda s: s.median(),
    "sum": lambda s: s.sum(),
    "fraction": lambda s: (s.dropna() > 0).mean(),
    "count": lambda s: s.count(),
    "trimmed_mean": lambda s: s.dropna().sort_values().iloc[int(0.2 * s.count()) : s.count() - int(0.2 * s.count())].mean(),
}  # fmt: skip
ERRORS: dict[str, Callable[[pd.Series], float]] = {
    "mean": lambda s: s.sem(),
    "median": lambda s: s.sem(),
    "sum": lambda s: s.std() * np.sqrt(s.count()),
    "fraction": lambda s: (s.dropna() > 0).astype(float).sem(),
    "count": lambda s: 0.0,
    "trimmed_mean": lambda s: s.sem(),
}


@pytest.fixture
def cells() -> tuple[np.ndarray, sparse.csr_matrix]:
    """Values of cells with gaps; a cell may lie in several patches, and none lies in the last."""
    rng = np.random.default_rng(0)
    values = rng.normal(1.0, 2.0, (N_CELLS, 3))
    values[rng.random((N_CELLS, 3)) < 0.1] = np.nan
    inside = rng.random((N_CELLS, N_PATCHES)) < 0.4
    inside[:, -1] = False
    return values, sparse.csr_matrix(inside.astype(np.float32))


def by_patch(values: np.ndarray, membership: sparse.csr_matrix, compute: Callable[[pd.Series], float]) -> np.ndarray:
    inside = membership.toarray() > 0
    return np.array([[compute(pd.Series(column[rows])) for column in values.T] for rows in inside.T])


def test_every_cell_statistic_has_an_oracle_here() -> None:
    assert set(STATISTICS) == {*ORACLES, PSEUDOBULK}


@pytest.mark.parametrize("stat", ORACLES)
def test_statistics_equal_pandas(cells: tuple[np.ndarray, sparse.csr_matrix], stat: str) -> None:
    computed = statistic(*cells, stat=stat, trim=0.2)
    np.testing.assert_allclose(computed, by_patch(*cells, ORACLES[stat]), rtol=1e-6)
    if stat not in ("sum", "count"):
        assert np.isnan(computed[-1]).all()


@pytest.mark.parametrize("stat", ERRORS)
def test_standard_errors_equal_pandas(cells: tuple[np.ndarray, sparse.csr_matrix], stat: str) -> None:
    computed = standard_error(*cells, stat=stat)
    expected = by_patch(*cells, ERRORS[stat])
    np.testing.assert_allclose(computed[:-1], expected[:-1], rtol=1e-6)


def scored(n_genes: int, n_measured: int) -> dict[str, object]:
    """The z-score of three signatures, of which only the first are measured."""
    rng = np.random.default_rng(1)
    weights = np.zeros((n_genes, 3))
    for k in range(n_measured):
        weights[[2 * k, 2 * k + 1], k] = 0.5
    return {"method": "zscore", "weights": weights, "mean": rng.random(n_genes), "std": 1 + rng.random(n_genes)}


def zscores(counts: np.ndarray, params: dict[str, object]) -> np.ndarray:
    x = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    return (x - params["mean"]) / params["std"] @ params["weights"]


def test_pseudobulk_scores_the_sum_of_the_counts(cells: tuple[np.ndarray, sparse.csr_matrix]) -> None:
    membership = cells[1][:, :-1]
    counts = np.random.default_rng(2).poisson(2.0, (N_CELLS, 8)).astype(np.float32)
    params = scored(8, 3)
    whole = sparse.csr_matrix(counts)
    blocks = [(slice(0, 7), whole[:7]), (slice(7, N_CELLS), whole[7:])]
    labels = pseudobulk_labels(params, blocks, membership)
    np.testing.assert_allclose(labels, zscores(membership.toarray().T @ counts, params), rtol=1e-4, atol=1e-5)


def test_labels_of_a_signature_that_is_not_measured_are_missing(cells: tuple[np.ndarray, sparse.csr_matrix]) -> None:
    counts = np.random.default_rng(2).poisson(2.0, (N_CELLS, 8)).astype(np.float32)
    params = scored(8, 2)
    whole, membership = sparse.csr_matrix(counts), cells[1][:, :-1]
    scores = scores_under(params, whole)
    for stat in STATISTICS:
        if stat == PSEUDOBULK:
            labels = pseudobulk_labels(params, [(slice(0, N_CELLS), whole)], membership)
        else:
            labels = score_labels(scores, membership, stat=stat, trim=0.2)
        assert np.isfinite(labels[:, :2]).all()
        assert np.isnan(labels[:, 2]).all()
