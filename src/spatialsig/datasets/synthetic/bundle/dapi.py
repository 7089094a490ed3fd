"""Morphology image drawn from nuclei as DAPI shows them, on the full frame of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig.datasets.synthetic.bundle.outlines import fill_rings
from spatialsig.datasets.synthetic.image.in_threads import paint_parts
from spatialsig.datasets.synthetic.image.paint import blur

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BAND_PX = 1024
_BACKGROUND = 12
# no noise and a few hundred grey levels: JPEG 2000 then takes half the time
_BRIGHTNESS = 330.0
_WEIGHTS = np.array([0.0625, 0.25, 0.375, 0.25, 0.0625], dtype=np.float32)


def render_dapi(
    nuclei_px: NDArray[np.float64], density: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.uint16]:
    """Draw nuclei ``(n, n_vertices, 2)`` px, brighter where the chromatin is denser, ``shape`` uint16."""
    image = np.empty(shape, dtype=np.uint16)
    border = len(_WEIGHTS) // 2

    def paint_band(row0: int) -> None:
        out = image[row0 : row0 + _BAND_PX]
        band = np.zeros((len(out) + 2 * border, shape[1]), dtype=np.float32)
        fill_rings(band, row0 - border, nuclei_px, _BRIGHTNESS * density)
        blur(band, _WEIGHTS)
        out[:] = band[border : border + len(out)].astype(np.uint16) + _BACKGROUND

    paint_parts(paint_band, range(0, shape[0], _BAND_PX))
    return image
