from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from spatialsig.datasets.synthetic.image.noise import blend, corners, lumps, normal, sample, uniform


def test_noise_is_uniform_and_normal_and_a_function_of_its_place() -> None:
    places = [(x, y) for x in range(60) for y in range(60)]
    flat = np.array([uniform(x, y, 5) for x, y in places])
    assert flat.min() >= 0
    assert flat.max() < 1
    np.testing.assert_allclose(np.quantile(flat, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.03)
    bell = np.array([normal(x, y, 5) for x, y in places])
    assert bell.mean() == pytest.approx(0, abs=0.05)
    assert bell.std() == pytest.approx(1, abs=0.03)
    assert uniform(3, 4, 5) == uniform(3, 4, 5)
    assert len({uniform(3, 4, 5), uniform(4, 3, 5), uniform(3, 4, 6)}) == 3


def test_lumps_meet_their_lattice_values() -> None:
    four = corners(7, 9, 1)
    assert lumps(7.0, 9.0, 1) == blend(0.0, 0.0, four) == four[0]
    assert lumps(7.5, 9.5, 1) == pytest.approx(np.mean(four))
    assert lumps(7.9999, 9.0, 1) == pytest.approx(lumps(8.0, 9.0, 1), abs=1e-4)


def test_a_sample_between_grid_points_is_linear_and_the_border_is_repeated() -> None:
    grid = np.random.default_rng(0).random((9, 12)).astype(np.float32)
    for x, y in np.random.default_rng(1).uniform(0, [21.9, 15.9], (50, 2)):
        expected = ndimage.map_coordinates(grid, [[y / 2], [x / 2]], order=1)[0]
        assert sample(grid, 2.0, x, y) == pytest.approx(expected, abs=1e-5)
    assert sample(grid, 2.0, -5.0, 4.0) == pytest.approx(grid[2, 0])
