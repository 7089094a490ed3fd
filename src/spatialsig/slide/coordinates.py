"""The three frames of a slide: micrometres, the ``global`` coordinate system, and pixels of the H&E.

Floor 4, above train. Used by 43 modules of 12 rooms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from spatialdata.models import TableModel
from spatialdata.transformations import Scale, get_transformation
from xarray import DataArray, DataTree

from spatialsig import _keys
from spatialsig._checks import check_key, warn
from spatialsig._hashing import json_hash
from spatialsig.data.images import check_rgb
from spatialsig.errors import AlignmentError, InputError, KeyMissingError
from spatialsig.geometry.affine import apply
from spatialsig.geometry.placement import check_place
from spatialsig.slide.counts import LOST_ATTRS, refuse_several

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

XY = ("x", "y")
MAX_OFF_PX = 1.0  # between the outline of a patch and its columns: tools round
FARTHEST = 1e9  # no slide is a kilometre long, in whatever unit
MAX_WITHOUT_POSITION = 0.01  # share of the rows of a table
_UM_PER_GLOBAL = (1e-3, 1e3)  # from pixels of the finest microscopes to millimetres
_PLACE_AGAIN = (
    "set the right one, an image with `sp.pp.align_he`, shapes with `spatialdata.transformations.set_transformation`"
)
_SET_SCALE = "Set sdata.attrs['spatialsig'] = {'um_per_global_px': pixel_size}, e.g. 0.2125 for Xenium."


def positions(slide: Slide, table_key: str) -> NDArray[np.float64]:
    """Positions of the rows of a table, µm ``(n, 2)``; NaN in the rows without one, at most 1 % of them.

    Raises
    ------
    KeyMissingError
        If the table has none.
    InputError
        If they are no ``(n, 2)`` numbers, too many are not finite, or the table holds several slides.

    Warns
    -----
    SpatialsigWarning
        How many rows have none.
    """
    table = slide.table(table_key)
    refuse_several(slide, table, table_key)
    values = slide.obsm(table_key, _keys.SPATIAL, name="obsm", fix="Put the positions of the cells there, um as x, y.")
    return as_positions(values, where=f"slide {slide.name!r}: tables[{table_key!r}].obsm[{_keys.SPATIAL!r}]")


def as_positions(values: Any, *, where: str) -> NDArray[np.float64]:
    """Positions ``(n, 2)`` in the unit they are given in, checked as :func:`positions` does; ``where`` they stand."""
    array = np.asarray(values)
    if np.ma.isMaskedArray(values):
        msg = f"{where} is masked; wanted (n_obs, 2) numbers x, y: `.filled(np.nan)` says which cells have no position."
        raise InputError(msg)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iuf":
        fix = "Keep the columns x and y of the section." if array.ndim == 2 and array.shape[1] > 2 else ""
        msg = f"{where} is {array.dtype} of shape {array.shape}; wanted (n_obs, 2) numbers x, y. {fix}"
        raise InputError(msg.rstrip())
    if len(array) == 0:
        msg = f"{where} is empty: there are no cells. Leave the slide out, or read it again with lower limits."
        raise InputError(msg)
    xy = array.astype(np.float64)
    lost = ~(np.abs(xy) <= FARTHEST).all(axis=1)
    what = f"not finite or beyond {FARTHEST:g}" if np.isfinite(xy[lost]).all(axis=1).any() else "not finite"
    if lost.sum() > MAX_WITHOUT_POSITION * len(xy):
        msg = (
            f"{where}: {lost.sum()} of {len(xy)} positions are {what}; at most {MAX_WITHOUT_POSITION:.0%} may be left "
            "out. Remove these rows yourself if that is right."
        )
        raise InputError(msg)
    if lost.any():
        msg = (
            f"{where}: {lost.sum()} of {len(xy)} positions are {what}; these cells are left out, in no patch or block."
        )
        warn(msg)
        xy[lost] = np.nan
    return xy


def image_of(slide: Slide, image_key: str) -> DataArray | DataTree:
    """H&E ``image_key``, uint8 RGB, finest level first; the error names the slide and what exists or what is wrong."""
    image = any_image_of(slide, image_key)
    check_rgb(image, image_key, slide=slide.name)
    return image


def any_image_of(slide: Slide, image_key: str) -> DataArray | DataTree:
    """Image ``image_key`` of whatever channels; the error names the slide and what exists."""
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
    to ``global``: where scales differ, of those that a table annotates.
    """
    pixel_um = slide.attrs.get("um_per_global_px")
    if pixel_um is not None:
        return _length(pixel_um, slide, "attrs['spatialsig']['um_per_global_px']")
    scaled = _scaled_shapes(slide)
    if scaled:
        key, (x, y) = next(iter(scaled.items()))
        if x != y or len(set(scaled.values())) > 1:
            key, x = _one_length(slide, scaled)
        return _length(x, slide, f"the scale of shapes {key!r}")
    msg = (
        f"slide {slide.name!r}: micrometres per pixel of `global` are unknown (no scaled shapes). {_SET_SCALE} "
        f"{LOST_ATTRS}"
    )
    raise AlignmentError(msg)


def _scaled_shapes(slide: Slide) -> dict[str, tuple[float, float]]:
    """Units of the shapes (x, y) per unit of ``global``, of those that a scale alone carries there."""
    found = {}
    for key, shapes in slide.sdata.shapes.items():
        transformation = get_transformation(shapes, get_all=True).get(_keys.GLOBAL)
        if isinstance(transformation, Scale):
            with np.errstate(divide="ignore"):
                x, y = 1 / transformation.to_scale_vector(XY)
            found[key] = float(f"{x:.6g}"), float(f"{y:.6g}")
    return found


def _one_length(slide: Slide, scaled: dict[str, tuple[float, float]]) -> tuple[str, float]:
    """The cells among shapes that disagree, and their length: an outline may be drawn in the pixels of any level."""
    cells = {
        region
        for table in slide.sdata.tables.values()
        for region in np.atleast_1d(table.uns.get(TableModel.ATTRS_KEY, {}).get(TableModel.REGION_KEY) or [])
    }
    lengths = {length for key, length in scaled.items() if key in cells}
    if len(lengths) == 1 and len(set(*lengths)) == 1:
        key = next(key for key in scaled if key in cells)
        return key, scaled[key][0]
    listed = "; ".join(f"{key!r}: {x:g} along x, {y:g} along y" for key, (x, y) in scaled.items())
    msg = (
        f"slide {slide.name!r}: the scales of its shapes contradict each other on the um per pixel of `global` ({listed}), and "
        f"not one pair of equal edges belongs to shapes that a table annotates. {_SET_SCALE}"
    )
    raise AlignmentError(msg)


def _length(value: Any, slide: Slide, where: str) -> float:
    """Micrometres per unit of ``global`` as a number above 0."""
    try:
        length = np.nan if isinstance(value, bool | np.bool_) else float(value)
    except (TypeError, ValueError):
        length = np.nan
    if not _UM_PER_GLOBAL[0] <= length <= _UM_PER_GLOBAL[1]:
        bounds = f"{_UM_PER_GLOBAL[0]:g} to {_UM_PER_GLOBAL[1]:g}" if 0 < length < np.inf else "a number above 0"
        msg = f"slide {slide.name!r}: {where} gives {value!r} um per pixel of `global`; wanted {bounds}. {_SET_SCALE}"
        raise AlignmentError(msg)
    return length


def matrix_to_global(element: Any) -> NDArray[np.float64] | None:
    """Matrix ``(3, 3)`` from the coordinates (x, y) of an element to ``global``; None where it has no way there."""
    transformation = get_transformation(element, get_all=True).get(_keys.GLOBAL)
    return (
        None
        if transformation is None
        else np.asarray(transformation.to_affine_matrix(input_axes=XY, output_axes=XY), np.float64)
    )


def placed(slide: Slide, element: Any, name: str, *, similar: bool = True) -> NDArray[np.float64]:
    """:func:`matrix_to_global` of an element that must have one.

    :class:`AlignmentError` if it has none, or one that cannot be inverted or, unless ``similar`` is False, squeezes or shears.
    """
    matrix = matrix_to_global(element)
    if matrix is None:
        msg = f"slide {slide.name!r}: {name} has no transformation to {_keys.GLOBAL!r}; set one with spatialdata."
        raise AlignmentError(msg)
    check_matrix(slide, matrix, name, similar=similar)
    return matrix


def check_matrix(slide: Slide, matrix: NDArray[np.float64], name: str, *, similar: bool = True) -> None:
    """Refuse a matrix ``(3, 3)`` that cannot place element ``name``, see :func:`spatialsig.geometry.placement.check_place`."""
    name = f"slide {slide.name!r}: the transformation of {name} to its coordinate system"
    check_place(matrix, name=name, fix=_PLACE_AGAIN, similar=similar)


def image_to_um(slide: Slide, image_key: str) -> NDArray[np.float64]:
    """Matrix ``(3, 3)`` from image pixels (x, y) to micrometres."""
    to_global = placed(slide, any_image_of(slide, image_key), f"image {image_key!r}")
    scale = um_per_global(slide)
    return np.diag([scale, scale, 1.0]) @ to_global


def place_hash(slide: Slide, key: str) -> str | None:
    """Hash of where an element lies, an image in µm and others in their coordinate systems; None where nothing says it."""
    element = slide.sdata.shapes.get(key, slide.sdata.labels.get(key))
    try:
        matrix = image_to_um(slide, key) if element is None else matrix_to_global(element)
    except (AlignmentError, KeyMissingError):
        matrix = None
    return None if matrix is None else json_hash((np.round(matrix, 9) + 0.0).tolist())


def um_to_image(slide: Slide, image_key: str, xy_um: NDArray[Any]) -> NDArray[np.float64]:
    """Points ``(n, 2)`` from micrometres to pixels of the image."""
    return apply(np.linalg.inv(image_to_um(slide, image_key)), xy_um)


def image_um_per_px(slide: Slide, image_key: str) -> float:
    """Edge of an image pixel in micrometres."""
    return float(np.sqrt(abs(np.linalg.det(image_to_um(slide, image_key)[:2, :2]))))


def check_squares(shapes: GeoDataFrame, size: int, *, name: str) -> None:
    """Refuse patches whose outlines were edited: what is read are the columns ``y0``, ``x0``, in level-0 px."""
    corners = shapes[[_keys.X0, _keys.Y0]].to_numpy(np.float64)
    squares = np.hstack([corners, corners + size])
    off = np.abs(shapely.bounds(np.asarray(shapes.geometry)) - squares).max(axis=1, initial=0) > MAX_OFF_PX
    if off.any():
        row = int(np.flatnonzero(off)[0])
        msg = (
            f"{name}: the outlines of {int(off.sum())} patches are not the squares that their columns x0, y0 say, as patch "
            f"{shapes.index[row]!r} at {corners[row].tolist()}. To lay patches elsewhere call `sp.pp.make_patches` again, or "
            f"drop the columns and call `sp.pp.import_patches`."
        )
        raise InputError(msg)
