"""The three frames of a slide: micrometres, the ``global`` coordinate system, and pixels of the H&E."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from spatialdata.transformations import Scale, get_transformation
from xarray import DataArray, DataTree

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig.errors import AlignmentError
from spatialsig.geometry.affine import apply

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

XY = ("x", "y")


def image_of(slide: Slide, image_key: str) -> DataArray | DataTree:
    """Image element ``image_key``; the error names the slide and what exists."""
    check_key(slide.sdata.images, image_key, name="image_key", where=f"the images of slide {slide.name!r}")
    image: DataArray | DataTree = slide.sdata.images[image_key]
    return image


def full_resolution(image: DataArray | DataTree) -> DataArray:
    """Finest level of an image, ``(c, y, x)``, still lazy."""
    level = image["scale0"]["image"] if isinstance(image, DataTree) else image
    return level  # type: ignore[return-value]


def um_per_global(slide: Slide) -> float:
    """Micrometres per unit of ``global``.

    Taken from our own attributes; for an object that another reader made, from the scale that carries its shapes (µm)
    to ``global``.
    """
    pixel_um = slide.attrs.get("um_per_global_px")
    if pixel_um is not None:
        return float(pixel_um)
    for shapes in slide.sdata.shapes.values():
        transformation = get_transformation(shapes, get_all=True).get(_keys.GLOBAL)
        if isinstance(transformation, Scale):
            return float(1 / transformation.to_scale_vector(XY)[0])
    msg = (
        f"slide {slide.name!r}: micrometres per pixel of `global` are unknown (no scaled shapes). "
        "Set sdata.attrs['spatialsig'] = {'um_per_global_px': pixel_size}, e.g. 0.2125 for Xenium."
    )
    raise AlignmentError(msg)


def matrix_to_global(element: Any) -> NDArray[np.float64] | None:
    """Matrix ``(3, 3)`` from the coordinates (x, y) of an element to ``global``; None where it has no way there."""
    transformation = get_transformation(element, get_all=True).get(_keys.GLOBAL)
    return (
        None
        if transformation is None
        else np.asarray(transformation.to_affine_matrix(input_axes=XY, output_axes=XY), np.float64)
    )


def placed(slide: Slide, element: Any, name: str) -> NDArray[np.float64]:
    """:func:`matrix_to_global` of an element that must have one; :class:`AlignmentError` if it has none."""
    matrix = matrix_to_global(element)
    if matrix is None:
        msg = f"slide {slide.name!r}: {name} has no transformation to {_keys.GLOBAL!r}; set one with spatialdata."
        raise AlignmentError(msg)
    return matrix


def image_to_um(slide: Slide, image_key: str) -> NDArray[np.float64]:
    """Matrix ``(3, 3)`` from image pixels (x, y) to micrometres."""
    to_global = placed(slide, image_of(slide, image_key), f"image {image_key!r}")
    scale = um_per_global(slide)
    return np.diag([scale, scale, 1.0]) @ to_global


def um_to_image(slide: Slide, image_key: str, xy_um: NDArray[Any]) -> NDArray[np.float64]:
    """Points ``(n, 2)`` from micrometres to pixels of the image."""
    return apply(np.linalg.inv(image_to_um(slide, image_key)), xy_um)


def image_um_per_px(slide: Slide, image_key: str) -> float:
    """Edge of an image pixel in micrometres."""
    return float(np.sqrt(abs(np.linalg.det(image_to_um(slide, image_key)[:2, :2]))))
