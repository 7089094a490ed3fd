from __future__ import annotations

import numpy as np
import pytest

from spatialsig.io._elements import lazy_image
from spatialsig.io.images.rgb import RgbFile, RgbPixels


class Counted:
    """An array that counts the pixels taken from it."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.taken = array, array.shape, array.dtype, 0

    def __getitem__(self, window):
        part = self.array[window]
        self.taken += part.shape[0] * part.shape[1]
        return part


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2203, 2607, 3), dtype=np.uint8)


def values(tree, scale: int) -> np.ndarray:
    return tree[f"scale{scale}"]["image"].transpose("y", "x", "c").values


def test_coarser_levels_are_the_rounded_means_of_four_pixels(pixels) -> None:
    tree = lazy_image(RgbFile([RgbPixels(pixels, axes="YXS", name="a")], None, []), {})
    expected = pixels
    for scale in range(len(tree.children)):
        np.testing.assert_array_equal(values(tree, scale), expected)
        height, width = (edge // 2 * 2 for edge in expected.shape[:2])
        blocks = expected[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).astype(int)
        expected = (blocks.sum(axis=(1, 3)) + 2) // 4
    assert len(tree.children) > 2


def test_a_level_of_the_file_is_used_and_nothing_is_read_before(pixels) -> None:
    full, half = Counted(pixels), Counted(np.full((1101, 1303, 3), 9, np.uint8))
    levels = [RgbPixels(level, axes="YXS", name="a") for level in (full, half)]
    tree = lazy_image(RgbFile(levels, None, []), {})
    assert full.taken == half.taken == 0
    assert (values(tree, 1) == 9).all()
    assert full.taken == 0
