"""Rows of outside predictions laid on the patches of a slide: by id, by cell, or by where they lie.

Floor 11, above report. Used by referee/laid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.spatial import cKDTree

from spatialsig._checks import first_few
from spatialsig.errors import InputError
from spatialsig.geometry.grid import points_in_patches, shared_areas
from spatialsig.referee.columns import CELL, PATCH, PX, UM, Outside
from spatialsig.slide.coordinates import any_image_of, full_resolution, image_um_per_px, um_to_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.patches import Patches

ON_IMAGE = 0.99  # share of the rows that must lie on the H&E
KNOWN = 0.5  # share of the cells that must be among those of the slide
SAME = 0.02  # relative: squares of this size are those of the slide
NEAR = 0.1  # of an edge: a middle this far from that of a patch is its own
SAME_PLACE_PX = 1.5  # squares closer than this are one
COVERED = 0.5  # share of a patch that other squares must cover


@dataclass(frozen=True)
class Laid:
    """How rows of predictions lie on the patches."""

    weights: sparse.csr_matrix  # (n_patches, n_rows), each row sums to 1 or is empty
    how: str  # in words
    by: str  # "patch" or "cell"
    share_used: float  # of the rows, that lie on some patch

    def of_patches(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values ``(n_patches, k)`` of rows ``(n_rows, k)``; NaN where a patch has none."""
        known = np.isfinite(values)
        total = self.weights @ np.where(known, values, 0.0)
        weight = self.weights @ known.astype(np.float64)
        return np.asarray(np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 1e-9))


def lay(
    outside: Outside,
    patches: Patches,
    *,
    table_key: str,
    by: str | None,
    coordinates: str | None,
    size_um: float | None,
) -> Laid:
    """Find the patch of every row.

    Raises
    ------
    InputError
        If ids are not those of the slide, places lie beside it, or nothing says what the rows are.
    """
    by = by or outside.kind
    if outside.xy is not None and outside.kind != CELL:
        return _by_place(outside, patches, by or PATCH, coordinates, size_um)
    if outside.ids is None:
        msg = f"{outside.where}: {by} rows of slide {outside.sample!r} have neither ids nor places."
        raise InputError(msg)
    if by is None:
        by = CELL if _ids_of_cells(outside, patches, table_key)[1].mean() > KNOWN else PATCH
    return _by_cell(outside, patches, table_key) if by == CELL else _by_id(outside, patches)


def _ids(outside: Outside) -> pd.Index:
    return pd.Index([]) if outside.ids is None else outside.ids


def _by_id(outside: Outside, patches: Patches) -> Laid:
    ids = _as_ids(_ids(outside), patches)
    rows = patches.ids.get_indexer(ids)
    if (rows < 0).any():
        unknown = [str(one) for one in outside.ids[rows < 0]] if outside.ids is not None else []
        msg = (
            f"{outside.where}: {len(unknown)} of {len(ids)} rows name patches that slide {outside.sample!r} does not have "
            f"({first_few(unknown)}); it has {patches.ids.min()} to {patches.ids.max()} in {patches.key!r}. Predict the patches of "
            "this store, or give places (x_um, y_um) in the place of ids."
        )
        raise InputError(msg)
    if not ids.is_unique:
        repeated = ids[ids.duplicated()].unique()
        msg = f"{outside.where}: patch {str(repeated[0])!r} of slide {outside.sample!r} has several rows ({len(repeated)} such); wanted one each."
        raise InputError(msg)
    return Laid(_matrix(rows, np.arange(len(rows)), np.ones(len(rows)), patches, len(rows)), "by patch id", PATCH, 1.0)


def _as_ids(ids: pd.Index, patches: Patches) -> pd.Index:
    """Ids as the patches have them: numbers also where they are text, with or without the name of the slide before them."""
    if not pd.api.types.is_numeric_dtype(patches.ids):
        return ids.astype(str)
    if pd.api.types.is_numeric_dtype(ids):
        return ids
    bare = ids.astype(str).str.removeprefix(f"{patches.slide.name}-")
    numbers = pd.to_numeric(pd.Series(bare), errors="coerce").to_numpy()
    return ids if np.isnan(numbers).all() else pd.Index(numbers)


def _ids_of_cells(outside: Outside, patches: Patches, table_key: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Row of the table of cells for each prediction, and whether it is there."""
    table = patches.slide.table(table_key)
    key = table.uns.get("spatialdata_attrs", {}).get("instance_key")
    own = pd.Index(table.obs[key] if key in table.obs else table.obs_names).astype(str)
    ids = _ids(outside).astype(str)
    rows = own.get_indexer(ids) if own.is_unique else np.full(len(ids), -1)
    if not (rows >= 0).any() and table.obs_names.is_unique:
        rows = table.obs_names.astype(str).get_indexer(ids)
    return np.asarray(rows, np.int64), np.asarray(rows >= 0)


def _by_cell(outside: Outside, patches: Patches, table_key: str) -> Laid:
    rows, known = _ids_of_cells(outside, patches, table_key)
    if known.mean() < KNOWN:
        table = patches.slide.table(table_key)
        msg = (
            f"{outside.where}: {int(known.sum())} of {len(rows)} cell ids ({first_few(list(map(str, _ids(outside)[:3])))}) are "
            f"among the cells of slide {outside.sample!r} ({first_few(list(map(str, table.obs_names[:3])))}); wanted at least "
            f"{KNOWN:.0%}. Give places (x_um, y_um) in the place of ids, with `by='cell'`."
        )
        raise InputError(msg)
    if len(np.unique(rows[known])) < known.sum():
        msg = f"{outside.where}: some cells of slide {outside.sample!r} have several rows; wanted one each."
        raise InputError(msg)
    membership = sparse.csr_matrix(patches.membership(table_key))[rows[known]].tocoo()
    weights = _matrix(
        membership.col, np.flatnonzero(known)[membership.row], np.ones(membership.nnz), patches, len(rows)
    )
    return Laid(_normalised(weights), "cells by id, averaged over each patch", CELL, float(known.mean()))


def _by_place(outside: Outside, patches: Patches, by: str, coordinates: str | None, size_um: float | None) -> Laid:
    xy, unit = _in_px(outside, patches, coordinates)
    edge = _edge(outside, patches, unit, size_um)
    if by == CELL:
        inside = points_in_patches(xy, patches.origins, size=patches.spec.size_l0).tocoo()
        weights = _matrix(inside.col, inside.row, np.ones(inside.nnz), patches, len(xy))
        return _used(_normalised(weights), "cells by place, averaged over each patch", CELL, outside)
    ours = float(patches.spec.size_l0)
    if outside.corners:
        xy = xy + (edge or ours) / 2
    _refuse_repeated(outside, xy)
    distance, nearest = cKDTree(patches.centres_px).query(xy, p=np.inf)
    if (edge is None or abs(edge / ours - 1) < SAME) and np.median(distance) <= NEAR * ours:
        close = distance <= patches.spec.stride_l0 / 2
        order = np.flatnonzero(close)[np.argsort(distance[close], kind="stable")]
        first = order[np.unique(nearest[order], return_index=True)[1]]  # the nearest row of each patch
        weights = _matrix(nearest[first], first, np.ones(len(first)), patches, len(xy))
        return _used(weights, "squares of the same grid, by place", PATCH, outside)
    edge = _spacing(xy) if edge is None else edge
    said = f"squares of {edge * image_um_per_px(patches.slide, patches.spec.image_key):.3g} um, by the area they share with each patch"
    return _used(_by_area(xy, edge, patches), said, PATCH, outside)


def _refuse_repeated(outside: Outside, xy: NDArray[np.float64]) -> None:
    """Squares at one place, as in two tables that were appended: their mean would be judged."""
    near = cKDTree(xy).query_pairs(SAME_PLACE_PX)
    if near:
        row, other = sorted(near)[0]
        x, y = outside.xy[row] if outside.xy is not None else xy[row]
        msg = (
            f"{outside.where}: several rows of slide {outside.sample!r} lie at one place ({len(near)} pairs, the first of rows {row} and "
            f"{other} at {x:.6g}, {y:.6g}); wanted one each."
        )
        raise InputError(msg)


def _edge(outside: Outside, patches: Patches, unit: str, size_um: float | None) -> float | None:
    """Edge of their squares, px; None where nothing says it."""
    um_per_px = image_um_per_px(patches.slide, patches.spec.image_key)
    if size_um is not None:
        return size_um / um_per_px
    if outside.size is None:
        return None
    return outside.size / um_per_px if unit == UM else outside.size


def _in_px(outside: Outside, patches: Patches, coordinates: str | None) -> tuple[NDArray[np.float64], str]:
    """Places in px of the H&E, and the unit they were in; refused where they do not lie on the image in it."""
    xy = np.asarray(outside.xy, np.float64)
    slide, image_key = patches.slide, patches.spec.image_key
    readings = {UM: um_to_image(slide, image_key, xy), PX: xy}
    on = {unit: _on_image(patches, places) for unit, places in readings.items()}
    stated = coordinates or outside.frame
    if stated is None:
        near = {unit: _off_grid(patches, places) for unit, places in readings.items() if on[unit] >= ON_IMAGE}
        stated = min(near, key=lambda unit: near[unit], default=UM)
    if on[stated] < ON_IMAGE:
        other = PX if stated == UM else UM
        low, high = np.nanmin(xy, axis=0), np.nanmax(xy, axis=0)
        sizes = full_resolution(any_image_of(slide, image_key)).sizes
        hint = f" As {other} {on[other]:.0%} do: pass `coordinates={other!r}`." if on[other] >= ON_IMAGE else ""
        msg = (
            f"{outside.where}: {on[stated]:.0%} of the places (x {low[0]:.4g} to {high[0]:.4g}, y {low[1]:.4g} to {high[1]:.4g} {stated}) "
            f"lie on the H&E of slide {outside.sample!r} ({sizes['x']} x {sizes['y']} px of "
            f"{image_um_per_px(slide, image_key):.4g} um); wanted {ON_IMAGE:.0%}.{hint} Are they those of another slide?"
        )
        raise InputError(msg)
    return readings[stated], stated


def _on_image(patches: Patches, xy: NDArray[np.float64]) -> float:
    sizes = full_resolution(any_image_of(patches.slide, patches.spec.image_key)).sizes
    slack = patches.spec.size_l0 / 2
    inside = (xy >= -slack) & (xy <= np.array([sizes["x"], sizes["y"]]) + slack)
    return float(inside.all(axis=1).mean())


def _off_grid(patches: Patches, xy: NDArray[np.float64]) -> float:
    """How far the patches lie from the nearest row, px: few of those in another unit lie near all patches."""
    return float(np.mean(cKDTree(xy).query(patches.centres_px, p=np.inf)[0]))


def _spacing(xy: NDArray[np.float64]) -> float:
    """Distance from a row to the next: the edge of squares that tile."""
    return float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1])) if len(xy) > 1 else np.inf


def _by_area(xy: NDArray[np.float64], edge: float, patches: Patches) -> sparse.csr_matrix:
    """Weights by the area that squares around ``xy`` share with each patch; none where they cover too little of it."""
    ours = float(patches.spec.size_l0)
    weights = shared_areas(patches.centres_px, ours, xy, edge)
    enough = np.asarray(weights.sum(axis=1)).ravel() >= COVERED * ours**2
    return _normalised(sparse.csr_matrix(sparse.diags(enough.astype(np.float64)) @ weights))


def _matrix(
    patch: NDArray[Any], row: NDArray[Any], weight: NDArray[Any], patches: Patches, n_rows: int
) -> sparse.csr_matrix:
    return sparse.csr_matrix((weight.astype(np.float64), (patch, row)), shape=(len(patches), n_rows))


def _normalised(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    total = np.asarray(weights.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sparse.csr_matrix(sparse.diags(scale) @ weights)


def _used(weights: sparse.csr_matrix, how: str, by: str, outside: Outside) -> Laid:
    used = float((weights.tocsc().getnnz(axis=0) > 0).mean())
    if not weights.nnz:
        msg = f"{outside.where}: no place lies on a patch of slide {outside.sample!r}; are they those of another slide, or in another unit?"
        raise InputError(msg)
    return Laid(weights, how, by, used)
