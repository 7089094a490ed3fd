"""Means of overlapping patches against an image painted patch by patch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialsig.stats.overlap import blended, covered


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_a_full_grid_is_blended_as_if_it_were_painted(size: int, stride: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, stride = 2 * size, 2 * stride  # so that the middle is whole px
    cell = np.stack(np.meshgrid(np.arange(5), np.arange(7), indexing="ij"), -1).reshape(-1, 2)
    values = rng.normal(size=(len(cell), 2)).astype(np.float32)
    found = blended(values, cell + 3, size=size, stride=stride)
    if stride >= size:
        np.testing.assert_array_equal(found, values)
        return
    shift, half = (size - stride) // 2, stride
    for k, (row, column) in enumerate(cell):
        top, left = row * stride + shift, column * stride + shift
        over = [
            np.clip(min(top + half, r * stride + size) - max(top, r * stride), 0, None)
            * np.clip(min(left + half, c * stride + size) - max(left, c * stride), 0, None)
            for r, c in cell
        ]
        np.testing.assert_allclose(found[k], np.average(values, axis=0, weights=over), atol=1e-5)


def test_patches_without_a_value_and_places_without_a_patch_do_not_count() -> None:
    values = np.array([[1.0], [np.nan], [4.0]], np.float32)
    found = blended(values, np.array([[0, 0], [0, 1], [0, 2]]), size=2, stride=1)
    # the middle of one step is half covered by each neighbour
    np.testing.assert_allclose(found[:, 0], [1, 2.5, 4])
    assert np.isnan(blended(np.full((2, 1), np.nan, np.float32), np.array([[0, 0], [5, 5]]), size=2, stride=1)).all()


@pytest.mark.parametrize(
    ("size", "stride", "shares"), [(2, 1, (0.5, 1, 0.5)), (3, 1, (1, 1, 1)), (4, 4, (1,)), (3, 2, (0.25, 1, 0.25))]
)
def test_shares_of_the_middle(size: int, stride: int, shares: tuple[float, ...]) -> None:
    np.testing.assert_allclose(covered(size=size, stride=stride), shares)
