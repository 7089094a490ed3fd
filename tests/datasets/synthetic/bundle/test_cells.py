from __future__ import annotations

import numpy as np
import pytest
import shapely

from spatialsig.datasets.synthetic.bundle.cells import areas, fill_rings, make_cell_ids


@pytest.fixture
def rings() -> np.ndarray:
    """Four polygons with a ragged border, some of them beyond the image."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius = rng.uniform(6, 14, (4, 24))
    centre = np.array([[20.3, 15.1], [50.7, 40.2], [2.0, 55.0], [78.0, 30.0]])
    return centre[:, None] + radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def test_areas_are_those_of_shapely_in_either_direction(rings) -> None:
    expected = shapely.area(shapely.polygons(rings))
    np.testing.assert_allclose(areas(rings), expected)
    np.testing.assert_allclose(areas(rings[:, ::-1]), expected)


def test_pixels_are_filled_whose_centre_lies_inside_whatever_the_bands(rings) -> None:
    rows, columns = np.mgrid[:60, :80] + 0.5
    expected = np.zeros((60, 80))
    for value, ring in enumerate(rings, start=1):
        expected[shapely.contains_xy(shapely.Polygon(ring), columns, rows)] = value
    for edge in (60, 7):
        filled = np.zeros((60, 80), np.uint16)
        for row0 in range(0, 60, edge):
            fill_rings(filled[row0 : row0 + edge], row0, rings, np.arange(1.0, 5.0))
        np.testing.assert_array_equal(filled, expected)


def test_ids_are_unique_numbers_in_order_and_their_text() -> None:
    numbers, texts = make_cell_ids(np.random.default_rng(0), 2000)
    assert (np.diff(numbers.astype(np.int64)) > 0).all()
    digits = str.maketrans("abcdefghijklmnop", "0123456789abcdef")
    assert [int(text.removesuffix("-1").translate(digits), 16) for text in texts] == numbers.tolist()
    assert all(len(text) == 10 and text.endswith("-1") for text in texts)
