"""Dense batches against a dense float64 computation, for any cells in any order."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from spatialsig.stats.cell_rows import dense_rows, log_expression, standardised_rows, sub_matrix, zscore_rows
from spatialsig.stats.expression import library_size

COUNTS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 300))


@given(COUNTS, st.data())
def test_rows_equal_the_dense_formula(counts: np.ndarray, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows = np.array(data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=20)), np.int64)
    mean, std = rng.normal(size=counts.shape[1]), rng.uniform(0.5, 2, counts.shape[1])
    csr = sparse.csr_matrix(counts)
    library = counts.sum(axis=1, keepdims=True, dtype=np.float64)
    expected = (np.log1p(1e4 * counts.astype(np.float64) / np.maximum(library, 1)) - mean) / std
    found = zscore_rows(csr, rows, library_size(csr), mean, std)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected[rows], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(dense_rows(csr, rows), counts[rows])
    expression = log_expression(csr, library_size(csr))
    assert not csr.nnz or np.shares_memory(expression.indices, csr.indices)
    np.testing.assert_allclose(standardised_rows(expression, rows, mean, std), found, rtol=1e-5, atol=1e-5)


@given(COUNTS, st.data())
def test_any_cells_and_genes_in_any_order(counts: np.ndarray, data: st.DataObject) -> None:
    rows = np.array(data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=20)), np.int64)
    columns = np.array(data.draw(st.permutations(range(-1, counts.shape[1]))), np.int64)
    found = sub_matrix(sparse.csr_matrix(counts), columns, rows)
    assert found.dtype == np.float32
    expected = np.where(columns >= 0, counts[:, columns], 0)
    np.testing.assert_array_equal(found.toarray(), expected[rows])
    np.testing.assert_array_equal(sub_matrix(sparse.csr_matrix(counts), columns).toarray(), expected)


def test_fractions_and_large_counts_are_no_table_entries() -> None:
    counts = sparse.csr_matrix(np.array([[0.5, 7.0, 7.5, 8.0, 1e6]], np.float32))
    library = library_size(counts)
    expected = np.log1p(1e4 * counts.toarray().astype(np.float64) / library[0])
    np.testing.assert_allclose(
        zscore_rows(counts, np.array([0]), library, np.zeros(5), np.ones(5)), expected, rtol=1e-6
    )
