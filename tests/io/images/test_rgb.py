from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spatialsig.errors import InputError
from spatialsig.io.images.metadata import PixelSize
from spatialsig.io.images.rgb import RgbFile, RgbPixels


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("axes", ["".join(p) for p in permutations("YXS")] + ["CYX"])
def test_windows_are_slices_whatever_the_order_of_the_axes(pixels, axes) -> None:
    array = np.einsum(f"yxs->{axes.lower().replace('c', 's')}", pixels)
    opened = RgbPixels(array, axes=axes, name="a")
    assert opened.shape == (40, 60, 3)
    np.testing.assert_array_equal(opened[5:30, 7:59], pixels[5:30, 7:59])
    np.testing.assert_array_equal(opened[5:30, 7:59, 1:2], pixels[5:30, 7:59, 1:2])


def test_channels_are_put_in_order(pixels) -> None:
    opened = RgbPixels(pixels[..., [2, 0, 1]], axes="YXS", name="a", channels=[1, 2, 0])
    np.testing.assert_array_equal(opened[:, :], pixels)


def test_a_transparent_place_shows_the_colour_below(pixels) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (40, 60, 1), dtype=np.uint8)
    below = np.array([250, 240, 230], np.uint8)
    opened = RgbPixels(np.dstack([pixels, alpha]), axes="YXS", name="a", alpha_over=below)
    share = alpha / 255
    np.testing.assert_array_equal(opened[:, :], np.floor(pixels * share + below * (1 - share) + 0.5))


def test_a_palette_looks_colours_up_and_refuses_one_it_lacks() -> None:
    colours = np.arange(12, dtype=np.uint8).reshape(4, 3)
    numbers = np.random.default_rng(2).integers(0, 4, (9, 8), dtype=np.uint8)
    np.testing.assert_array_equal(RgbPixels(numbers, axes="YX", name="a", palette=colours)[:, :], colours[numbers])
    numbers[3, 2] = 4
    with pytest.raises(InputError, match=r"image 'a' has colour 4 of a palette of 4 at y 2-5, x 0-8 px"):
        RgbPixels(numbers, axes="YX", name="a", palette=colours)[2:5, :]


@given(arrays(np.float64, (7, 2), elements=st.floats(-5, 25)))
def test_points_on_the_image_are_those_with_a_pixel(xy_px) -> None:
    file = RgbFile([RgbPixels(np.zeros((12, 20, 3), np.uint8), axes="YXS", name="a")], None, [])
    expected = [0 <= x < 20 and 0 <= y < 12 for x, y in xy_px]
    assert file.contains(xy_px).tolist() == expected


def test_one_number_for_the_pixel_size_only_where_pixels_are_square() -> None:
    levels = [RgbPixels(np.zeros((2, 2, 3), np.uint8), axes="YXS", name="a")]
    assert RgbFile(levels, PixelSize(0.5, 0.504), []).um_per_px == 0.5
    assert RgbFile(levels, PixelSize(0.5, 0.51), []).um_per_px is None
    assert RgbFile(levels, None, []).um_per_px is None
