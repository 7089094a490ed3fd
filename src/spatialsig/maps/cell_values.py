"""Values of the cells of one slide: by a head, of a map, of the patches that hold them.

Floor 8, above io, pl, pp, tl. Used by maps/evaluate_cells, maps/predict_cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spatialsig.geometry.grid import points_in_patches
from spatialsig.inference.domain import DomainWatch
from spatialsig.maps.dense import Dense
from spatialsig.maps.grid import HALF, Bins, lay_grid
from spatialsig.maps.nucleus_features import nucleus_features
from spatialsig.maps.sampling import sampled
from spatialsig.pp._elements import to_image
from spatialsig.slide.coordinates import any_image_of, full_resolution

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.maps.cell_places import CellPlaces
    from spatialsig.models.cell_head import CellHead
    from spatialsig.models.domain import OutOfDomain
    from spatialsig.models.ensemble import SignatureModel
    from spatialsig.slide.slides import Slide

HEAD, MAP, PATCH = "head", "map", "patch"


@dataclass(frozen=True)
class Asked:
    """What decides the table, the same for all slides."""

    cells: str | None
    method: str
    head: CellHead | None
    min_tissue: float
    weights_sha256: str
    precision: Literal["32", "bf16"]
    table_key: str
    map_key: str
    image_key: str
    patches_key: str
    key_added: str

    def record(self, slide: Slide) -> dict[str, Any]:
        """What a table must have been made by to be the same; of a map, also the bins of it."""
        made = {
            "cells": self.cells or "", "method": self.method, "min_tissue": self.min_tissue, "precision": self.precision,
            "weights_sha256": self.weights_sha256, "image_key": self.image_key, "patches_key": self.patches_key,
        }  # fmt: skip
        if self.cells is None:
            made["table_key"] = self.table_key
        if self.head is not None and self.method == HEAD:
            made["head_sha256"] = self.head.sha256
        if self.method == MAP:
            drawn = slide.attrs.get("signature_map", {}).get(self.map_key, {})
            made |= {"map_key": self.map_key} | {name: drawn.get(name) for name in ("edges", "step") if name in drawn}
            made |= {"map_method": drawn["method"]} if "method" in drawn else {}
        return made


def of_head(slide: Slide, model: SignatureModel, places: CellPlaces, asked: Asked) -> NDArray[np.float32]:
    """What the head says of every nucleus, ``(n, n_signatures)``."""
    grid = lay_grid(
        slide, model, HALF, min_tissue=asked.min_tissue, tissue_key=None, image_key=asked.image_key,
        patches_key=asked.patches_key,
    )  # fmt: skip
    out = np.full((len(places.xy_px), len(model.signatures)), np.nan, np.float32)
    if asked.head is not None:
        for rows, features in nucleus_features(grid, model, places, precision=asked.precision):
            out[rows] = asked.head.predict(features)
    return out


def of_map(slide: Slide, model: SignatureModel, places: CellPlaces, asked: Asked) -> NDArray[np.float32]:
    """Values of the map at the cells, ``(n, n_signatures)``."""
    level = full_resolution(any_image_of(slide, asked.map_key))
    names = list(map(str, level.coords["c"].values))
    inverse = np.linalg.inv(to_image(slide, asked.map_key, asked.image_key))
    xy = places.xy_px @ inverse[:2, :2].T + inverse[:2, 2]
    return sampled(level.data, xy)[:, [names.index(name) for name in model.signatures]]


@dataclass(frozen=True)
class OfPatches:
    """What the patches say that hold the cells of a slide."""

    scores: NDArray[np.float32]  # (n, n_signatures), NaN off the patches
    ood: NDArray[np.float32] | None  # (n,), of the patch of each; None where the model does not know
    sources: tuple[str, ...]
    domain: OutOfDomain | None


def of_patches(slide: Slide, model: SignatureModel, places: CellPlaces, asked: Asked) -> OfPatches:
    """Score of the patch that holds each cell, of patches side by side, and how far that lies from what the model learned from."""
    grid = lay_grid(
        slide, model, Bins(1, 1), min_tissue=asked.min_tissue, tissue_key=None, image_key=asked.image_key,
        patches_key=asked.patches_key,
    )  # fmt: skip
    n = len(model.signatures)
    watch = DomainWatch(model, len(grid.patches), n_views=1, with_expression=False)
    dense = Dense(grid, model, tuple(range(n)), by_place=False, precision=asked.precision, watch=watch)
    scores = np.empty((len(grid.patches), n), np.float32)
    for rows, values in dense.values():
        scores[rows] = values[:, :, 0, 0]
    holds = points_in_patches(places.xy_px, grid.patches.origins, size=grid.patches.spec.size_l0)
    first = np.full(len(places.xy_px), -1)
    held = np.diff(holds.indptr) > 0
    first[held] = holds.indices[holds.indptr[:-1][held]]
    out = scores[first]
    out[~held] = np.nan
    found = watch.result()
    ood = None if found is None else np.where(held, found.ood[first], np.float32(np.nan))
    return OfPatches(out, ood, grid.sources, found)
