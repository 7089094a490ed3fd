"""Kernels on CSR against dense float64 computations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from spatialsig.stats.cell_scores import signature_scores
from spatialsig.stats.expression import (
    gene_moments,
    library_size,
    log1p_cp10k,
    value_range,
)

COUNTS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 300))


def oracle(counts: np.ndarray) -> np.ndarray:
    dense = counts.astype(np.float64)
    return np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1))


@given(COUNTS)
def test_normalised_values_equal_the_dense_formula(counts: np.ndarray) -> None:
    csr = sparse.csr_matrix(counts)
    np.testing.assert_allclose(log1p_cp10k(csr, library_size(csr)).toarray(), oracle(counts), rtol=1e-6)


@given(COUNTS)
def test_moments_equal_the_dense_sums(counts: np.ndarray) -> None:
    csr = sparse.csr_matrix(counts)
    total, squares = gene_moments(csr, library_size(csr))
    np.testing.assert_allclose(total, oracle(counts).sum(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(squares, (oracle(counts) ** 2).sum(axis=0), rtol=1e-12, atol=1e-12)


@given(COUNTS, st.integers(0, 99))
def test_scores_equal_the_dense_formula(counts: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_genes = counts.shape[1]
    mean, std = rng.normal(size=n_genes), rng.uniform(0.5, 2, n_genes)
    weights = rng.random((n_genes, 3)) * (rng.random((n_genes, 3)) < 0.4)
    csr = sparse.csr_matrix(counts)
    expected = (oracle(counts) - mean) / std @ weights
    np.testing.assert_allclose(
        signature_scores(csr, library_size(csr), mean, std, weights), expected, rtol=1e-5, atol=1e-5
    )


def test_library_may_come_from_more_genes_than_are_scored() -> None:
    csr = sparse.csr_matrix(np.array([[2.0, 0.0]], np.float32))
    assert log1p_cp10k(csr, np.array([8.0]))[0, 0] == pytest.approx(np.log1p(1e4 * 2 / 8))


@given(COUNTS, st.integers(0, 99))
def test_moments_of_some_rows_are_those_of_the_rows_alone(counts: np.ndarray, seed: int) -> None:
    rows = np.random.default_rng(seed).random(len(counts)) < 0.5
    csr = sparse.csr_matrix(counts)
    some, alone = sparse.csr_matrix(counts), sparse.csr_matrix(counts[rows])
    np.testing.assert_array_equal(
        gene_moments(some, library_size(csr), rows=rows), gene_moments(alone, library_size(alone))
    )


def test_value_that_is_no_small_count_is_taken_as_it_is() -> None:
    values = np.array([[0.5, 3.0, 7.0, 8.0, 1e6]])
    csr = sparse.csr_matrix(values)
    total, _ = gene_moments(csr, np.array([100.0]))
    np.testing.assert_array_equal(total, np.log1p(values[0] * 100.0))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], (True, 0.0, 0.0)),
        ([3.0, 1.0], (True, 1.0, 3.0)),
        ([-2.0, 1.5], (False, -2.0, 1.5)),
        ([np.nan], (False, np.nan, np.nan)),
        ([1, 5], (True, 1.0, 5.0)),
    ],
)
def test_value_range(values: list, expected: tuple) -> None:
    np.testing.assert_equal(value_range(np.array(values)), expected)
