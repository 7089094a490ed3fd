"""Outlines of the tissue, from the H&E.

Floor 7, above evaluation. Called as sp.pp.find_tissue; used by 3 modules of pipeline, whole_slides.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import shapely
from skimage.measure import find_contours
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

from spatialsig import _keys
from spatialsig._arguments import Key, NewKey, NotNegative, Positive, UmPerPx, checked
from spatialsig.errors import InputError
from spatialsig.pp._elements import segmented
from spatialsig.pp._segmentation import MASK_UM_PER_PX, tidy
from spatialsig.slide.added import check_added
from spatialsig.slide.coordinates import full_resolution, image_of, image_um_per_px
from spatialsig.slide.each import map_slides
from spatialsig.slide.parts import pixels_of, place_of
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide


@checked
def find_tissue(
    data: Data,
    *,
    um_per_px: UmPerPx = MASK_UM_PER_PX,
    min_area_um2: NotNegative = 10_000.0,
    max_hole_um2: NotNegative = 5_000.0,
    sensitivity: Positive = 1.0,
    image_key: Key = _keys.IMAGE,
    key_added: NewKey = _keys.TISSUE,
) -> None:
    """Outline the tissue on the H&E as polygons in its pixels.

    Tissue is darker than the glass of the same slide (Otsu's threshold [1]_, within limits), rough on the scale of
    cells, and coloured by haematoxylin and eosin: pen marks, dark rims of the scan, spilled stain and uneven light are
    not tissue.

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
    ``attrs["spatialsig"]["find_tissue"][key_added]``.

    Raises
    ------
    KeyMissingError
        If there is no image ``image_key``.
    InputError
        If a slide holds no tissue (slides before it in a cohort are written).

    References
    ----------
    .. [1] Otsu N. A threshold selection method from gray-level histograms. IEEE Transactions on Systems, Man, and
       Cybernetics 9, 62-66 (1979). https://doi.org/10.1109/TSMC.1979.4310076

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.find_tissue(sdata)
    >>> sdata["tissue"].columns.tolist()
    ['geometry', 'area_um2']
    """
    params = {
        "image_key": image_key,
        "um_per_px": um_per_px,
        "min_area_um2": min_area_um2,
        "max_hole_um2": max_hole_um2,
        "sensitivity": sensitivity,
    }
    map_slides(data, partial(_outline, params=params, key_added=key_added), "tissue")


def _outline(slide: Slide, *, params: dict[str, Any], key_added: str) -> None:
    check_added(slide, key_added, made_by="pp.find_tissue")
    image = image_of(slide, params["image_key"])
    scan = image_um_per_px(slide, params["image_key"])
    tissue = segmented(slide, params["image_key"], um_per_px=params["um_per_px"], sensitivity=params["sensitivity"])
    scale = tissue.scale
    mask = tidy(
        tissue.mask,
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
    slide.put(
        key_added,
        ShapesModel.parse(frame, transformations=get_transformation(image, get_all=True)),
        made_by="pp.find_tissue",
        sources=[pixels_of(params["image_key"]), place_of(params["image_key"])],
        attrs={"find_tissue": params},
    )


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
