"""Squares of patches as a shapes element, with the record of how they were cut."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import geopandas as gpd
import shapely
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

from spatialsig import _keys
from spatialsig.errors import InputError
from spatialsig.slide.coordinates import image_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from spatialsig.slide.patches import PatchSpec
    from spatialsig.slide.slides import Slide

MAX_UPSAMPLING = 1.05  # a patch finer than the scan would be made of invented pixels


def check_resolution(slide: Slide, um_per_px: float, scan_um_per_px: float) -> None:
    """Refuse a resolution that the scan does not have."""
    if scan_um_per_px > um_per_px * MAX_UPSAMPLING:
        msg = (
            f"slide {slide.name!r}: `um_per_px={um_per_px:g}` is finer than the scan ({scan_um_per_px:.4f} µm/px); "
            f"ask for {scan_um_per_px:.3f} or more."
        )
        raise InputError(msg)


def write_patches(
    slide: Slide, key: str, spec: PatchSpec, origins: NDArray[np.int64], tissue: NDArray[np.float64]
) -> None:
    """Write squares with the transformations of their image, and how they were cut."""
    frames = get_transformation(image_of(slide, spec.image_key), get_all=True)
    slide.put(key, ShapesModel.parse(_squares(origins, spec, tissue), transformations=frames))
    slide.record_patches(key, asdict(spec))


def _squares(origins: NDArray[np.int64], spec: PatchSpec, tissue: NDArray[np.float64]) -> gpd.GeoDataFrame:
    """Geometry of patches, and the columns that every function reads."""
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
