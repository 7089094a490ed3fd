import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from spatialsig.stats import patch_quality as quality
from spatialsig.stats.stain import optical_density

RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
MACENKO = np.array([[0.56, 0.72, 0.41], [0.22, 0.80, 0.56]])


def density(*colour: int) -> np.ndarray:
    return optical_density(np.array(colour, np.uint8)).astype(float)


def texture(seed: int = 0, n: int = 4, px: int = 160) -> np.ndarray:
    """Optical density of dots on a pale ground, ``(n, px, px)``."""
    rng = np.random.default_rng(seed)
    dots = gaussian_filter((rng.random((n, px, px)) < 0.01) * 40.0, (0, 1.5, 1.5))
    return 0.2 + 0.1 * dots + 0.02 * gaussian_filter(rng.normal(size=(n, px, px)), (0, 0.8, 0.8))


def rgb(od: np.ndarray) -> np.ndarray:
    """Grey patches ``(n, 3, h, w)`` of an optical density."""
    values = np.clip(np.rint(256 * np.exp(-od) - 1), 0, 255).astype(np.uint8)
    return np.repeat(values[:, None], 3, axis=1)


def test_blocks_are_means_of_optical_density() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 11, 9), dtype=np.uint8)
    blocks = quality.density_blocks(images, n_blocks=3)
    assert blocks.shape == (2, 3, 3, 3)
    part = images[1, 2, 3:6, 6:9].astype(float)  # row block 1, column block 2, blue
    np.testing.assert_allclose(blocks[1, 1, 2, 2], -np.log((part + 1) / 256).mean(), rtol=1e-5)


def test_focus_falls_with_blur_and_not_with_strength() -> None:
    od = texture()
    sharp = quality.focus(rgb(od))
    np.testing.assert_allclose(quality.focus(rgb(0.5 * od)), sharp, rtol=0.05)
    blurred = [quality.focus(rgb(gaussian_filter(od, (0, s, s)))) for s in (1.0, 2.0, 4.0)]
    assert (blurred[0] < 0.9 * sharp).all()
    assert (blurred[1] < 0.75 * blurred[0]).all()
    assert (blurred[2] < 0.75 * blurred[1]).all()


def test_focus_does_not_depend_on_how_much_of_the_patch_is_tissue() -> None:
    od = texture()
    half = od.copy()
    half[:, :, 80:] = 0.04
    np.testing.assert_allclose(quality.focus(rgb(half)), quality.focus(rgb(od)), rtol=0.2)


def test_a_patch_is_as_sharp_as_most_of_its_tissue() -> None:
    od = texture()
    mixed = gaussian_filter(od, (0, 3, 3))
    mixed[:, :, :40] = od[:, :, :40]  # a quarter sharp
    assert (quality.focus(rgb(mixed)) < 0.6 * quality.focus(rgb(od))).all()


@given(
    st.sampled_from([RUIFROK, MACENKO]),
    st.floats(0, 1.0),
    st.floats(0, 0.8),
)
def test_haematoxylin_and_eosin_are_no_ink(stains: np.ndarray, haematoxylin: float, eosin: float) -> None:
    assert not quality.not_stain(np.array([haematoxylin, eosin]) @ stains)


@pytest.mark.parametrize("tissue", [0.0, 0.4], ids=["on glass", "on tissue"])
@pytest.mark.parametrize(
    "colour",
    [(28, 44, 150), (18, 106, 72), (30, 30, 36), (0, 0, 0), (40, 60, 180)],
    ids=["blue", "green", "black", "nothing", "pale blue"],
)
def test_ink_is_ink(colour: tuple[int, int, int], tissue: float) -> None:
    assert quality.not_stain(density(*colour) + tissue * np.array([0.36, 0.84, 0.2]))


def test_dark_rims_of_a_scan_are_no_stain_and_red_ink_is_ink() -> None:
    assert quality.not_stain(density(120, 120, 122))
    assert quality.not_stain(density(170, 12, 28))


@pytest.mark.parametrize("glass", [(243, 243, 243), (230, 225, 235), (220, 212, 223)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_glass_is_found_whatever_its_colour(glass: tuple[int, int, int], share: float) -> None:
    rng = np.random.default_rng(0)
    pixels = np.where(rng.random(5000)[:, None] < share, density(*glass), density(200, 120, 190))
    pixels = pixels + rng.normal(0, 0.003, pixels.shape)
    np.testing.assert_allclose(quality.glass_density(pixels), density(*glass), atol=0.01)


def test_a_slide_without_glass_keeps_its_palest_tissue() -> None:
    pixels = density(215, 150, 205) + np.random.default_rng(0).normal(0, 0.01, (5000, 3))
    assert quality.glass_density(pixels).mean() <= quality.PALEST_GLASS + 1e-9


def test_a_strip_of_double_density_is_a_fold() -> None:
    rng = np.random.default_rng(0)
    um = 8.0
    base = np.array([0.2, 0.4, 0.12]) * np.exp(gaussian_filter(rng.normal(0, 4, (120, 120)), 12))[..., None]
    planted = np.zeros((120, 120), bool)
    planted[:, 57:63] = True  # 48 um wide
    above = np.where(planted[..., None], 2, 1) * base
    tissue = np.ones_like(planted)
    found = quality.fold_mask(above, tissue, um_per_px=um)
    assert found[planted].mean() > 0.9
    assert found[~planted].mean() < 0.02
    assert not quality.fold_mask(base, tissue, um_per_px=um).any()
    # as dark, but of another hue: an epithelium
    other = np.where(planted[..., None], np.array([0.45, 0.6, 0.2]) / np.array([0.2, 0.4, 0.12]), 1) * base
    assert quality.fold_mask(other, tissue, um_per_px=um).mean() < 0.01
    assert not quality.fold_mask(above, ~tissue, um_per_px=um).any()


def test_stain_distance_is_the_largest_robust_deviation() -> None:
    rng = np.random.default_rng(0)
    colours = np.array([0.2, 0.45, 0.15]) * np.exp(rng.normal(0, 0.2, (400, 3)))
    colours[7] *= 6
    colours[8] = [0.45, 0.2, 0.15]
    colours[9] = np.nan
    distance = quality.stain_distance(colours)
    assert np.isnan(distance[9])
    assert min(distance[7], distance[8]) > 5
    assert np.nanquantile(np.delete(distance, [7, 8, 9]), 0.99) < 5
    total = np.nansum(colours, axis=1)
    known = np.delete(np.arange(400), 9)
    z = np.log(total[known])
    by_hand = np.abs(z[7] - np.median(z)) / (1.4826 * np.median(np.abs(z - np.median(z))))
    assert distance[7] >= by_hand - 1e-6
    assert np.isnan(quality.stain_distance(np.full((3, 3), np.nan))).all()
