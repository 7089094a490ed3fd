"""Known stains, painted by another way than ours: the strengths are found, and other stains give the image they would."""

import numpy as np
import pytest

from spatialsig.stats.stain import optical_density, recolour, recolouring, stain_strength

HERE = np.array([[0.60, 0.75, 0.28], [0.10, 0.98, 0.15], [0.0, 0.0, 1.0]])
THERE = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.0, 0.0, 1.0]])
HERE, THERE = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (HERE, THERE))


def amounts() -> np.ndarray:
    """Haematoxylin and eosin of 64 x 64 pixels, ``(4096, 3)``; no third stain."""
    rng = np.random.default_rng(0)
    return np.column_stack([rng.gamma(2.0, 0.25, 4096), rng.gamma(3.0, 0.12, 4096), np.zeros(4096)])


def painted(od: np.ndarray) -> np.ndarray:
    """Pixels ``(3, 64, 64)`` of optical densities ``(4096, 3)``."""
    return np.clip(np.rint(256 * np.exp(-od) - 1), 0, 255).astype(np.uint8).T.reshape(3, 64, 64)


def test_other_stains_give_the_image_they_would() -> None:
    strong = np.array([1.4, 0.7, 1.0])
    image = painted(amounts() @ HERE)
    recolour(image, recolouring(HERE, np.ones(2), THERE, strong[:2]))
    wanted = painted((amounts() * strong) @ THERE)
    bright = wanted > 12  # where a grey value is a small step of density
    assert np.abs(image.astype(int) - wanted)[bright].max() <= 3
    assert np.abs(image.astype(int) - wanted).mean() < 0.5


def test_the_same_stains_change_nothing() -> None:
    image = painted(amounts() @ HERE)
    before = image.copy()
    recolour(image, recolouring(HERE, np.array([1.3, 0.8]), HERE, np.array([1.3, 0.8])))
    np.testing.assert_array_equal(image, before)


def test_every_grey_value_stays_under_the_identity() -> None:
    image = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 4, 256)).copy()
    recolour(image, np.eye(3))
    np.testing.assert_array_equal(image[0, 0, 1:], np.arange(1, 256))
    assert image[0, 0, 0] <= 1  # beyond the darkest density that is told apart


def test_strength_is_the_amount_that_one_pixel_in_a_hundred_exceeds() -> None:
    od = optical_density(painted(amounts() @ HERE)).reshape(3, -1).T
    np.testing.assert_allclose(stain_strength(od, HERE), np.percentile(amounts()[:, :2], 99, axis=0), rtol=0.02)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_density_is_the_logarithm(level: int) -> None:
    assert optical_density(np.array([level], np.uint8))[0] == pytest.approx(-np.log((level + 1) / 256), abs=1e-6)
