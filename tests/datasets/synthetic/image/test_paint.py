from __future__ import annotations

import numpy as np
from scipy import ndimage

from spatialsig.datasets.synthetic.image.paint import blur


def test_the_blur_is_a_convolution_inside_its_border() -> None:
    image = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    weights = np.array([0.1, 0.2, 0.4, 0.2, 0.1], np.float32)
    expected = ndimage.convolve1d(ndimage.convolve1d(image, weights, axis=1), weights, axis=0)
    blur(image, weights)
    np.testing.assert_allclose(image[2:-2, 2:-2], expected[2:-2, 2:-2], rtol=1e-5)
