"""Patch statistics against pandas, for cells that lie in none, one or several patches."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from spatialsig.stats.grouped import group_sizes, grouped_mean, grouped_median, grouped_sem


@st.composite
def cells_in_patches(draw: st.DrawFn) -> tuple[np.ndarray, sparse.csr_matrix, pd.DataFrame]:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    n_cells, n_patches = draw(st.integers(1, 30)), draw(st.integers(1, 6))
    values = rng.normal(1e3, 1, (n_cells, 2))
    member = rng.random((n_cells, n_patches)) < 0.3
    cells, patches = np.nonzero(member)
    long = pd.DataFrame(values[cells]).assign(patch=patches)
    return values, sparse.csr_matrix(member.astype(np.uint8)), long


def by_pandas(long: pd.DataFrame, n_patches: int, how: str) -> np.ndarray:
    return getattr(long.groupby("patch"), how)().reindex(range(n_patches)).to_numpy()


@given(cells_in_patches())
def test_statistics_equal_pandas(case: tuple[np.ndarray, sparse.csr_matrix, pd.DataFrame]) -> None:
    values, member, long = case
    n = member.shape[1]
    np.testing.assert_allclose(grouped_mean(values, member), by_pandas(long, n, "mean"), rtol=1e-12)
    np.testing.assert_allclose(grouped_sem(values, member), by_pandas(long, n, "sem"), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(grouped_median(values, member), by_pandas(long, n, "median"), rtol=1e-12)
    np.testing.assert_array_equal(group_sizes(member), np.asarray(member.sum(axis=0)).ravel())


def test_median_ignores_nan_and_mean_does_not() -> None:
    values = np.array([[1.0], [np.nan], [3.0]])
    member = sparse.csr_matrix(np.ones((3, 1), np.uint8))
    assert grouped_median(values, member)[0, 0] == 2.0
    assert np.isnan(grouped_mean(values, member)[0, 0])
