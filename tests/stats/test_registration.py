from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from spatialsig.stats.registration import (
    Raster,
    add_up,
    correlate,
    find_peak,
    haematoxylin,
    nuclear_contrast,
    share_on,
)


def nuclei_at(xy: np.ndarray, shape: tuple[int, int], sd: float = 2.0) -> np.ndarray:
    """Blobs whose middles lie at continuous positions (pixel i covers [i, i + 1))."""
    y, x = (np.arange(edge) + 0.5 for edge in shape)
    across = np.exp(-((x[None] - xy[:, :1]) ** 2) / (2 * sd**2))
    down = np.exp(-((y[None] - xy[:, 1:]) ** 2) / (2 * sd**2))
    return down.T @ across


def scattered(n: int, shape: tuple[int, int], seed: int, margin: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(margin, np.array(shape[::-1]) - margin, (n, 2))


def raster_of(xy: np.ndarray, shape: tuple[int, int], um_per_px: float = 1.0) -> Raster:
    stain = nuclei_at(xy, shape).astype(np.float32)
    return nuclear_contrast(stain, np.full(shape, 0.5, np.float32), um_per_px=um_per_px)


def best(raster: Raster, xy: np.ndarray, max_shift_um: float = 40.0):
    radius = int(np.ceil(max_shift_um / raster.um_per_px)) + 1
    ncc = correlate(raster, xy, radius_px=radius).ncc
    return find_peak(ncc, um_per_px=raster.um_per_px, max_shift_um=max_shift_um)


@settings(max_examples=15)
@given(st.floats(-25, 25), st.floats(-25, 25), st.integers(0, 10**6))
def test_planted_shift_is_found_between_pixels(dx, dy, seed) -> None:
    shape = (150, 200)
    nuclei = scattered(150, shape, seed)
    peak = best(raster_of(nuclei, shape), nuclei - [dx, dy])
    np.testing.assert_allclose(peak.shift_px, [dx, dy], atol=0.3)
    assert peak.height > 10
    assert peak.second < 0.5


def test_axes_and_sign() -> None:
    shape = (100, 140)
    nuclei = scattered(80, shape, 0)
    x, y = best(raster_of(nuclei, shape), nuclei - [12, -5]).shift_px
    assert x == pytest.approx(12, abs=0.3)
    assert y == pytest.approx(-5, abs=0.3)


def test_correlation_equals_numpy_at_every_shift() -> None:
    """The sums over shifted arrays, one shift after another."""
    shape, radius = (60, 70), 4
    rng = np.random.default_rng(1)
    tissue = rng.random(shape) < 0.8
    raster = Raster((rng.normal(size=shape) * tissue).astype(np.float32), tissue, 4.0)
    xy = scattered(30, shape, 2, margin=15)
    surface = correlate(raster, xy, radius_px=radius)
    points = np.histogram2d(xy[:, 1], xy[:, 0], bins=shape, range=((0, shape[0]), (0, shape[1])))[0]
    cells = gaussian_filter(points, 2.0 / 4, mode="constant") - gaussian_filter(points, 12.0 / 4, mode="constant")
    for row, dy in enumerate(range(-radius, radius + 1)):
        for column, dx in enumerate(range(-radius, radius + 1)):
            # what lies at p + shift on the image meets the cell at p
            moved = [np.roll(a, (-dy, -dx), (0, 1)) for a in (raster.contrast, raster.tissue)]
            inner = np.s_[radius:-radius, radius:-radius]
            expected = (cells * moved[0])[inner].sum()
            # the far tails of the kernel lie outside `inner`
            assert surface.product[row, column] == pytest.approx(expected, abs=5e-3)
            energy = (cells**2 * moved[1])[inner].sum()
            assert surface.cells[row, column] == pytest.approx(energy, rel=1e-3)


def test_perfect_match_correlates_and_noise_does_not() -> None:
    shape = (200, 200)
    nuclei = scattered(150, shape, 3)
    raster = raster_of(nuclei, shape)
    assert best(raster, nuclei).ncc > 0.9
    foreign = best(raster, scattered(150, shape, 4))
    assert foreign.ncc < 0.3
    assert foreign.height < 6.5 or foreign.second > 0.6


def test_noise_never_gives_a_clear_peak() -> None:
    shape = (150, 150)
    clear = 0
    for seed in range(40):
        raster = raster_of(scattered(120, shape, seed), shape)
        peak = best(raster, scattered(120, shape, 10_000 + seed))
        clear += peak.height >= 6.5 and peak.second <= 0.6
    assert clear == 0


def test_parts_add_up() -> None:
    shape = (160, 160)
    nuclei = scattered(120, shape, 5)
    raster = raster_of(nuclei, shape)
    left = nuclei[:, 0] < 80
    whole = correlate(raster, nuclei, radius_px=20)
    parts = add_up([correlate(raster, nuclei[left], radius_px=20), correlate(raster, nuclei[~left], radius_px=20)])
    np.testing.assert_allclose(parts.product, whole.product, atol=1e-3)


def test_cells_beside_the_image_count_as_missing() -> None:
    shape = (150, 150)
    nuclei = scattered(100, shape, 6)
    raster = raster_of(nuclei, shape)
    far = np.vstack(
        [nuclei, np.add(nuclei, [5000, 0]), np.add(nuclei, [0, 9000]), nuclei - [9000, 0], np.add(nuclei, [0, 12000])]
    )
    assert np.isfinite(correlate(raster, far[:200], radius_px=10).ncc).any()
    few = correlate(raster, np.vstack([nuclei[:10], *[np.add(nuclei, [5000, 0])] * 4]), radius_px=10)
    assert np.isnan(few.ncc).all()
    none = find_peak(correlate(raster, nuclei + 5000, radius_px=10).ncc, um_per_px=1.0, max_shift_um=9)
    assert np.isnan(none.shift_px).all()
    assert (none.height, none.second) == (0.0, 1.0)


def test_peak_on_the_rim_is_no_answer() -> None:
    shape = (150, 150)
    nuclei = scattered(100, shape, 7)
    peak = best(raster_of(nuclei, shape), nuclei - [20, 0], max_shift_um=20)
    assert np.isnan(peak.shift_px).all()


def test_second_peak_is_seen() -> None:
    shape = (150, 150)
    nuclei = scattered(60, shape, 8, margin=30)
    twice = np.vstack([nuclei, np.add(nuclei, [24, 0])])
    peak = best(raster_of(twice, shape), nuclei)
    assert peak.second > 0.8


def test_glass_and_stain_gradient_do_not_count() -> None:
    shape = (120, 160)
    nuclei = scattered(90, shape, 9)
    density = np.full(shape, 0.5, np.float32)
    density[:, 120:] = 0.01
    gradient = np.linspace(0, 3, shape[1])[None].repeat(shape[0], axis=0)
    raster = nuclear_contrast((nuclei_at(nuclei, shape) + gradient).astype(np.float32), density, um_per_px=1.0)
    assert (raster.contrast[:, 145:] == 0).all()
    assert not raster.tissue[:, 145:].any()
    assert raster.tissue[:, :100].all()
    assert abs(raster.contrast[:, 40:80].mean() - raster.contrast[:, 10:40].mean()) < 0.05  # of 0.66
    np.testing.assert_allclose(best(raster, nuclei[nuclei[:, 0] < 110] - [6, 3]).shift_px, [6, 3], atol=0.4)


def test_share_on() -> None:
    tissue = np.zeros((10, 20), bool)
    tissue[:5] = True
    raster = Raster(tissue.astype(np.float32), tissue, 1.0)
    xy = np.array([[0.0, 0.0], [19.99, 4.99], [3, 5.01], [20.0, 1.0], [-0.01, 1]])
    assert share_on(raster, xy) == (pytest.approx(3 / 5), pytest.approx(2 / 5))
    assert share_on(raster, xy[:0]) == (0.0, 0.0)


def test_haematoxylin_is_blue_not_pink() -> None:
    def colour(stain: list[float]) -> np.ndarray:
        return np.full((2, 2, 3), 255 * np.exp(-np.array(stain)), np.uint8)

    blue, pink = colour([0.65, 0.70, 0.29]), colour([0.07, 0.99, 0.11])
    assert haematoxylin(blue)[0].mean() > 10 * abs(haematoxylin(pink)[0].mean())
    assert haematoxylin(blue)[1].mean() == pytest.approx(np.mean([0.65, 0.70, 0.29]), abs=0.02)
