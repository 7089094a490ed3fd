"""The finished H&E of a synthetic slide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig.datasets.synthetic.image.draw_artefacts import draw_artefacts
from spatialsig.datasets.synthetic.image.render import render_he

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spatialsig.datasets.synthetic.slide import SyntheticSlide


def paint_he(slide: SyntheticSlide) -> NDArray[np.uint8]:
    """The H&E of a slide with all its artefacts, ``(height, width, 3)`` uint8."""
    he = render_he(slide.nuclei, slide.tissue, slide.frames, slide.stain, seed=slide.pixel_seed)
    draw_artefacts(he, slide.artefacts, slide.frames, slide.stain, seed=slide.pixel_seed)
    return he
