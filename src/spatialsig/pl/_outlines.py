"""Outlines of shapes, in the pixels of the image they are drawn over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import shapely
from spatialdata.transformations import get_transformation

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig._errors import AlignmentError
from spatialsig.data.frames import XY, image_of
from spatialsig.geometry.affine import apply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.data.slides import Slide


def outlines(slide: Slide, shapes_key: str, image_key: str) -> list[NDArray[np.float64]]:
    """Every ring, outer ones and holes, of a polygon element, each ``(n_vertices, 2)`` as x, y in image px."""
    check_key(slide.sdata.shapes, shapes_key, name="tissue_key", where=f"the shapes of slide {slide.name!r}")
    shapes = slide.sdata.shapes[shapes_key]
    matrix = np.linalg.inv(_to_global(slide, image_of(slide, image_key), image_key)) @ _to_global(
        slide, shapes, shapes_key
    )
    rings = shapely.get_rings(shapely.get_parts(shapes.geometry.to_numpy()))
    return [apply(matrix, np.asarray(ring.coords, np.float64)[:, :2]) for ring in rings]


def _to_global(slide: Slide, element: object, key: str) -> NDArray[np.float64]:
    transformation = get_transformation(element, get_all=True).get(_keys.GLOBAL)
    if transformation is None:
        msg = f"slide {slide.name!r}: {key!r} has no transformation to {_keys.GLOBAL!r}; set one with spatialdata."
        raise AlignmentError(msg)
    return np.asarray(transformation.to_affine_matrix(input_axes=XY, output_axes=XY), np.float64)
