"""Where the cells of a slide lie on its H&E: of its table, of shapes, or of labels that any tool made.

Floor 8, above io, pl, pp, tl. Used by 4 modules of maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from spatialdata.models import TableModel

from spatialsig import _keys
from spatialsig._checks import did_you_mean
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.geometry.affine import apply
from spatialsig.pp._elements import geometries_on_image, to_image
from spatialsig.slide.coordinates import full_resolution, image_to_um, positions, um_to_image
from spatialsig.store.stored.damage import computed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

STRIP_ROWS = 2048  # of labels, decoded at once


@dataclass(frozen=True)
class CellPlaces:
    """Cells, or nuclei, and where their middles lie."""

    region: str  # element that a table of them annotates
    instance_key: str  # column of the table with the ids of the element
    instances: NDArray[Any]  # (n,)
    cell_ids: NDArray[
        Any
    ]  # (n,) text, by which they are cells of another table; the instances where nothing else is said
    xy_px: NDArray[np.float64]  # (n, 2) x, y, level-0 px of the H&E
    xy_um: NDArray[np.float64]
    sources: tuple[str, ...]  # parts of the slide that say where they lie


def cell_places(slide: Slide, cells: str | None, *, table_key: str, image_key: str) -> CellPlaces:
    """Cells of the table (``cells`` None), or of a shapes or labels element.

    Raises
    ------
    KeyMissingError
        If there is no such element or table.
    InputError
        If it holds nothing.
    """
    if cells is None:
        return _of_table(slide, table_key, image_key)
    if cells in slide.sdata.shapes:
        return _of_shapes(slide, cells, image_key)
    if cells in slide.sdata.labels:
        return _of_labels(slide, cells, image_key)
    available = sorted([*slide.sdata.shapes, *slide.sdata.labels])
    msg = (
        f"`cells={cells!r}` is in neither the shapes nor the labels of slide {slide.name!r}; available: {available}."
        f"{did_you_mean(cells, available)} `sp.pp.find_nuclei` finds nuclei where nobody has; None takes the cells of the table."
    )
    raise KeyMissingError(msg)


def _of_table(slide: Slide, table_key: str, image_key: str) -> CellPlaces:
    table = slide.table(table_key, fix="Give `cells` an element with cells, or call `sp.pp.find_nuclei`.")
    said = table.uns.get(TableModel.ATTRS_KEY, {})
    region, key = said.get(TableModel.REGION_KEY), said.get(TableModel.INSTANCE_KEY)
    if not isinstance(region, str) or key is None or region not in [*slide.sdata.shapes, *slide.sdata.labels]:
        msg = (
            f"slide {slide.name!r}: table {table_key!r} annotates {region!r}, which is no element of the slide, so that a table of its "
            "cells has nothing to annotate; give `cells` the shapes or labels of the cells."
        )
        raise InputError(msg)
    xy = positions(slide, table_key)
    there = np.isfinite(xy).all(axis=1)
    ids = np.asarray(table.obs[key])[there]
    sources = (f"{table_key}/obsm/{_keys.SPATIAL}",)
    return CellPlaces(region, key, ids, ids.astype(str), um_to_image(slide, image_key, xy[there]), xy[there], sources)


def _of_shapes(slide: Slide, key: str, image_key: str) -> CellPlaces:
    shapes = slide.sdata.shapes[key]
    if not len(shapes):
        msg = f"slide {slide.name!r}: shapes {key!r} are empty: there are no cells."
        raise InputError(msg)
    slide.lineage.check(key)
    geometries = geometries_on_image(slide, key, image_key)
    xy = shapely.get_coordinates(shapely.centroid(geometries))
    named = shapes[_keys.CELL_ID] if _keys.CELL_ID in shapes else shapes.index
    return _placed(slide, image_key, key, np.asarray(shapes.index), np.asarray(named).astype(str), xy)


def _of_labels(slide: Slide, key: str, image_key: str) -> CellPlaces:
    level = full_resolution(slide.sdata.labels[key])
    n, total = np.zeros(0), np.zeros((2, 0))
    for start in range(0, level.sizes["y"], STRIP_ROWS):  # sums of one strip after another
        strip = np.asarray(computed(level[start : start + STRIP_ROWS]))
        y, x = np.nonzero(strip)
        label = strip[y, x].astype(np.int64)
        size = max(len(n), int(label.max(initial=0)) + 1)
        n, total = np.pad(n, (0, size - len(n))), np.pad(total, ((0, 0), (0, size - total.shape[1])))
        n += np.bincount(label, minlength=size)
        total[0] += np.bincount(label, x + 0.5, minlength=size)
        total[1] += np.bincount(label, y + start + 0.5, minlength=size)
    ids = np.flatnonzero(n)
    if not len(ids):
        msg = f"slide {slide.name!r}: labels {key!r} are 0 everywhere: there are no cells."
        raise InputError(msg)
    xy = apply(to_image(slide, key, image_key), (total[:, ids] / n[ids]).T)
    return _placed(slide, image_key, key, ids, ids.astype(str), xy)


def _placed(
    slide: Slide, image_key: str, key: str, instances: NDArray[Any], ids: NDArray[Any], xy_px: NDArray[np.float64]
) -> CellPlaces:
    xy_um = apply(image_to_um(slide, image_key), xy_px)
    return CellPlaces(key, "instance_id", instances, ids, xy_px, xy_um, (key,))
