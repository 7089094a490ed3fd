"""UCell scores against the definition, with ranks from scipy, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import mannwhitneyu, rankdata

from spatialsig.stats.ranks import detected_genes, rank_scores


def definition(counts: np.ndarray, members: np.ndarray, max_rank: int) -> np.ndarray:
    ranks = rankdata(-counts, axis=1)  # average ranks, the highest count first
    out = np.zeros((len(counts), members.shape[1]))
    for column, genes in enumerate(members.T):
        n = genes.sum()
        capped = np.where(ranks[:, genes] > max_rank, max_rank + 1, ranks[:, genes])
        u = capped.sum(axis=1) - n * (n + 1) / 2
        out[:, column] = np.where((ranks[:, genes] > max_rank).all(axis=1), 0, 1 - u / (n * max_rank))
    return out


@given(st.integers(0, 10_000), st.integers(4, 40), st.sampled_from([0.2, 2.0, 200.0, 1000.0]))
def test_scores_equal_the_definition(seed: int, n_genes: int, depth: float) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(depth * rng.gamma(0.5, 1, (20, n_genes))).astype(np.float32)
    members = rng.random((n_genes, 3)) < 0.4
    members[0] = True
    max_rank = int(rng.integers(members.sum(axis=0).max(), n_genes + 1))
    scores = rank_scores(sparse.csr_matrix(counts), members, max_rank=max_rank)
    np.testing.assert_allclose(scores, definition(counts, members, max_rank), atol=1e-6)
    assert ((scores >= 0) & (scores <= 1)).all()


@pytest.mark.parametrize(
    ("row", "genes", "max_rank", "score"),
    [
        ([9, 8, 7, 0, 0, 0], [0, 1], 4, 1.0),  # ranks 1, 2: U = 0
        ([9, 8, 7, 0, 0, 0], [1, 2], 4, 0.75),  # ranks 2, 3: U = 2 of 8
        ([9, 9, 7, 0, 0, 0], [0, 1], 4, 1.0),  # tied on 1.5, 1.5: U = 0
        ([9, 8, 7, 0, 0, 0], [0, 3], 4, 0.625),  # zeros lie on rank 5, so 4 + 1: U = 1 + 5 - 3 = 3 of 8
        ([9, 8, 7, 0, 0, 0], [3, 4], 4, 0.0),  # none among the first four
        ([0, 0, 0, 0, 0, 0], [0, 1], 4, 0.5),  # all tied on 3.5: U = 7 - 3 = 4 of 8
        ([500, 400, 300, 300, 0, 0], [2, 3], 4, 0.5),  # tied on 3.5, above the tallied counts
    ],
)
def test_by_hand(row: list[int], genes: list[int], max_rank: int, score: float) -> None:
    members = np.zeros((6, 1), bool)
    members[genes] = True
    csr = sparse.csr_matrix(np.array([row], np.float32))
    assert rank_scores(csr, members, max_rank=max_rank)[0, 0] == pytest.approx(score)


def test_without_a_limit_it_is_the_mann_whitney_statistic() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(2, (10, 30)).astype(np.float32)
    members = np.zeros((30, 1), bool)
    members[:6] = True
    scores = rank_scores(sparse.csr_matrix(counts), members, max_rank=30)
    u = mannwhitneyu(-counts[:, :6], -counts[:, 6:], axis=1).statistic
    np.testing.assert_allclose(scores[:, 0], 1 - u / (6 * 30), atol=1e-6)


def test_stored_zeros_change_nothing() -> None:
    counts = sparse.csr_matrix(np.array([[3.0, 1.0, 2.0, 0.0]], np.float32))
    stored = counts.copy()
    stored.data[1] = 0
    dropped = stored.copy()
    dropped.eliminate_zeros()
    members = np.array([[True], [True], [False], [False]])
    np.testing.assert_array_equal(rank_scores(stored, members, max_rank=3), rank_scores(dropped, members, max_rank=3))
    assert detected_genes(stored).tolist() == [2]


def test_signature_without_genes_is_nan() -> None:
    counts = sparse.csr_matrix(np.ones((2, 3), np.float32))
    members = np.array([[True, False]] * 3)
    assert np.isnan(rank_scores(counts, members, max_rank=3)).tolist() == [[False, True]] * 2
