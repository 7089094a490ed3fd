from __future__ import annotations

import numpy as np
import pytest

from spatialsig.datasets.synthetic.image.tiff import halve


@pytest.mark.parametrize("shape", [(7, 9, 3), (8, 6)])
def test_half_the_size_is_the_rounded_mean_of_four_pixels(shape) -> None:
    image = np.random.default_rng(0).integers(0, 60_000, shape, dtype=np.uint16)
    height, width = shape[0] // 2, shape[1] // 2
    parts = [image[down : 2 * height : 2, right : 2 * width : 2].astype(int) for down in (0, 1) for right in (0, 1)]
    np.testing.assert_array_equal(halve(image), (sum(parts) + 2) // 4)
