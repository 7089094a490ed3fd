import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialsig.data.splits import BUFFER, block_folds, group_folds


@given(
    sizes=st.dictionaries(st.text("abc", min_size=1), st.integers(1, 5), min_size=2),
    seed=st.integers(0, 5),
    n_folds=st.integers(2, 4),
)
def test_groups_fill_the_folds_evenly(sizes: dict[str, int], seed: int, n_folds: int) -> None:
    folds = group_folds(sizes, n_folds=n_folds, seed=seed)
    assert set(folds) == set(sizes)
    load = np.bincount(list(folds.values()), [sizes[name] for name in folds], minlength=n_folds)
    assert np.ptp(load) <= max(sizes.values())
    assert folds == group_folds(dict(reversed(sizes.items())), n_folds=n_folds, seed=seed)


@given(seed=st.integers(0, 1000), block=st.floats(50, 300), buffer=st.floats(0, 49))
def test_two_folds_are_never_nearer_than_the_buffer(seed: int, block: float, buffer: float) -> None:
    xy = np.random.default_rng(seed).uniform(0, 600, (150, 2))
    folds = block_folds(xy, block_um=block, buffer_um=buffer, n_folds=3, seed=seed)
    for a in range(3):
        for b in range(a):
            gap = np.abs(xy[folds == a][:, None] - xy[folds == b][None]).max(axis=-1)
            assert gap.size == 0 or gap.min() >= buffer * (1 - 1e-9)


def test_buffer_excludes_only_rims() -> None:
    xy = np.array([[50.0, 50.0], [99.0, 50.0], [150.0, 50.0], [50.0, 101.0]])
    folds = block_folds(xy, block_um=100, buffer_um=10, n_folds=2, seed=0)
    assert (folds == BUFFER).tolist() == [False, True, False, False]


@pytest.mark.parametrize("n_folds", [2, 3, 4])
def test_blocks_share_the_slide_evenly(n_folds: int) -> None:
    xy = np.random.default_rng(0).uniform(0, 1200, (4000, 2))
    folds = block_folds(xy, block_um=100, buffer_um=0, n_folds=n_folds, seed=3)
    assert np.ptp(np.bincount(folds, minlength=n_folds)) < 250
