"""Stain and sharpness of patches, against plain numpy and against what was done to the picture."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from spatialsig.stats.appearance import COLOUR, SHARPNESS, appearance
from spatialsig.stats.stain import TISSUE_OD, optical_density


def tissue(n: int = 4, px: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth blobs in two stains, of all scales, with an empty corner."""
    rng = np.random.default_rng(seed)
    noise = sum(s * gaussian_filter(rng.normal(size=(n, 2, px, px)), (0, 0, s, s)) for s in (0.5, 1, 2, 4, 8))
    amounts = 0.6 + 0.8 * noise
    amounts[:, :, : px // 4, : px // 4] = 0
    density = np.einsum("nshw,sc->nchw", np.maximum(amounts, 0), np.array([[0.65, 0.7, 0.29], [0.07, 0.99, 0.11]]))
    return np.clip(256 * np.exp(-density) - 1, 0, 255).astype(np.uint8)


def by_numpy(image: np.ndarray) -> tuple[list[float], list[float]]:
    """The same of one patch of 32 px, a single tile, in double precision."""
    density = optical_density(image).astype(np.float64)
    grey = density.mean(axis=0)
    inside = grey > TISSUE_OD
    total = density.sum(axis=0)[inside]
    red, blue = density[0][inside] / total, density[2][inside] / total
    colour = [np.log(grey[inside].mean()), red.mean(), blue.mean(), red.std(), blue.std(), np.corrcoef(red, blue)[0, 1]]
    energies, picture = [], grey
    for _ in range(4):
        a, b, c, d = picture[::2, ::2], picture[::2, 1::2], picture[1::2, ::2], picture[1::2, 1::2]
        energies.append(np.mean((a + b - c - d) ** 2 + (a - b + c - d) ** 2 + (a - b - c + d) ** 2))
        picture = (a + b + c + d) / 4
    return [*colour, np.log(grey[inside].std() + 1e-3)], list(-np.diff(np.log(np.array(energies) + 1e-5)))


def test_numbers_are_those_of_plain_numpy() -> None:
    images = tissue(px=32)
    colour, sharpness = appearance(images)
    assert colour.shape == (4, len(COLOUR))
    assert sharpness.shape == (4, len(SHARPNESS))
    for k, image in enumerate(images):
        wanted = by_numpy(image)
        np.testing.assert_allclose(colour[k], wanted[0], atol=2e-4)
        np.testing.assert_allclose(sharpness[k], wanted[1], atol=2e-4)


def test_a_stronger_stain_leaves_sharpness_and_hue_alone_and_blur_leaves_the_stain() -> None:
    images = tissue(px=96)
    density = optical_density(images).astype(np.float64)
    strong = np.clip(256 * np.exp(-1.3 * density) - 1, 0, 255).astype(np.uint8)
    blurred = np.clip(256 * np.exp(-gaussian_filter(density, (0, 0, 1.5, 1.5))) - 1, 0, 255).astype(np.uint8)
    (colour, sharp), (colour_s, sharp_s), (colour_b, sharp_b) = map(appearance, (images, strong, blurred))
    assert np.abs(sharp_s - sharp).max() < 0.1
    assert np.abs(colour_s - colour)[:, 1:3].max() < 0.02
    np.testing.assert_allclose((colour_s - colour)[:, 0], np.log(1.3), atol=0.06)
    assert (sharp_b - sharp)[:, 0].max() < -1
    assert np.abs(colour_b - colour)[:, :3].max() < 0.1


def test_half_the_resolution_shifts_every_scale_to_the_next() -> None:
    images = tissue(px=64)
    half = images.reshape(4, 3, 32, 2, 32, 2).mean(axis=(3, 5)).round().astype(np.uint8)
    _, whole = appearance(images)
    _, halved = appearance(half)
    np.testing.assert_allclose(halved[:, :2].mean(axis=0), whole[:, 1:].mean(axis=0), atol=0.25)


@pytest.mark.parametrize("shape", [(8, 8), (31, 40), (56, 56), (300, 200)])
def test_patches_of_any_size_have_finite_numbers_and_empty_ones_none(shape: tuple[int, int]) -> None:
    image = tissue(1, 300)[:, :, 100 : 100 + shape[0], 100 : 100 + shape[1]]
    colour, sharpness = appearance(np.concatenate([image, np.full_like(image, 250)]))
    assert np.isfinite(colour[0]).all()
    assert np.isfinite(sharpness[0]).all()
    assert np.isnan(colour[1]).all()
    assert np.isnan(sharpness[1]).all()
