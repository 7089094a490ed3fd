"""Patch lookup against a brute-force double loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialsig.geometry.grid import patch_origins, points_in_patches

SIZE = st.integers(1, 60)


@given(height=SIZE, width=SIZE, patch=SIZE, stride=SIZE)
def test_origins_stay_inside_and_are_maximal(height: int, width: int, patch: int, stride: int) -> None:
    yx = patch_origins(height, width, patch_px=patch, stride_px=stride)
    expected = [(y, x) for y in range(0, height, stride) for x in range(0, width, stride)]
    expected = [(y, x) for y, x in expected if y + patch <= height and x + patch <= width]
    np.testing.assert_array_equal(yx, np.array(expected, dtype=int).reshape(-1, 2))


def brute_force(xy: np.ndarray, origins: np.ndarray, size: int) -> np.ndarray:
    inside = np.zeros((len(xy), len(origins)), np.uint8)
    for i, (x, y) in enumerate(xy):
        for j, (y0, x0) in enumerate(origins):
            inside[i, j] = x0 <= x < x0 + size and y0 <= y < y0 + size
    return inside


@given(seed=st.integers(0, 10_000), size=st.integers(1, 20), stride=st.integers(1, 25), n=st.integers(0, 40))
def test_lookup_equals_brute_force_on_grids(seed: int, size: int, stride: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    origins = patch_origins(40, 50, patch_px=size, stride_px=stride)
    origins = origins[rng.random(len(origins)) < 0.8]
    # whole numbers too, so that points lie exactly on edges
    xy = np.where(rng.random((n, 2)) < 0.5, rng.integers(-5, 60, (n, 2)), rng.uniform(-5, 60, (n, 2)))
    np.testing.assert_array_equal(points_in_patches(xy, origins, size=size).toarray(), brute_force(xy, origins, size))


@given(seed=st.integers(0, 10_000), size=st.integers(1, 20))
def test_lookup_equals_brute_force_anywhere(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    origins, xy = rng.integers(0, 50, (15, 2)), rng.uniform(0, 60, (30, 2))
    np.testing.assert_array_equal(points_in_patches(xy, origins, size=size).toarray(), brute_force(xy, origins, size))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_point_that_is_nowhere_lies_in_no_patch(bad: float) -> None:
    found = points_in_patches(np.array([[bad, 1.0], [1.0, 1.0]]), np.array([[0, 0]]), size=4)
    np.testing.assert_array_equal(found.toarray(), [[0], [1]])
