"""Which measured cell a nucleus belongs to.

Floor 8, above io, pl, pp, tl. Used by maps/evaluate_cells, maps/train_cell_head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from spatialsig import _keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

REACH_UM = 5.0  # a nucleus of another segmentation is that of a cell whose middle lies so near
ENOUGH = 0.5  # share of the nuclei whose ids are those of measured cells, else they are matched by place


def measured_rows(
    slide: Slide, table_key: str, xy: NDArray[np.float64], *, ids: NDArray[Any], xy_um: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Row of the measured cell that each nucleus is of, -1 for none: by id, or the nearest.

    Ids of two segmentations that number their cells from 1 on are alike and mean nothing: they count where places agree.

    Parameters
    ----------
    xy
        Positions of the measured cells, µm.
    ids, xy_um
        Ids (text) and places of the nuclei, µm.
    """
    table = slide.table(table_key)
    key = table.uns.get("spatialdata_attrs", {}).get("instance_key", _keys.CELL_ID)
    own = pd.Index(np.asarray(table.obs[key]).astype(str)) if key in table.obs else pd.Index([])
    if own.is_unique and len(own):
        rows = np.asarray(own.get_indexer(pd.Index(ids)), np.int64)
        known = rows >= 0
        if known.mean() >= ENOUGH and _side_by_side(xy[rows[known]], xy_um[known]):
            return rows
    there = np.flatnonzero(np.isfinite(xy).all(axis=1))
    distance, nearest = cKDTree(xy[there]).query(xy_um, distance_upper_bound=REACH_UM)
    return np.where(np.isfinite(distance), there[np.minimum(nearest, len(there) - 1)], -1)


def _side_by_side(xy: NDArray[np.float64], xy_um: NDArray[np.float64]) -> bool:
    """Whether most of two lists of places lie in reach of each other."""
    apart = np.linalg.norm(xy - xy_um, axis=1)
    apart = apart[np.isfinite(apart)]
    return bool(len(apart)) and float(np.median(apart)) <= REACH_UM
