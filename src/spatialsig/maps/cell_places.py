"""Where the cells of a slide lie on its H&E: of its table, of shapes, or of labels that any tool made.

Floor 8, above io, pl, pp, tl. Used by 4 modules of maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
from spatialdata.models import TableModel

from spatialsig import _keys
from spatialsig._checks import did_you_mean
from spatialsig._text import as_name
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.geometry.affine import apply
from spatialsig.pp._elements import check_outlines, geometries_on_image, to_image
from spatialsig.slide.coordinates import full_resolution, image_to_um, positions, um_to_image
from spatialsig.slide.parts import with_place
from spatialsig.store.stored.damage import computed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

STRIP_ROWS = 2048  # of labels, decoded at once

OF_BUNDLES = (  # outlines that a bundle holds, and nobody reads unasked
    "; those of a bundle are read by `sp.io.read_xenium(..., boundaries=True)`, `sp.Cohort.from_bundles(..., boundaries=True)` or "
    "`spatialsig import --boundaries`"
)


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
        f"{did_you_mean(cells, available)} `sp.pp.find_nuclei` finds nuclei where nobody has{OF_BUNDLES if 'boundaries' in cells else ''}; None takes the cells of the table."
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
    check_outlines(slide, key)
    middles = shapely.centroid(geometries_on_image(slide, key, image_key))
    xy = np.stack([shapely.get_x(middles), shapely.get_y(middles)], axis=1)
    return _placed(slide, image_key, key, np.asarray(shapes.index), _names(slide, key), xy)


def _names(slide: Slide, key: str) -> NDArray[Any]:
    """Ids by which shapes are cells of another table, as text: of their column, else their index."""
    shapes = slide.sdata.shapes[key]
    if _keys.CELL_ID not in shapes:
        return np.asarray(shapes.index).astype(str)
    named = shapes[_keys.CELL_ID]
    if named.isna().any():
        msg = (
            f"slide {slide.name!r}: column {_keys.CELL_ID!r} of shapes {key!r} is missing in {int(named.isna().sum())} of "
            f"{len(named)} rows; give every cell its id, or drop the column, whose place the index then takes."
        )
        raise InputError(msg)
    return np.array([as_name(one) for one in named])


def _of_labels(slide: Slide, key: str, image_key: str) -> CellPlaces:
    level = full_resolution(slide.sdata.labels[key])
    sums = []
    for start in range(0, level.sizes["y"], STRIP_ROWS):  # one strip after another
        strip = np.asarray(computed(level[start : start + STRIP_ROWS]))
        y, x = np.nonzero(strip)
        code, label = pd.factorize(strip[y, x])
        n = np.bincount(code)
        parts = {"n": n, "x": np.bincount(code, x + 0.5), "y": np.bincount(code, y + start + 0.5)}
        sums.append(pd.DataFrame(parts, index=label))
    total = pd.concat(sums).groupby(level=0).sum()
    if not len(total):
        msg = f"slide {slide.name!r}: labels {key!r} are 0 everywhere: there are no cells."
        raise InputError(msg)
    ids = np.asarray(total.index)
    if ids[0] < 0 or ids[-1] > np.iinfo(np.int64).max:
        wrong = ids[0] if ids[0] < 0 else ids[-1]
        msg = f"slide {slide.name!r}: labels {key!r} hold {wrong}; wanted 0 for what is no cell, and ids from 1 to 2^63 - 1."
        raise InputError(msg)
    xy = apply(to_image(slide, key, image_key), total[["x", "y"]].to_numpy() / total[["n"]].to_numpy())
    return _placed(slide, image_key, key, ids.astype(np.int64), ids.astype(str), xy)


def _placed(
    slide: Slide, image_key: str, key: str, instances: NDArray[Any], ids: NDArray[Any], xy_px: NDArray[np.float64]
) -> CellPlaces:
    xy_um = apply(image_to_um(slide, image_key), xy_px)
    return CellPlaces(key, "instance_id", instances, ids, xy_px, xy_um, tuple(with_place(key)))
