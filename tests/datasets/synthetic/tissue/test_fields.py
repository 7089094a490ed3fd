from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from spatialsig.datasets.synthetic.tissue.fields import Field, grid_points, line_field, outline_distance, smooth_field


def test_a_field_is_linear_between_grid_points_with_x_along_the_columns() -> None:
    values = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    xy_um = np.random.default_rng(1).uniform(0, [29 * 4, 19 * 4], (200, 2))
    expected = RegularGridInterpolator((np.arange(20) * 4.0, np.arange(30) * 4.0), values)(xy_um[:, ::-1])
    np.testing.assert_allclose(Field(values, 4.0).at(xy_um), expected, atol=1e-5)


def test_a_smooth_field_is_standard_and_as_smooth_as_its_length() -> None:
    rng = np.random.default_rng(0)
    field = smooth_field(rng, extent_um=2000.0, length_um=40.0)
    assert field.values.shape == (grid_points(2000.0, 8.0),) * 2
    assert field.values.mean() == pytest.approx(0, abs=1e-5)
    assert field.values.std() == pytest.approx(1, abs=1e-5)
    lag = 10  # grid steps; noise under a Gaussian correlates as exp(-d^2 / 4 length^2)
    correlation = (field.values[:, lag:] * field.values[:, :-lag]).mean()
    assert correlation == pytest.approx(np.exp(-((8.0 * lag) ** 2) / (4 * 40.0**2)), abs=0.08)


def test_the_share_of_gaps_is_what_was_asked_for() -> None:
    def inside(gap_share: float) -> float:
        outline = outline_distance(np.random.default_rng(3), extent_um=1000.0, margin_um=30.0, gap_share=gap_share)
        return float((outline.values > 0).mean())

    assert 1 - inside(0.2) / inside(0.0) == pytest.approx(0.2, abs=0.03)


def test_the_orientation_of_fibres_is_a_unit_vector() -> None:
    cos2, sin2 = line_field(np.random.default_rng(0), extent_um=300.0)
    np.testing.assert_allclose(cos2.values**2 + sin2.values**2, 1, atol=1e-6)
