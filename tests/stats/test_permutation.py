import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats

from spatialsig.stats.permutation import benjamini_hochberg, combine, field, shift_p


def smooth(rng: np.random.Generator, side: int, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(rng.normal(size=(3 * side, 3 * side)), sigma)[side:-side, side:-side]


def brute_force(a: np.ndarray, b: np.ndarray, min_overlap: float) -> float:
    """All shifts of two maps ``(rows, cols)`` with NaN off the tissue, one by one."""
    rows, cols = a.shape
    found = {}
    for dy in range(-rows + 1, rows):
        for dx in range(-cols + 1, cols):
            moved = np.full(a.shape, np.nan)
            moved[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : cols + min(dx, 0)] = b[
                max(-dy, 0) : rows + min(-dy, 0), max(-dx, 0) : cols + min(-dx, 0)
            ]
            both = np.isfinite(a) & np.isfinite(moved)
            if both.sum() >= 3:
                found[dy, dx] = both.sum(), np.corrcoef(a[both], moved[both])[0, 1]
    n0 = found[0, 0][0]
    statistic = {k: r * np.sqrt(n) for k, (n, r) in found.items() if n >= min_overlap * n0}
    return float(np.mean(np.array(list(statistic.values())) >= statistic[0, 0] - 1e-9))


@pytest.mark.parametrize("seed", range(3))
def test_equals_shifting_one_by_one_on_ragged_tissue(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 8, 11))
    a[rng.random(a.shape) < 0.3] = np.nan
    b[np.isnan(a)] = np.nan
    row, col = np.indices(a.shape).reshape(2, -1) + 5
    keep = rng.permutation(a.size)  # the order of patches does not matter
    p = shift_p(*(field(m.ravel()[keep], row[keep], col[keep]) for m in (a, 3 * b + 100)))
    assert p == pytest.approx(brute_force(a, b, 0.25))


def test_uniform_when_smooth_maps_have_nothing_in_common() -> None:
    """... where the p-value of independent patches calls every third pair significant."""
    rng = np.random.default_rng(0)
    shifted, naive = [], []
    for _ in range(250):
        tissue = smooth(rng, 18, 4.0)
        row, col = np.nonzero(tissue > np.quantile(tissue, 0.4))
        maps = [smooth(rng, 18, 2.0)[row, col] for _ in range(2)]
        shifted.append(shift_p(*(field(m, row, col) for m in maps)))
        naive.append(stats.pearsonr(*maps, alternative="greater").pvalue)
    assert stats.kstest(shifted, "uniform").pvalue > 0.01
    assert stats.kstest(naive, "uniform").pvalue < 1e-6
    assert np.mean(np.array(naive) < 0.05) > 0.2


def test_a_real_link_is_found_and_its_opposite_is_not() -> None:
    rng = np.random.default_rng(1)
    truth = smooth(rng, 24, 1.5)
    row, col = np.indices(truth.shape).reshape(2, -1)
    guess = truth / truth.std() + smooth(rng, 24, 1.5) / truth.std()
    a, b = field(truth.ravel(), row, col), field(guess.ravel(), row, col)
    assert shift_p(a, b) < 0.01
    assert shift_p(a, field(-guess.ravel(), row, col)) > 0.9


def test_without_data_there_is_no_p() -> None:
    row, col = np.indices((6, 6)).reshape(2, -1)
    some = field(np.random.default_rng(0).normal(size=36), row, col)
    assert np.isnan(shift_p(some, field(np.full(36, 2.0), row, col)))
    assert np.isnan(shift_p(field(np.full(36, np.nan), row, col), some))
    line = np.arange(4), np.zeros(4, int)  # seven shifts are too few
    assert np.isnan(shift_p(field(np.arange(4.0), *line), field(np.arange(4.0) ** 2, *line)))


def test_combined_p_is_stouffers() -> None:
    p = np.array([0.03, np.nan, 0.2, 0.5])
    assert combine(p) == pytest.approx(stats.combine_pvalues([0.03, 0.2, 0.5], method="stouffer").pvalue)
    assert np.isnan(combine(np.array([np.nan])))
    assert 0 < combine(np.array([1.0, 0.01])) < 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 3))
def test_fdr_equals_its_definition(p: list[float], n_missing: int) -> None:
    q = benjamini_hochberg(np.array([*p, *[np.nan] * n_missing]))
    expected = [min(min(len(p) * other / sum(x <= other for x in p) for other in p if other >= one), 1) for one in p]
    np.testing.assert_allclose(q[: len(p)], expected, atol=1e-12)
    assert np.isnan(q[len(p) :]).all()
