"""Outline the tissue of an H&E, and read the outlines of others."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely
from skimage.draw import polygon as fill
from skimage.measure import find_contours
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation
from xarray import DataTree

from spatialsig import _keys
from spatialsig._checks import check_positive
from spatialsig._errors import InputError, KeyMissingError, SpatialsigWarning
from spatialsig._progress import track
from spatialsig.pp._placement import geometries_on_image, to_image
from spatialsig.pp._tissue import MASK_UM_PER_PX, TissueMask, blue_before_red, coarse_pixels, segment, tidy
from spatialsig.slide.coordinates import full_resolution, image_of, image_um_per_px
from spatialsig.slide.slides import open_slides, slide_count

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from spatialsig.slide.slides import Data, Slide


def find_tissue(
    data: Data,
    *,
    um_per_px: float = MASK_UM_PER_PX,
    min_area_um2: float = 10_000.0,
    max_hole_um2: float = 5_000.0,
    sensitivity: float = 1.0,
    image_key: str = _keys.IMAGE,
    key_added: str = _keys.TISSUE,
) -> None:
    """Outline the tissue on the H&E.

    Tissue is darker than the glass of the same slide, rough on the scale of cells, and coloured by haematoxylin and
    eosin: pen marks, dark rims of the scan, spilled stain and uneven light are not tissue.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    um_per_px
        Resolution of the mask, µm/px; only a level of the pyramid that gives it is read.
    min_area_um2
        Smaller pieces are dropped, µm². The default is a square of 100 µm.
    max_hole_um2
        Holes up to this area become tissue, µm²; larger lumens and tears stay holes.
    sensitivity
        Above 1 finds paler and smoother tissue, below 1 less.
    image_key
        H&E image, ``(c, y, x)`` uint8.
    key_added
        Name of the shapes element; an element of that name is replaced.

    Returns
    -------
    Nothing; writes ``shapes[key_added]``, one polygon (with holes) per piece of tissue, largest first, in H&E pixels with
    all transformations of the image, column ``area_um2``; and the parameters in
    ``attrs["spatialsig"]["tissue"][key_added]``.

    Raises
    ------
    KeyMissingError
        If there is no image ``image_key``.
    InputError
        If a slide holds no tissue (slides before it in a cohort are written).

    Examples
    --------
    >>> import spatialsig as sp
    >>> sp.settings.progress = False
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.find_tissue(sdata)
    >>> sdata["tissue"].columns.tolist()
    ['geometry', 'area_um2']
    """
    check_positive(um_per_px=um_per_px, sensitivity=sensitivity)
    if min(min_area_um2, max_hole_um2) < 0:
        msg = f"`min_area_um2={min_area_um2}` and `max_hole_um2={max_hole_um2}` must be 0 or more."
        raise InputError(msg)
    params = {
        "image_key": image_key,
        "um_per_px": um_per_px,
        "min_area_um2": min_area_um2,
        "max_hole_um2": max_hole_um2,
        "sensitivity": sensitivity,
    }
    for slide in open_slides(data):
        image_of(slide, image_key)
    for slide in track(open_slides(data), "tissue", total=slide_count(data), unit="slide"):
        _outline(slide, params, key_added)


def _outline(slide: Slide, params: dict[str, Any], key_added: str) -> None:
    image = image_of(slide, params["image_key"])
    scan = image_um_per_px(slide, params["image_key"])
    found = _segmented(slide, params["image_key"], um_per_px=params["um_per_px"], sensitivity=params["sensitivity"])
    scale = found.scale
    mask = tidy(
        found.mask,
        px_area_um2=scan**2 * scale[0] * scale[1],
        min_area_um2=params["min_area_um2"],
        max_hole_um2=params["max_hole_um2"],
    )
    if not mask.any():
        msg = (
            f"slide {slide.name!r}: no tissue of at least {params['min_area_um2']:g} µm² on image "
            f"{params['image_key']!r}; look at the image, raise `sensitivity`, or lower `min_area_um2`."
        )
        raise InputError(msg)
    full = full_resolution(image)
    pieces = polygons(mask, scale, (full.sizes["y"], full.sizes["x"]))
    frame = gpd.GeoDataFrame({"geometry": pieces, _keys.AREA_UM2: shapely.area(pieces) * scan**2}, geometry="geometry")
    slide.put(key_added, ShapesModel.parse(frame, transformations=get_transformation(image, get_all=True)))
    slide.attrs.setdefault("tissue", {})[key_added] = params
    slide.commit_attrs()


def polygons(mask: NDArray[np.bool_], scale: tuple[float, float], size: tuple[int, int]) -> NDArray[Any]:
    """Polygons with holes around the true pixels of a mask, largest first; ``scale`` is level-0 px per px (y, x)."""
    reach = (size[0] / scale[0], size[1] / scale[1])
    rings = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)  # type: ignore[no-untyped-call]
    # index i of the padded mask is the centre i - 0.5
    lines = []
    for ring in rings:
        y, x = (np.clip(ring[:, k] - 0.5, 0, reach[k]) * scale[k] for k in (0, 1))
        lines.append(shapely.linestrings(np.stack([x, y], axis=1)))
    area = shapely.build_area(shapely.geometrycollections(lines))
    parts = shapely.get_parts(shapely.make_valid(area))
    parts = parts[shapely.get_dimensions(parts) == 2]
    ordered: NDArray[Any] = parts[np.argsort(-shapely.area(parts), kind="stable")]
    return ordered


def tissue_of(slide: Slide, image_key: str, tissue_key: str | None) -> tuple[TissueMask, str | None]:
    """Tissue that patches are chosen by, and the element it came from (None: found on the image).

    Without a key, the outlines that ``find_tissue`` left on this image under its own name are taken, if any.
    """
    if tissue_key is None:
        made = slide.attrs.get("tissue", {}).get(_keys.TISSUE, {})
        tissue_key = _keys.TISSUE if made.get("image_key") == image_key and _keys.TISSUE in slide.sdata.shapes else None
    if tissue_key is None:
        return _segmented(slide, image_key, um_per_px=MASK_UM_PER_PX, sensitivity=1.0), None
    if tissue_key in slide.sdata.shapes:
        return _mask_of_shapes(slide, image_key, tissue_key), tissue_key
    if tissue_key in slide.sdata.labels:
        return _mask_of_labels(slide, image_key, tissue_key), tissue_key
    available = sorted([*slide.sdata.shapes, *slide.sdata.labels])
    msg = (
        f"`tissue_key={tissue_key!r}` is in neither the shapes nor the labels of slide {slide.name!r}; available: "
        f"{available}. Call `sp.pp.find_tissue` first, or name a mask of squidpy, sopa or LazySlide."
    )
    raise KeyMissingError(msg)


def _segmented(slide: Slide, image_key: str, *, um_per_px: float, sensitivity: float) -> TissueMask:
    """Tissue on a coarse level; warns where red and blue seem to have changed places."""
    scan = image_um_per_px(slide, image_key)
    pixels, scale = coarse_pixels(image_of(slide, image_key), um_per_px=scan, target_um_per_px=um_per_px)
    mask = segment(pixels, um_per_px=scan * max(scale), sensitivity=sensitivity)
    if blue_before_red(pixels[mask]):
        msg = (
            f"slide {slide.name!r}: the darkest tissue of image {image_key!r} absorbs blue more than red, while "
            f"haematoxylin absorbs red. If nuclei look brown or orange, the channels are in the order BGR (as OpenCV "
            f"reads them): give the image as RGB, e.g. `image[..., ::-1]`. On a slide full of blood this is no fault."
        )
        warnings.warn(msg, SpatialsigWarning, stacklevel=5)
    return TissueMask(mask, scale)


def _grid(slide: Slide, image_key: str) -> tuple[tuple[int, int], float]:
    """Shape of a mask over the whole image, and level-0 px per px of it."""
    full = full_resolution(image_of(slide, image_key))
    scale = max(1, int(MASK_UM_PER_PX / 2 / image_um_per_px(slide, image_key)))
    return (-(-full.sizes["y"] // scale), -(-full.sizes["x"] // scale)), float(scale)


def _mask_of_shapes(slide: Slide, image_key: str, key: str) -> TissueMask:
    shape, scale = _grid(slide, image_key)
    mask = np.zeros(shape, bool)
    for piece in shapely.get_parts(geometries_on_image(slide, key, image_key)):
        if shapely.get_dimensions(piece) != 2:
            msg = f"slide {slide.name!r}: shapes {key!r} must be polygons; found {piece.geom_type}."
            raise InputError(msg)
        piece_mask = np.zeros(shape, bool)
        rings = [(piece.exterior, True), *((hole, False) for hole in piece.interiors)]
        for ring, inside in rings:
            x, y = (np.asarray(ring.coords)[:, :2] / scale - 0.5).T  # a pixel counts where its centre lies inside
            rows, columns = fill(y, x, shape)  # type: ignore[no-untyped-call]
            piece_mask[rows, columns] = inside
        mask |= piece_mask
    return TissueMask(mask, (scale, scale))


def _mask_of_labels(slide: Slide, image_key: str, key: str) -> TissueMask:
    shape, scale = _grid(slide, image_key)
    element = slide.sdata.labels[key]
    full = full_resolution(element)
    levels = [element[name]["image"] for name in element.children] if isinstance(element, DataTree) else [element]
    matrix = np.linalg.inv(to_image(slide, key, image_key))
    step = scale * float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))  # label px per px of the mask
    enough = [level for level in levels if full.sizes["x"] / level.sizes["x"] <= max(step, 1.0)]
    level = min(enough or levels[:1], key=lambda one: one.sizes["x"])
    labels = np.asarray(level.data) > 0
    y, x = np.meshgrid(*((np.arange(n) + 0.5) * scale for n in shape), indexing="ij")
    column, row = np.einsum("ij,jyx->iyx", matrix[:2, :2], np.stack([x, y])) + matrix[:2, 2][:, None, None]
    row = np.floor(row * labels.shape[0] / full.sizes["y"]).astype(np.int64)
    column = np.floor(column * labels.shape[1] / full.sizes["x"]).astype(np.int64)
    inside = (row >= 0) & (column >= 0) & (row < labels.shape[0]) & (column < labels.shape[1])
    mask = np.zeros(shape, bool)
    mask[inside] = labels[row[inside], column[inside]]
    return TissueMask(mask, (scale, scale))
