"""Outlines of shapes, in the pixels of the image they are drawn over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely

from spatialsig._checks import check_key
from spatialsig.geometry.affine import apply
from spatialsig.slide.coordinates import image_of, placed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide


def outlines(slide: Slide, shapes_key: str, image_key: str) -> list[NDArray[np.float64]]:
    """Every ring, outer ones and holes, of a polygon element, each ``(n_vertices, 2)`` as x, y in image px."""
    check_key(slide.sdata.shapes, shapes_key, name="tissue_key", where=f"the shapes of slide {slide.name!r}")
    shapes = slide.sdata.shapes[shapes_key]
    image_to_global = placed(slide, image_of(slide, image_key), f"image {image_key!r}")
    matrix = np.linalg.inv(image_to_global) @ placed(slide, shapes, f"shapes {shapes_key!r}")
    rings = shapely.get_rings(shapely.get_parts(shapes.geometry.to_numpy()))
    return [apply(matrix, np.asarray(ring.coords, np.float64)[:, :2]) for ring in rings]
