"""Cut the H&E into square patches of a fixed physical size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import shapely
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

from spatialsig import _keys
from spatialsig._checks import check_fraction, check_positive
from spatialsig._errors import InputError
from spatialsig._progress import track
from spatialsig.data.frames import full_resolution, image_of, image_um_per_px
from spatialsig.data.slides import open_slides, slide_count
from spatialsig.geometry.grid import patch_origins
from spatialsig.pp._tissue import tissue_fraction, tissue_integral

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spatialsig.data.slides import Data, Slide

MAX_UPSAMPLING = 1.05  # a patch finer than the scan would be made of invented pixels


def make_patches(
    data: Data,
    *,
    patch_px: int = 224,
    um_per_px: float = 0.5,
    stride_um: float | None = None,
    min_tissue: float = 0.25,
    image_key: str = _keys.IMAGE,
    key_added: str = _keys.PATCHES,
) -> None:
    """Lay a grid of square patches over the H&E.

    Only whole patches are kept: the right and bottom rims narrower than a patch are not covered.

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
    min_tissue
        Smallest share of tissue in a patch, 0 to 1.
    image_key
        H&E image, ``(c, y, x)`` uint8.
    key_added
        Name of the shapes element; an element of that name is replaced.

    Returns
    -------
    Nothing; writes ``shapes[key_added]``, ``n_patches`` squares in H&E pixels that carry all transformations of the
    image, indexed ``0..n_patches - 1``, with columns ``y0``, ``x0`` (level-0 px), ``row``, ``col`` (of the grid) and
    ``tissue_fraction``; and ``attrs["spatialsig"]["patches"][key_added]`` with the sizes.

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
    for slide in track(open_slides(data), "patches", total=slide_count(data), unit="slide"):
        _patch_slide(slide, patch_px, um_per_px, stride, min_tissue, image_key, key_added)


def _patch_slide(
    slide: Slide, patch_px: int, um_per_px: float, stride_um: float, min_tissue: float, image_key: str, key_added: str
) -> None:
    image = image_of(slide, image_key)
    scan = image_um_per_px(slide, image_key)
    if scan > um_per_px * MAX_UPSAMPLING:
        msg = (
            f"slide {slide.name!r}: `um_per_px={um_per_px}` is finer than the scan ({scan:.4f} µm/px); "
            f"ask for {scan:.3f} or more."
        )
        raise InputError(msg)
    size, stride = round(patch_px * um_per_px / scan), max(1, round(stride_um / scan))
    full = full_resolution(image)
    height, width = full.sizes["y"], full.sizes["x"]
    if size > min(height, width):
        msg = (
            f"slide {slide.name!r}: a patch of {patch_px} px at {um_per_px} µm/px covers {size} px of image "
            f"{image_key!r}, which has only {height} x {width} px (y, x); make `patch_px` smaller."
        )
        raise InputError(msg)
    origins = patch_origins(height, width, patch_px=size, stride_px=stride)
    tissue = tissue_fraction(*tissue_integral(image), origins, size=size)
    keep = tissue >= min_tissue
    if not keep.any():
        msg = (
            f"slide {slide.name!r}: no patch has {min_tissue:.0%} tissue (the most is {tissue.max():.0%}); "
            "lower `min_tissue` or look at the image."
        )
        raise InputError(msg)
    squares = _squares(origins[keep], size, stride, tissue[keep])
    shapes = ShapesModel.parse(squares, transformations=get_transformation(image, get_all=True))
    slide.put(key_added, shapes)
    slide.attrs.setdefault("patches", {})[key_added] = {
        "image_key": image_key,
        "patch_px": patch_px,
        "um_per_px": um_per_px,
        "size_l0": size,
        "stride_l0": stride,
        "image_um_per_px": scan,
        "min_tissue": min_tissue,
    }
    slide.commit_attrs()


def _squares(origins: NDArray[np.int64], size: int, stride: int, tissue: NDArray[np.float64]) -> gpd.GeoDataFrame:
    y0, x0 = origins.T
    columns = {
        "geometry": shapely.box(x0, y0, x0 + size, y0 + size),
        _keys.Y0: y0,
        _keys.X0: x0,
        _keys.ROW: y0 // stride,
        _keys.COL: x0 // stride,
        _keys.TISSUE_FRACTION: tissue,
    }
    return gpd.GeoDataFrame(columns, geometry="geometry")
