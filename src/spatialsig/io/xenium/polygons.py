"""Outlines of cells and nuclei, read from the polygon sets of ``cells.zarr.zip`` (Atera has no other copy).

Floor 7, above evaluation. Used by io/xenium/extras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from geopandas import GeoDataFrame
from shapely import GeometryType, from_ragged_array
from spatialdata.models import ShapesModel
from spatialdata.transformations import Scale

from spatialsig import _keys
from spatialsig._checks import warn
from spatialsig.errors import InputError
from spatialsig.io.xenium.counts import refuse
from spatialsig.io.xenium.segmentation import cell_names
from spatialsig.io.xenium.zipped import check_names, open_zip

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_NUCLEI, _CELLS = "0", "1"
_FIELDS = ("vertices", "num_vertices", "cell_index")
_FEWEST = 3  # vertices of an outline
_BESIDE_UM = 1.0  # how far from its outline the centroid of a cell may lie
_MAX_BESIDE = 0.01


def read_outlines(file: Path, centres: pd.DataFrame, *, pixel_size: float) -> tuple[GeoDataFrame, GeoDataFrame]:
    """Read the outlines of cells, indexed by cell id, and of nuclei, with their cell in the column ``cell_id``; in um.

    A cell may have no nucleus, or several. ``centres`` are the centroids (x, y) by cell id, um. Raises
    :class:`InputError` if the file is damaged or its outlines lie elsewhere than the cells they are said to be of.
    """
    with open_zip(file) as group:
        check_names(file)
        names = cell_names(np.asarray(group["cell_id"][...]))
        cells, owners, n_lost = _outlines(file, group["polygon_sets"], _CELLS, names)
        nuclei, owners_of_nuclei, n_lost_nuclei = _outlines(file, group["polygon_sets"], _NUCLEI, names)
    if n_lost or n_lost_nuclei:
        msg = (
            f"{n_lost} outlines of cells and {n_lost_nuclei} of nuclei in {str(file)!r} have less than {_FEWEST} vertices "
            f"and are left out."
        )
        warn(msg)
    _check_places(file, cells, owners, centres)
    index = pd.Index(owners.astype(object), name=_keys.CELL_ID)
    columns = {_keys.CELL_ID: owners_of_nuclei.astype(object), "geometry": nuclei}
    frames = GeoDataFrame({"geometry": cells}, index=index), GeoDataFrame(columns, index=np.arange(1, len(nuclei) + 1))
    scale = Scale([1 / pixel_size] * 2, axes=("x", "y"))
    one, two = (ShapesModel.parse(frame, transformations={_keys.GLOBAL: scale}) for frame in frames)
    return one, two


def _outlines(
    file: Path, sets: Any, number: str, names: NDArray[np.str_]
) -> tuple[NDArray[np.object_], NDArray[np.str_], int]:
    """Polygons of one set, the cell of each, and how many have no area."""
    vertices, counts, owner = (np.asarray(sets[number][name][...]) for name in _FIELDS)
    where = f"in /polygon_sets/{number}"
    if vertices.ndim != 2 or not len(vertices) == len(counts) == len(owner):
        refuse(file, f"has {vertices.shape} vertices, {len(counts)} counts and {len(owner)} owners {where}")
    if len(owner) and not 0 <= int(owner.min()) <= int(owner.max()) < len(names):
        refuse(
            file,
            f"has outlines of cells {int(owner.min())} to {int(owner.max())} {where}, out of range for {len(names)}",
        )
    if len(counts) and not 0 <= int(counts.min()) <= int(counts.max()) <= vertices.shape[1] // 2:
        refuse(
            file, f"has {int(counts.min())} to {int(counts.max())} vertices per outline {where}, more than there are"
        )
    whole = counts >= _FEWEST
    vertices, counts, owner = vertices[whole].astype(np.float64), counts[whole].astype(np.int64), owner[whole]
    used = np.arange(vertices.shape[1] // 2) < counts[:, None]
    points = vertices[:, : 2 * used.shape[1]].reshape(len(counts), -1, 2)[used]
    if not np.isfinite(points).all():
        refuse(file, f"has {int((~np.isfinite(points)).any(axis=1).sum())} vertices {where} that are not finite")
    ends = np.concatenate([[0], np.cumsum(counts)])
    polygons = from_ragged_array(GeometryType.POLYGON, points, offsets=(ends, np.arange(len(counts) + 1)))
    return polygons, names[owner], int((~whole).sum())


def _check_places(file: Path, outlines: NDArray[np.object_], owners: NDArray[np.str_], centres: pd.DataFrame) -> None:
    """Refuse outlines that do not lie around the centroids of their cells."""
    own = centres.reindex(owners).to_numpy(float)
    known = np.isfinite(own).all(axis=1)
    bounds = GeoDataFrame(geometry=outlines).bounds.to_numpy()
    outside = (own < bounds[:, :2] - _BESIDE_UM) | (own > bounds[:, 2:] + _BESIDE_UM)
    n_outside = int((outside.any(axis=1) & known).sum())
    if n_outside > _MAX_BESIDE * int(known.sum()):
        msg = (
            f"{n_outside} of {int(known.sum())} outlines in {str(file)!r} do not lie around the centroids of the cells "
            f"they belong to: take all files from one bundle, or read without `boundaries`."
        )
        raise InputError(msg)
