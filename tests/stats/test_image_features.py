import numpy as np
import pytest
from skimage.color import rgb2hed
from skimage.draw import ellipse
from skimage.measure import label, regionprops

from spatialsig.stats.image_features import (
    MIN_NUCLEUS_UM2,
    N_COLOUR,
    N_DENSITY,
    NAMES,
    NUCLEUS,
    colour_statistics,
    hand_features,
    nuclear_density,
    stain_amounts,
)


def test_stains_equal_skimage() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 20, 24), dtype=np.uint8)
    np.testing.assert_allclose(stain_amounts(images), rgb2hed(images, channel_axis=1), atol=1e-5)
    assert colour_statistics(images).shape == (4, N_COLOUR)
    assert nuclear_density(stain_amounts(images)).shape == (4, N_DENSITY)


def painted(shapes: list[tuple[int, int, int, int]]) -> np.ndarray:
    stains = np.zeros((1, 3, 64, 64), np.float32)
    for shape in shapes:
        stains[0, 0][ellipse(*shape, shape=(64, 64))] = 0.3
    return stains


def value(stains: np.ndarray, name: str, *, um_per_px: float = 1.0) -> float:
    return float(hand_features(stains, um_per_px=um_per_px)[0, NAMES.index(name)])


def test_nuclei_are_counted_and_measured_as_skimage_does() -> None:
    stains = painted([(16, 16, 5, 5), (16, 45, 5, 12), (45, 20, 8, 4)])
    regions = regionprops(label(stains[0, 0] > 0, connectivity=1))
    assert value(stains, "nuclei_per_mm2") == pytest.approx(3 / 64**2 * 1e6)
    # averaging over 3 px widens an outline of .3 at a threshold of .04 by about one
    assert value(stains, "nucleus_area_mean") == pytest.approx(np.mean([r.area for r in regions]), rel=0.45)
    expected = np.mean([1 - r.axis_minor_length / r.axis_major_length for r in regions])
    assert value(stains, "nucleus_elongation") == pytest.approx(expected, abs=0.1)
    assert value(stains, "nuclei_per_mm2", um_per_px=0.5) == pytest.approx(4 * value(stains, "nuclei_per_mm2"))


def test_patches_do_not_touch_each_other() -> None:
    whole = painted([(32, 32, 10, 10)])
    many = np.concatenate([whole, np.zeros_like(whole), whole, painted([(10, 10, 6, 6), (50, 50, 6, 6)])])
    found = hand_features(many, um_per_px=1.0)
    np.testing.assert_array_equal(found[0], found[2])
    for k in range(4):
        np.testing.assert_allclose(found[k], hand_features(many[[k]], um_per_px=1.0)[0], rtol=1e-5, atol=1e-6)
    assert np.isfinite(found).all()
    assert found.shape == (4, len(NAMES))


def test_specks_are_no_nuclei() -> None:
    stains = np.zeros((1, 3, 32, 32), np.float32)
    stains[0, 0, 5, 5] = 9 * NUCLEUS * 0.9  # nothing after averaging
    stains[0, 0, 20, 20] = 9 * NUCLEUS * 2  # 9 px
    assert value(stains, "nuclei_per_mm2", um_per_px=np.sqrt(MIN_NUCLEUS_UM2 / 9) * 0.99) == 0
    assert value(stains, "nuclei_per_mm2", um_per_px=1.0) > 0


def test_texture_tells_fine_from_coarse() -> None:
    y, x = np.indices((64, 64))
    fine, coarse = ((y + x) % 2 * 0.1).astype(np.float32), (y // 16 % 2 * 0.1).astype(np.float32)
    stains = np.zeros((2, 3, 64, 64), np.float32)
    stains[0, 0], stains[1, 0] = fine, coarse
    found = hand_features(stains, um_per_px=1.0)
    sd = [NAMES.index(f"H_sd_{scale}") for scale in (1, 8)]
    np.testing.assert_allclose(found[:, sd], [[0.05, 0], [0.05, 0.05]], atol=1e-6)
