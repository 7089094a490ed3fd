"""Elements that other tools made, in the pixels of the H&E."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from spatialdata.transformations import Identity, get_transformation

from spatialsig import _keys
from spatialsig.errors import AlignmentError
from spatialsig.slide.coordinates import XY, full_resolution, image_of

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

LAZYSLIDE_COLUMN = "tissue_id"  # on the tissues and tiles of LazySlide / wsidata


def to_image(slide: Slide, key: str, image_key: str) -> NDArray[np.float64]:
    """Matrix ``(3, 3)`` from the coordinates (x, y) of element ``key`` to pixels of the image.

    LazySlide keeps its shapes in level-0 px and gives them no transformation, which SpatialData reads as the identity;
    those, on an image that has one, are taken as the pixels they are.

    Raises
    ------
    AlignmentError
        If element and image share no coordinate system.
    """
    element = slide.sdata[key]
    own = get_transformation(element, get_all=True)
    image = get_transformation(image_of(slide, image_key), get_all=True)
    if LAZYSLIDE_COLUMN in getattr(element, "columns", ()) and _is_bare(own):
        return np.eye(3)
    shared = [name for name in (_keys.GLOBAL, *own) if name in own and name in image]
    if not shared:
        msg = (
            f"slide {slide.name!r}: {key!r} (in {sorted(own)}) and image {image_key!r} (in {sorted(image)}) share no "
            "coordinate system; set one with `spatialdata.transformations.set_transformation`."
        )
        raise AlignmentError(msg)
    ours, theirs = (t[shared[0]].to_affine_matrix(XY, XY) for t in (image, own))
    matrix: NDArray[np.float64] = np.linalg.inv(ours) @ theirs
    near = np.round(matrix, 6)
    return near if np.allclose(matrix, near, atol=1e-7) else matrix


def geometries_on_image(slide: Slide, key: str, image_key: str, geometries: Any = None) -> NDArray[Any]:
    """Geometries of shapes ``key`` in pixels of the image (those given, where they are not the element's own)."""
    shapes: GeoDataFrame = slide.sdata.shapes[key]
    matrix = to_image(slide, key, image_key)
    placed = shapely.transform(
        np.asarray(shapes.geometry if geometries is None else geometries),
        lambda xy: xy @ matrix[:2, :2].T + matrix[:2, 2],
    )
    _check_on_image(slide, key, image_key, placed)
    return np.asarray(placed)


def _check_on_image(slide: Slide, key: str, image_key: str, geometries: NDArray[Any]) -> None:
    full = full_resolution(image_of(slide, image_key))
    frame = shapely.box(0, 0, full.sizes["x"], full.sizes["y"])
    if not shapely.intersects(frame, geometries).any():
        bounds = np.round(shapely.total_bounds(geometries)).tolist()
        msg = (
            f"slide {slide.name!r}: shapes {key!r} lie off image {image_key!r}: they reach over {bounds} px (x0, y0, x1, "
            f"y1), the image over {[0, 0, full.sizes['x'], full.sizes['y']]}. Set the transformation they lack, e.g. "
            "that of the image for shapes drawn in its pixels."
        )
        raise AlignmentError(msg)


def _is_bare(transformations: dict[str, Any]) -> bool:
    return all(isinstance(one, Identity) for one in transformations.values())
