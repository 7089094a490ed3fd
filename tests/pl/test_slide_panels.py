"""The H&E below the maps: read coarsely, cut rightly."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xarray import DataArray, DataTree

from spatialsig.errors import InputError
from spatialsig.pl.drawing.slide_panels import background, greyed, round_length


def pyramid(*levels):
    return DataTree.from_dict({
        f"scale{i}": DataArray(level, dims=("c", "y", "x"), name="image").to_dataset() for i, level in enumerate(levels)
    })  # fmt: skip


def untouchable(shape):
    def explode(block):
        msg = "the finest level was read"
        raise AssertionError(msg)

    return da.zeros(shape, chunks=256, dtype=np.uint8).map_blocks(
        explode, dtype=np.uint8, meta=np.zeros((0, 0, 0), np.uint8)
    )


def test_the_finest_level_of_a_pyramid_is_never_read():
    coarse = np.full((3, 300, 400), 7, np.uint8)
    found = background(pyramid(untouchable((3, 600, 800)), coarse), (0, 0, 800, 600), slide="S1")
    assert found.rgb.shape == (300, 400, 3)
    assert (found.rgb == 7).all()
    assert found.box == (0, 0, 800, 600)


@pytest.mark.parametrize("width", [900, 1500, 1501, 2900, 3100, 7300])
def test_what_is_drawn_stays_small(width):
    image = DataArray(da.zeros((3, 40, width), chunks=2048, dtype=np.uint8), dims=("c", "y", "x"))
    rgb = background(image, (0, 0, width, 40), slide="S1").rgb
    assert 500 <= rgb.shape[1] <= 1500


Y, X = np.mgrid[:640, :960]
LEVEL = np.stack([X // 4, Y // 4, np.zeros_like(X)]).astype(np.uint8)
PLACES = pyramid(LEVEL, LEVEL.reshape(3, 320, 2, 480, 2).mean(axis=(2, 4)).astype(np.uint8))


@given(
    x0=st.integers(0, 500), y0=st.integers(0, 300), w=st.integers(64, 400), h=st.integers(64, 300),
    max_px=st.sampled_from([64, 150, 1500]),
)  # fmt: skip
def test_pixels_lie_where_the_box_says(x0, y0, w, h, max_px):
    """Red holds x and green holds y (both / 4): the drawn pixel at a place must show that place."""
    box = (x0, y0, min(x0 + w, 960), min(y0 + h, 640))
    found = background(PLACES, box, slide="S1", max_px=max_px)
    rgb = found.rgb.astype(int)
    rows, columns = rgb.shape[:2]
    left, top, right, bottom = found.box
    centre_x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    centre_y = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
    pixel = (right - left) / columns
    np.testing.assert_allclose(rgb[0, :, 0] * 4 + 2, centre_x, atol=4 + pixel / 2)
    np.testing.assert_allclose(rgb[:, 0, 1] * 4 + 2, centre_y, atol=4 + pixel / 2)
    assert left <= box[0]
    assert top <= box[1]
    assert right >= box[2] - pixel
    assert bottom >= box[3] - pixel


def test_wide_integers_and_fractions_become_bytes():
    for image in (np.full((3, 4, 4), 65535, np.uint16), np.ones((3, 4, 4), np.float32)):
        assert (background(DataArray(image, dims=("c", "y", "x")), (0, 0, 4, 4), slide="S1").rgb == 255).all()


def test_grey_keeps_white_white_and_dark_darker_than_pale():
    rgb = np.array([[[255, 255, 255], [90, 40, 130], [230, 150, 190]]], np.uint8)
    white, dark, pale = greyed(rgb)[0]
    assert (white == 255).all()
    assert dark[0] < pale[0] < 255
    assert len(set(dark)) == 1


def test_one_channel_is_no_histology():
    image = DataArray(np.zeros((1, 8, 8), np.uint8), dims=("c", "y", "x"))
    with pytest.raises(InputError, match=r"slide 'S7': wanted an RGB image; it has 1 channel"):
        background(image, (0, 0, 8, 8), slide="S7")


@given(st.floats(0.01, 1e6))
def test_round_lengths_are_round_and_nearly_as_long_as_allowed(longest):
    length = round_length(longest)
    mantissa = length / 10 ** np.floor(np.log10(length) + 1e-9)
    assert round(mantissa, 6) in (1, 2, 5)
    assert longest / 2.5 <= length * (1 + 1e-6)
    assert length <= longest * (1 + 1e-6)
