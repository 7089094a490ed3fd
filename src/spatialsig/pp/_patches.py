"""Cut the H&E into square patches of a fixed physical size."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

from spatialsig import _keys
from spatialsig._checks import check_fraction, check_positive
from spatialsig._errors import InputError
from spatialsig._progress import track
from spatialsig.data.frames import full_resolution, image_of, image_um_per_px, um_to_image
from spatialsig.data.patch_table import PatchSpec
from spatialsig.data.slides import open_slides, slide_count
from spatialsig.data.splits import positions
from spatialsig.geometry.grid import patch_origins
from spatialsig.pp._tissue import tissue_fraction, tissue_integral

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.data.slides import Data, Slide

MAX_UPSAMPLING = 1.05  # a patch finer than the scan would be made of invented pixels


def make_patches(
    data: Data,
    *,
    patch_px: int = 224,
    um_per_px: float = 0.5,
    stride_um: float | None = None,
    around: str | None = None,
    min_tissue: float = 0.25,
    image_key: str = _keys.IMAGE,
    key_added: str = _keys.PATCHES,
) -> None:
    """Lay a grid of square patches over the H&E, or one patch around each spot.

    Only whole patches are kept: on a grid, the right and bottom rims narrower than a patch are not covered.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    patch_px
        Edge of a patch as the model will see it, px.
    um_per_px
        Resolution the model will see, µm/px. A patch covers ``patch_px * um_per_px`` µm: 112 µm by default.
    stride_um
        Step between neighbouring patches, µm; ``None`` means no overlap and no gap.
    around
        Table whose rows are the centres of the patches, for technologies with spots (Visium, legacy ST); ``None``
        (default) lays a grid.
    min_tissue
        Smallest share of tissue in a patch, 0 to 1.
    image_key
        H&E image, ``(c, y, x)`` uint8.
    key_added
        Name of the shapes element; an element of that name is replaced.

    Returns
    -------
    Nothing; writes ``shapes[key_added]``, ``n_patches`` squares in H&E pixels that carry all transformations of the
    image, indexed ``0..n_patches - 1``, with columns ``y0``, ``x0`` (level-0 px), ``row``, ``col`` (of the grid; whole
    strides around spots) and ``tissue_fraction``; and ``attrs["spatialsig"]["patches"][key_added]`` with the sizes.

    Raises
    ------
    KeyMissingError
        If there is no image ``image_key``.
    InputError
        If the patch does not fit the image, is finer than the scan, or no patch holds enough tissue.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.make_patches(sdata, patch_px=56, um_per_px=2.0)
    >>> sdata["patches"].columns.tolist()
    ['geometry', 'y0', 'x0', 'row', 'col', 'tissue_fraction']
    """
    check_positive(patch_px=patch_px, um_per_px=um_per_px)
    check_fraction(min_tissue=min_tissue)
    if stride_um is not None:
        check_positive(stride_um=stride_um)
    stride = patch_px * um_per_px if stride_um is None else stride_um
    # every slide is checked before any is written
    specs = [_spec(slide, patch_px, um_per_px, stride, min_tissue, image_key) for slide in open_slides(data)]
    slides = track(open_slides(data), "patches", total=slide_count(data), unit="slide")
    for slide, spec in zip(slides, specs, strict=True):
        _lay(slide, spec, _origins(slide, spec, around), key_added)


def _spec(
    slide: Slide, patch_px: int, um_per_px: float, stride_um: float, min_tissue: float, image_key: str
) -> PatchSpec:
    """Sizes in pixels of this slide's scan; refuses what the image cannot give."""
    full = full_resolution(image_of(slide, image_key))
    height, width = full.sizes["y"], full.sizes["x"]
    scan = image_um_per_px(slide, image_key)
    if scan > um_per_px * MAX_UPSAMPLING:
        msg = (
            f"slide {slide.name!r}: `um_per_px={um_per_px}` is finer than the scan ({scan:.4f} µm/px); "
            f"ask for {scan:.3f} or more."
        )
        raise InputError(msg)
    size = round(patch_px * um_per_px / scan)
    if size > min(height, width):
        msg = (
            f"slide {slide.name!r}: a patch of {patch_px} px at {um_per_px} µm/px covers {size} px of image "
            f"{image_key!r}, which has only {height} x {width} px (y, x); make `patch_px` smaller."
        )
        raise InputError(msg)
    return PatchSpec(
        image_key=image_key,
        patch_px=patch_px,
        um_per_px=um_per_px,
        size_l0=size,
        stride_l0=max(1, round(stride_um / scan)),
        image_um_per_px=scan,
        min_tissue=min_tissue,
    )


def _origins(slide: Slide, spec: PatchSpec, around: str | None) -> NDArray[np.int64]:
    """Corners ``(n, 2)`` as y0, x0 of the patches that lie wholly on the image."""
    full = full_resolution(image_of(slide, spec.image_key))
    height, width, size = full.sizes["y"], full.sizes["x"], spec.size_l0
    if around is None:
        return patch_origins(height, width, patch_px=size, stride_px=spec.stride_l0)
    slide.table(around, name="around")
    centres = um_to_image(slide, spec.image_key, positions(slide, around))
    origins = np.rint(centres[:, ::-1] - size / 2).astype(np.int64)
    return origins[(origins >= 0).all(axis=1) & (origins + size <= (height, width)).all(axis=1)]


def _lay(slide: Slide, spec: PatchSpec, origins: NDArray[np.int64], key_added: str) -> None:
    image = image_of(slide, spec.image_key)
    integral, scale = tissue_integral(image, um_per_px=spec.image_um_per_px)
    tissue = tissue_fraction(integral, scale, origins, size=spec.size_l0)
    keep = tissue >= spec.min_tissue
    if not keep.any():
        msg = (
            f"slide {slide.name!r}: none of {len(origins)} patches has {spec.min_tissue:.0%} tissue (the most is "
            f"{tissue.max(initial=0):.0%}); lower `min_tissue` or look at the image."
        )
        raise InputError(msg)
    squares = _squares(origins[keep], spec, tissue[keep])
    slide.put(key_added, ShapesModel.parse(squares, transformations=get_transformation(image, get_all=True)))
    slide.attrs.setdefault("patches", {})[key_added] = asdict(spec)
    slide.commit_attrs()


def _squares(origins: NDArray[np.int64], spec: PatchSpec, tissue: NDArray[np.float64]) -> gpd.GeoDataFrame:
    y0, x0 = origins.T
    columns = {
        "geometry": shapely.box(x0, y0, x0 + spec.size_l0, y0 + spec.size_l0),
        _keys.Y0: y0,
        _keys.X0: x0,
        _keys.ROW: y0 // spec.stride_l0,
        _keys.COL: x0 // spec.stride_l0,
        _keys.TISSUE_FRACTION: tissue,
    }
    return gpd.GeoDataFrame(columns, geometry="geometry")
