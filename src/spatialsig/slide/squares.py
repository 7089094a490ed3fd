"""The element of the patches of a slide: one square for each, and the columns that every function reads.

Floor 4, above train. Used by io/_read_seed_layout, pp/_elements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import shapely
from spatialdata.models import ShapesModel

from spatialsig import _keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from spatialdata.transformations import BaseTransformation

    from spatialsig.slide.records import PatchSpec


def patch_squares(
    origins: NDArray[np.int64],
    spec: PatchSpec,
    tissue: NDArray[np.float64],
    transformations: Mapping[str, BaseTransformation],
) -> gpd.GeoDataFrame:
    """Squares of patches with corners ``(n, 2)`` (y0, x0, level-0 px) and their share of tissue, in the frames of their image."""
    y0, x0 = origins.T
    columns = {
        "geometry": shapely.box(x0, y0, x0 + spec.size_l0, y0 + spec.size_l0),
        _keys.Y0: y0,
        _keys.X0: x0,
        _keys.ROW: y0 // spec.stride_l0,
        _keys.COL: x0 // spec.stride_l0,
        _keys.TISSUE_FRACTION: tissue,
    }
    return ShapesModel.parse(gpd.GeoDataFrame(columns, geometry="geometry"), transformations=dict(transformations))
