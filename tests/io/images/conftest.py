"""Pictures to write, and the whole of what is read back."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from spatialsig.io.images.open_rgb import open_rgb

H, W = 530, 710


def smooth(height: int = H, width: int = W) -> np.ndarray:
    """Colours that change slowly, which JPEG keeps within a few gray levels."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [120 + 60 * np.sin(x / 90), 150 + 60 * np.cos(y / 70), 130 + 50 * np.sin((x + y) / 110)], -1
    ).astype(np.uint8)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


def whole(path, **options) -> np.ndarray:
    file = open_rgb(path, **options)
    try:
        return file.pixels[:, :]
    finally:
        file.close()


def write_jpeg(tif, pixels, *, colours: str, **options) -> None:
    """One image of 256 px JPEG tiles that keep RGB, or luminance and colour differences at half the resolution."""
    height, width = pixels.shape[:2]
    encode = {"level": 95, "colorspace": "rgb", "outcolorspace": colours}
    encode |= {"subsampling": "420"} if colours == "ycbcr" else {}
    options |= {"subsampling": (2, 2)} if colours == "ycbcr" else {}
    tiles = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels[y : y + 256, x : x + 256]), **encode)
        for y in range(0, height, 256)
        for x in range(0, width, 256)
    ]
    options |= {"tile": (256, 256), "compression": "jpeg", "photometric": colours, "metadata": None}
    tif.write(iter(tiles), shape=pixels.shape, dtype=np.uint8, **options)
