"""Tissue and other elements in the pixels of the H&E, and the squares of the patches.

Floor 7, above evaluation. Used by 10 modules of maps, pp, whole_slides.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from skimage.draw import polygon as fill
from spatialdata.transformations import Identity, get_transformation

from spatialsig import _keys
from spatialsig._checks import did_you_mean, first_few, warn
from spatialsig.data.level_pixels import check_shown
from spatialsig.data.pyramid import image_levels
from spatialsig.errors import AlignmentError, InputError, KeyMissingError
from spatialsig.geometry.placement import warn_stretched
from spatialsig.pp._segmentation import (
    MASK_UM_PER_PX,
    TissueMask,
    blue_before_red,
    coarse_level,
    coarse_pixels,
    segment,
)
from spatialsig.slide.coordinates import XY, check_matrix, full_resolution, image_of, image_to_um, image_um_per_px
from spatialsig.slide.parts import pixels_of, place_of, with_place
from spatialsig.slide.patches import level_read
from spatialsig.slide.records import PatchSpec
from spatialsig.slide.squares import patch_squares
from spatialsig.store.layout import levels_of
from spatialsig.store.lazy_tables import element_of
from spatialsig.store.stored.damage import computed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

LAZYSLIDE_COLUMN = "tissue_id"  # on the tissues and tiles of LazySlide / wsidata
IN_PIXELS = {LAZYSLIDE_COLUMN, "bboxes", "pixel_y0"}  # columns of tools that cut in pixels of the image
TOLERANCE_PX = 1.0  # level-0 px by which tiles may differ after a change of frame
MAX_UPSAMPLING = 1.05  # a patch finer than the scan would be made of invented pixels


def tissue_of(slide: Slide, image_key: str, tissue_key: str | None) -> tuple[TissueMask, str | None]:
    """Tissue that patches are chosen by, and the element it came from (None: found on the image).

    Without a key, the outlines that ``find_tissue`` left on this image under its own name are taken, if any.
    """
    if tissue_key is None:
        before = slide.attrs.get("tissue")  # of early versions; else what a user calls it
        made = slide.attrs.get("find_tissue", before if isinstance(before, dict) else {}).get(_keys.TISSUE, {})
        tissue_key = _keys.TISSUE if made.get("image_key") == image_key and _keys.TISSUE in slide.sdata.shapes else None
    if tissue_key is None:
        return segmented(slide, image_key, um_per_px=MASK_UM_PER_PX, sensitivity=1.0), None
    if tissue_key in slide.sdata.shapes:
        slide.lineage.check(tissue_key)
        return _mask_of_shapes(slide, image_key, tissue_key), tissue_key
    if tissue_key in slide.sdata.labels:
        return _mask_of_labels(slide, image_key, tissue_key), tissue_key
    available = sorted([*slide.sdata.shapes, *slide.sdata.labels])
    msg = (
        f"`tissue_key={tissue_key!r}` is in neither the shapes nor the labels of slide {slide.name!r}; available: "
        f"{available}.{did_you_mean(tissue_key, available)} Call `sp.pp.find_tissue` first, or name a mask of squidpy, sopa or LazySlide."
    )
    raise KeyMissingError(msg)


def segmented(slide: Slide, image_key: str, *, um_per_px: float, sensitivity: float) -> TissueMask:
    """Tissue on a coarse level; warns where red and blue seem to have changed places."""
    scan = image_um_per_px(slide, image_key)
    pixels, scale = checked_coarse_pixels(slide, image_key, um_per_px=um_per_px)
    mask = segment(pixels, um_per_px=scan * max(scale), sensitivity=sensitivity)
    if blue_before_red(pixels[mask]):
        msg = (
            f"slide {slide.name!r}: the darkest tissue of image {image_key!r} absorbs blue more than red, while "
            f"haematoxylin absorbs red. If nuclei look brown or orange, the channels are in the order BGR (as OpenCV "
            f"reads them): give the image as RGB, e.g. `image[..., ::-1]`. On a slide full of blood this is no fault."
        )
        warn(msg)
    return TissueMask(mask, scale)


def checked_coarse_pixels(
    slide: Slide, image_key: str, *, um_per_px: float
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """:func:`coarse_pixels` at about ``um_per_px``, from a level that shows what the full resolution shows."""
    image, scan = image_of(slide, image_key), image_um_per_px(slide, image_key)
    index = coarse_level(image, um_per_px=scan, target_um_per_px=um_per_px)
    check_shown(image_levels(slide.sdata, image_key), index, name=f"slide {slide.name!r}: image {image_key!r}")
    return coarse_pixels(image, um_per_px=scan, target_um_per_px=um_per_px)


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
    levels = levels_of(element)
    matrix = np.linalg.inv(to_image(slide, key, image_key))
    step = scale * float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))  # label px per px of the mask
    enough = [level for level in levels if full.sizes["x"] / level.sizes["x"] <= max(step, 1.0)]
    level = min(enough or levels[:1], key=lambda one: one.sizes["x"])
    labels = computed(level) > 0
    y, x = np.meshgrid(*((np.arange(n) + 0.5) * scale for n in shape), indexing="ij")
    column, row = np.einsum("ij,jyx->iyx", matrix[:2, :2], np.stack([x, y])) + matrix[:2, 2][:, None, None]
    row = np.floor(row * labels.shape[0] / full.sizes["y"]).astype(np.int64)
    column = np.floor(column * labels.shape[1] / full.sizes["x"]).astype(np.int64)
    inside = (row >= 0) & (column >= 0) & (row < labels.shape[0]) & (column < labels.shape[1])
    mask = np.zeros(shape, bool)
    mask[inside] = labels[row[inside], column[inside]]
    return TissueMask(mask, (scale, scale))


def to_image(slide: Slide, key: str, image_key: str, *, similar: bool = False) -> NDArray[np.float64]:
    """Matrix ``(3, 3)`` from the coordinates (x, y) of element ``key`` to pixels of the image.

    Shapes without a transformation of their own, which SpatialData reads as the identity, are taken as pixels of the image
    where columns say that they are: as LazySlide leaves them, and tiles of other tools that lost theirs.
    Element and image must share a coordinate system, and have a place in it that can be inverted; an image, and ``similar``
    elements, are not squeezed or sheared there.
    """
    element = element_of(slide.sdata, key)
    own = get_transformation(element, get_all=True)
    image = get_transformation(image_of(slide, image_key), get_all=True)
    columns = set(getattr(element, "columns", ()))
    if columns & IN_PIXELS and all(isinstance(one, Identity) for one in own.values()):
        return np.eye(3)
    shared = [name for name in (_keys.GLOBAL, *own) if name in own and name in image]
    if not shared:
        msg = (
            f"slide {slide.name!r}: {key!r} (in {sorted(own)}) and image {image_key!r} (in {sorted(image)}) share no "
            "coordinate system; set one with `spatialdata.transformations.set_transformation`."
        )
        raise AlignmentError(msg)
    ours, theirs = (np.asarray(t[shared[0]].to_affine_matrix(XY, XY), np.float64) for t in (image, own))
    check_matrix(slide, ours, f"image {image_key!r}")
    check_matrix(slide, theirs, repr(key), similar=similar)
    matrix: NDArray[np.float64] = np.linalg.inv(ours) @ theirs
    near = np.round(matrix, 6)
    return near if np.allclose(matrix, near, atol=1e-7) else matrix


def geometries_on_image(
    slide: Slide, key: str, image_key: str, geometries: Any = None, *, similar: bool = False
) -> NDArray[Any]:
    """Geometries of shapes ``key`` in pixels of the image (those given, where they are not the element's own)."""
    shapes: GeoDataFrame = slide.sdata.shapes[key]
    matrix = to_image(slide, key, image_key, similar=similar)
    placed = shapely.transform(
        np.asarray(shapes.geometry if geometries is None else geometries),
        lambda xy: xy @ matrix[:2, :2].T + matrix[:2, 2],
    )
    _check_on_image(slide, key, image_key, placed)
    return np.asarray(placed)


def check_outlines(slide: Slide, key: str) -> None:
    """Refuse shapes that are missing, empty or not finite."""
    shapes = slide.sdata.shapes[key]
    bad = ~np.isfinite(shapely.bounds(np.asarray(shapes.geometry))).all(axis=1)
    if bad.any():
        msg = (
            f"slide {slide.name!r}: {int(bad.sum())} of {len(shapes)} shapes of {key!r} are missing, empty or not finite, such as "
            f"{first_few(list(shapes.index[bad]))}; leave them out: `sdata[{key!r}] = sdata[{key!r}].drop([...])`."
        )
        raise InputError(msg)


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


def check_resolution(slide: Slide, um_per_px: float, scan_um_per_px: float) -> None:
    """Refuse a resolution that the scan does not have."""
    if scan_um_per_px > um_per_px * MAX_UPSAMPLING:
        msg = (
            f"slide {slide.name!r}: `um_per_px={um_per_px:g}` is finer than the scan ({scan_um_per_px:.4f} µm/px); "
            f"ask for {scan_um_per_px:.3f} or more."
        )
        raise InputError(msg)


def patch_spec(
    slide: Slide, *, patch_px: int, um_per_px: float, stride_um: float, min_tissue: float, image_key: str
) -> PatchSpec:
    """Sizes in pixels of this slide's scan; refuses what the image cannot give."""
    full = full_resolution(image_of(slide, image_key))
    height, width = full.sizes["y"], full.sizes["x"]
    scan = image_um_per_px(slide, image_key)
    check_resolution(slide, um_per_px, scan)
    size_l0 = round(patch_px * um_per_px / scan)
    if size_l0 > min(height, width):
        msg = (
            f"slide {slide.name!r}: a patch of {patch_px} px at {um_per_px:g} µm/px covers {size_l0} px of image "
            f"{image_key!r}, which has only {height} x {width} px (y, x); make patches smaller (`patch_px`), where no model sets their size."
        )
        raise InputError(msg)
    level, resample = level_read(slide, image_key, size_l0=size_l0, out_px=patch_px)
    return PatchSpec(
        image_key=image_key, patch_px=patch_px, um_per_px=um_per_px, size_l0=size_l0,
        stride_l0=max(1, round(stride_um / scan)), image_um_per_px=scan, min_tissue=min_tissue, level=level,
        resample=resample,
    )  # fmt: skip


def write_patches(
    slide: Slide, key: str, spec: PatchSpec, origins: NDArray[np.int64], tissue: NDArray[np.float64], made_by: str,
    *, sources: Iterable[str] = (),
) -> None:  # fmt: skip
    """Write squares with the transformations of their image, how they were cut, by which function and from what."""
    frames = get_transformation(image_of(slide, spec.image_key), get_all=True)
    warn_stretched(
        image_to_um(slide, spec.image_key), name=f"slide {slide.name!r}: the transformation of image {spec.image_key!r}"
    )
    slide.put(
        key,
        patch_squares(origins, spec, tissue, frames),
        made_by=made_by,
        sources=[pixels_of(spec.image_key), place_of(spec.image_key), *with_place(spec.tissue_key), *sources],
        attrs={"patches": asdict(spec)},
    )
