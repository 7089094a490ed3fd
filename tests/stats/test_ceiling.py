import numpy as np
from scipy import sparse

from spatialsig.stats.ceiling import ceiling_from_halves, split_counts


def test_halves_add_up_and_are_independent_thinnings() -> None:
    counts = sparse.random(400, 50, density=0.4, random_state=0, format="csr")
    counts.data = np.random.default_rng(0).poisson(20, counts.nnz).astype(np.float32)
    one, two = split_counts(counts, seed=1)
    np.testing.assert_array_equal((one + two).toarray(), counts.toarray())
    assert abs(one.sum() / counts.sum() - 0.5) < 0.01
    # thinning a Poisson count gives independent halves
    assert abs(np.corrcoef(one.data, two.data)[0, 1]) < 0.05


def test_ceiling_equals_the_correlation_with_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=100_000)
    halves = [truth + rng.normal(scale=1.2, size=truth.size) for _ in range(2)]
    whole = (halves[0] + halves[1]) / 2
    estimate = ceiling_from_halves(np.array([np.corrcoef(*halves)[0, 1]]))[0]
    assert abs(estimate - np.corrcoef(truth, whole)[0, 1]) < 0.01


def test_ceiling_keeps_nan_and_never_exceeds_one() -> None:
    np.testing.assert_array_equal(ceiling_from_halves(np.array([np.nan, -0.2, 1.0])), [np.nan, 0, 1])
