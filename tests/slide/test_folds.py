import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialsig.slide.folds import (
    BUFFER,
    block_folds,
    group_folds,
    inner_block_folds,
    inner_group_folds,
    random_folds,
)


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


@given(
    sizes=st.dictionaries(st.text("abcd", min_size=1), st.integers(1, 4), min_size=3, max_size=12),
    seed=st.integers(0, 5),
    n_folds=st.integers(2, 3),
)
def test_every_stratum_is_spread_over_the_folds(sizes: dict[str, int], seed: int, n_folds: int) -> None:
    strata = {name: str(len(name) % 2) for name in sizes}
    folds = group_folds(sizes, n_folds=n_folds, seed=seed, strata=strata)
    for stratum in set(strata.values()):
        members = [name for name in sizes if strata[name] == stratum]
        load = np.bincount([folds[n] for n in members], [sizes[n] for n in members], minlength=n_folds)
        assert np.ptp(load) <= max(sizes[name] for name in members)


@given(n_groups=st.integers(4, 9), n_folds=st.integers(2, 4), n_inner=st.integers(2, 3), seed=st.integers(0, 3))
def test_inner_folds_lie_in_the_training_part(n_groups: int, n_folds: int, n_inner: int, seed: int) -> None:
    sizes = {f"P{i}": 1 + i % 2 for i in range(n_groups)}
    folds = group_folds(sizes, n_folds=n_folds, seed=seed)
    inner = inner_group_folds(folds, sizes, n_folds=n_folds, n_inner=n_inner, seed=seed)
    for test_fold in range(n_folds):
        of_training = {inner[g][test_fold] for g in sizes if folds[g] != test_fold}
        assert of_training <= set(range(n_inner))
        assert len(of_training) >= min(2, sum(f != test_fold for f in folds.values()))
        assert {inner[g][test_fold] for g in sizes if folds[g] == test_fold} <= {BUFFER}


@given(seed=st.integers(0, 100), test_fold=st.integers(0, 1), buffer=st.floats(0, 49))
def test_inner_blocks_keep_their_distance(seed: int, test_fold: int, buffer: float) -> None:
    xy = np.random.default_rng(seed).uniform(0, 900, (200, 2))
    options = {"block_um": 100.0, "buffer_um": buffer, "n_folds": 2, "seed": seed}
    outer = block_folds(xy, **options)
    inner = inner_block_folds(xy, **options, n_inner=3, test_fold=test_fold)
    assert set(inner[outer == test_fold]) <= {BUFFER}
    groups = [xy[inner == k] for k in range(3)] + [xy[outer == test_fold]]
    for a in range(4):
        for b in range(a):
            gap = np.abs(groups[a][:, None] - groups[b][None]).max(axis=-1)
            assert gap.size == 0 or gap.min() >= buffer * (1 - 1e-9)


def test_random_folds_are_even_repeatable_and_know_no_neighbours() -> None:
    xy = np.stack(np.meshgrid(np.arange(60.0), np.arange(60.0)), axis=-1).reshape(-1, 2) * 28 - 300
    folds = random_folds(xy, n_folds=4, seed=1)
    assert np.ptp(np.bincount(folds, minlength=4)) < 150
    np.testing.assert_array_equal(folds[::-1], random_folds(xy[::-1], n_folds=4, seed=1))
    grid = folds.reshape(60, 60)
    for a, b in ((grid[:, 1:], grid[:, :-1]), (grid[1:], grid[:-1]), (folds, random_folds(xy, n_folds=4, seed=2))):
        assert abs((a == b).mean() - 0.25) < 0.04


def test_a_stratum_is_spread_even_where_another_one_weighs_more() -> None:
    sizes = {"big": 10, "a": 1, "b": 1, "c": 1, "d": 1}
    strata = {name: "lung" if name == "big" else "breast" for name in sizes}
    folds = group_folds(sizes, n_folds=2, seed=0, strata=strata)
    assert sorted(folds[name] for name in "abcd") == [0, 0, 1, 1]
    without = group_folds(sizes, n_folds=2, seed=0)
    assert len({without[name] for name in "abcd"}) == 1
