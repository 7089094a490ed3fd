"""Patch statistics against pandas and scipy, for cells that lie in none, one or several patches."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats

from spatialsig.stats import grouped


@st.composite
def cells_in_patches(draw: st.DrawFn) -> tuple[np.ndarray, sparse.csr_matrix, pd.DataFrame]:
    """Values with offsets, ties and NaN; membership; and both as one long table."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_cells, n_patches = draw(st.integers(1, 40)), draw(st.integers(1, 6))
    values = rng.normal(1e3, 1, (n_cells, 3))
    values[:, 1] = rng.integers(0, 3, n_cells)
    values[rng.random(values.shape) < draw(st.sampled_from([0, 0.3]))] = np.nan
    member = rng.random((n_cells, n_patches)) < 0.5
    cells, patches = np.nonzero(member)
    long = pd.DataFrame(values[cells]).assign(patch=patches)
    return values, sparse.csr_matrix(member.astype(np.uint8)), long


def by_pandas(long: pd.DataFrame, n_patches: int, how: str | Callable) -> np.ndarray:
    return long.groupby("patch").agg(how).reindex(range(n_patches)).to_numpy()


@given(cells_in_patches())
def test_statistics_equal_pandas(case: tuple[np.ndarray, sparse.csr_matrix, pd.DataFrame]) -> None:
    values, member, long = case
    n = member.shape[1]
    np.testing.assert_allclose(grouped.grouped_mean(values, member), by_pandas(long, n, "mean"), rtol=1e-12)
    np.testing.assert_allclose(grouped.grouped_sem(values, member), by_pandas(long, n, "sem"), rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(grouped.grouped_median(values, member), by_pandas(long, n, "median"))
    np.testing.assert_allclose(
        grouped.grouped_sum(values, member), np.nan_to_num(by_pandas(long, n, "sum")), rtol=1e-12
    )
    np.testing.assert_array_equal(grouped.grouped_count(values, member), np.nan_to_num(by_pandas(long, n, "count")))
    np.testing.assert_array_equal(grouped.group_sizes(member), np.asarray(member.sum(axis=0)).ravel())


@given(cells_in_patches(), st.sampled_from([0.0, 0.1, 0.25, 0.4]))
def test_trimmed_mean_equals_scipy(case: tuple[np.ndarray, sparse.csr_matrix, pd.DataFrame], trim: float) -> None:
    values, member, long = case
    expected = by_pandas(long, member.shape[1], lambda x: stats.trim_mean(x.dropna(), trim) if x.count() else np.nan)
    np.testing.assert_allclose(grouped.grouped_trimmed_mean(values, member, trim=trim), expected, rtol=1e-12)


@given(cells_in_patches(), st.integers(0, 3))
def test_fraction_above_a_threshold(case: tuple[np.ndarray, sparse.csr_matrix, pd.DataFrame], threshold: int) -> None:
    values, member, long = case
    expected = by_pandas(long, member.shape[1], lambda x: (x.dropna() > threshold).mean() if x.count() else np.nan)
    np.testing.assert_allclose(grouped.grouped_fraction(values, member, threshold=threshold), expected, rtol=1e-6)


@given(cells_in_patches())
def test_shares_of_categories_equal_pandas(case: tuple[np.ndarray, sparse.csr_matrix, pd.DataFrame]) -> None:
    values, member, long = case
    codes = np.where(np.isnan(values[:, 1]), -1, values[:, 1]).astype(np.int64)
    shares = grouped.grouped_shares(codes, 3, member)
    expected = pd.crosstab(long["patch"], long[1], normalize="index").reindex(columns=range(3), fill_value=0.0)
    np.testing.assert_allclose(shares, expected.reindex(range(member.shape[1])), rtol=1e-12)


@given(st.integers(0, 1000))
def test_pseudobulk_equals_the_dense_product(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.4, (30, 7)).astype(np.float32)
    member = (rng.random((30, 5)) < 0.3).astype(np.uint8)
    summed = grouped.pseudobulk(sparse.csr_matrix(counts), sparse.csr_matrix(member))
    np.testing.assert_array_equal(summed.toarray(), member.T.astype(float) @ counts)
    assert summed.has_canonical_format


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
def test_other_types_sum_in_float64(dtype: type) -> None:
    values = np.ones((1 << 12, 1), dtype)
    if dtype is np.float32:
        values[0] = 2.0**24  # a float32 sum would lose every following 1
    member = sparse.csr_matrix(np.ones((len(values), 1), np.uint8))
    assert grouped.grouped_sum(values, member)[0, 0] == values.sum(dtype=np.float64)


def test_column_that_is_never_measured_stays_nan() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    member = sparse.csr_matrix(np.ones((2, 1), np.uint8))
    for statistic in (grouped.grouped_mean, grouped.grouped_median, grouped.grouped_sem, grouped.grouped_fraction):
        assert np.isfinite(statistic(values, member)[0]).tolist() == [True, False]


def test_equal_values_and_sorted_values_are_quick() -> None:
    values = np.stack([np.zeros(200_000), np.arange(200_000.0)], axis=1)
    member = sparse.csr_matrix(np.ones((len(values), 1), np.uint8))
    np.testing.assert_array_equal(grouped.grouped_median(values, member), [[0.0, 99_999.5]])
