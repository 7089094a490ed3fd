import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialsig.data.pyramid import area_weights, resample


@given(
    start=st.floats(1, 20),
    size=st.floats(2, 18),
    out_px=st.integers(1, 24),
    slope=st.floats(-3, 3),
    base=st.floats(-9, 9),
)
def test_a_ramp_stays_a_ramp_at_any_fractional_window(start, size, out_px, slope, base) -> None:
    n = 40
    ramp = base + slope * (np.arange(n) + 0.5)  # pixel i covers [i, i + 1)
    centres = start + (np.arange(out_px) + 0.5) * size / out_px
    found = area_weights(start, size, out_px, n).astype(np.float64) @ ramp
    np.testing.assert_allclose(found, base + slope * centres, atol=2e-4)


@given(st.integers(0, 12), st.integers(1, 6), st.integers(1, 4))
def test_whole_pixels_are_kept_or_averaged_exactly(start: int, out_px: int, factor: int) -> None:
    values = np.random.default_rng(0).normal(size=40)
    found = area_weights(float(start), float(out_px * factor), out_px, 40) @ values
    expected = values[start : start + out_px * factor].reshape(out_px, factor).mean(axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@given(st.floats(0, 10), st.floats(1, 12), st.integers(1, 16))
def test_weights_sum_to_one_even_at_the_border(start: float, size: float, out_px: int) -> None:
    weights = area_weights(start, size, out_px, 22)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


def test_total_is_conserved_between_pixel_edges() -> None:
    values = np.random.default_rng(1).normal(size=30)
    found = area_weights(3.0, 21.0, 8, 30) @ values  # cells of 2.625 px
    assert found.mean() == pytest.approx(values[3:24].mean(), rel=1e-4)


def test_resample_rounds_and_stays_in_range() -> None:
    window = np.zeros((1, 4, 4), np.uint8)
    window[0, :, 2:] = 255
    half = area_weights(0.5, 3.0, 3, 4)
    found = resample(window, np.eye(4, dtype=np.float32), half)
    assert found.dtype == np.uint8
    assert found[0, 0].tolist() == [0, 128, 255]  # the tilt would give -16 and 271 beside the step
