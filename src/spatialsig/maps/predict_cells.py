"""Predicted scores of single cells.

Floor 8, above io, pl, pp, tl. Called as sp.tl.predict_cells; used by maps/evaluate_cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
from spatialdata.models import TableModel

from spatialsig import _keys
from spatialsig._arguments import Fraction, Key, NewKey, checked
from spatialsig.errors import InputError
from spatialsig.geometry.grid import points_in_patches
from spatialsig.maps.cell_places import CellPlaces, cell_places
from spatialsig.maps.dense import Dense
from spatialsig.maps.grid import Bins, lay_grid
from spatialsig.maps.sampling import sampled
from spatialsig.maps.signature_map import signature_map
from spatialsig.models.ensemble import SignatureModel, placed, weights_hash
from spatialsig.pp import find_nuclei
from spatialsig.pp._elements import to_image
from spatialsig.slide.added import check_added
from spatialsig.slide.coordinates import any_image_of, full_resolution
from spatialsig.slide.each import map_slides
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

DETECT = "detect"
PREDICTED, SKIPPED = "predicted", "skipped"
MAP, PATCH = "map", "patch"


@checked
def predict_cells(
    data: Data,
    model: SignatureModel,
    *,
    cells: Key | None = None,
    method: Literal["map", "patch"] = MAP,
    min_tissue: Fraction = 0.25,
    skip_done: bool = False,
    device: str | None = None,
    precision: Literal["32", "bf16"] = "32",
    table_key: Key = _keys.TABLE,
    map_key: NewKey = _keys.SIGNATURE_MAP,
    image_key: Key = _keys.IMAGE,
    patches_key: Key = _keys.PATCHES,
    key_added: NewKey = _keys.CELLS_PRED,
) -> pd.DataFrame:
    """Predict the scores of every cell from the H&E, by where its nucleus lies.

    What is predicted for a cell is the value of the map at its middle, beside it the score of the whole patch that holds the cell. The
    model has learned from patches, not from cells: how much the value of a cell says beyond that of its patch is measured by
    :func:`evaluate_cells` where cells were scored, and differs between signatures.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    model
        Trained model, or an ensemble of them.
    cells
        Shapes (polygons, circles or points) or labels of cells or nuclei: ``"nucleus_boundaries"`` of a Xenium bundle
        (``read_xenium(..., boundaries=True)``), or what StarDist, Cellpose, LazySlide or another tool left in the object, with a
        transformation to the H&E. ``None`` (default) takes the cells of the table, at their positions; ``"detect"`` takes
        ``shapes["nuclei"]``, which :func:`spatialsig.pp.find_nuclei` makes if they are not there.
    method
        ``"map"`` samples the map (linear between its px); ``"patch"`` gives every cell the score of the patch that holds it.
    min_tissue
        Smallest share of tissue in a patch, 0 to 1; cells on none are NaN.
    skip_done
        Leave slides alone whose table was made by the same weights of the same cells and is not stale.
    device
        Where the network computes; None takes ``sp.settings.device``.
    precision
        ``"32"``, or ``"bf16"`` for products in bfloat16.
    table_key
        Table of the cells, read where ``cells`` is None.
    map_key
        Map of :func:`signature_map`; drawn with its defaults where the slide has none by the same weights, or it is stale.
    image_key, patches_key
        H&E image; patches whose stain is used, as for :func:`signature_map`.
    key_added
        Name of the new table; one of that name is replaced.

    Returns
    -------
    One row per slide: ``sample``, ``outcome`` (``"predicted"`` or ``"skipped"``), ``n_cells``, ``n_predicted``.

    Writes ``tables[key_added]``, one row per cell, which annotates the cells' element: ``X`` predicted scores float32, NaN off
    the tissue; ``layers["patch"]`` the score of the patch that holds the cell; ``obs``: ``cell_id``, ``sample``, ``patient``,
    ``x_um``, ``y_um`` of the middle; ``obsm["spatial"]``, the same; ``uns["spatialsig"]["predict_cells"]``: method, cells, hash of
    the weights. With ``method="map"`` also the map, where it had to be drawn; with ``cells="detect"`` the nuclei.

    Raises
    ------
    KeyMissingError
        If cells, table or image do not exist.
    InputError
        If there are no cells, or as :func:`signature_map`.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> model = sp.datasets.toy_model(sdata)
    >>> sp.tl.predict_cells(sdata, model)["n_cells"].item() == len(sdata["table"])
    True
    >>> sdata["cells_pred"].var_names.tolist() == list(model.signatures)
    True
    """
    asked = _Asked(
        cells=cells, method=method, min_tissue=min_tissue, weights_sha256=weights_hash(model), precision=precision,
        table_key=table_key, map_key=map_key, image_key=image_key, patches_key=patches_key, key_added=key_added,
    )  # fmt: skip
    work = partial(_predict, model=model, asked=asked, skip_done=skip_done, device=device)
    return pd.DataFrame(map_slides(data, work, "cells"), columns=["sample", "outcome", "n_cells", "n_predicted"])


@dataclass(frozen=True)
class _Asked:
    """What decides the table, the same for all slides."""

    cells: str | None
    method: Literal["map", "patch"]
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
            "weights_sha256": self.weights_sha256, "image_key": self.image_key,
        }  # fmt: skip
        if self.method == MAP:
            drawn = slide.attrs.get("signature_map", {}).get(self.map_key, {})
            made |= {"map_key": self.map_key} | {name: drawn.get(name) for name in ("edges", "step") if name in drawn}
            made |= {"map_method": drawn["method"]} if "method" in drawn else {}
        return made


def _predict(
    slide: Slide, *, model: SignatureModel, asked: _Asked, skip_done: bool, device: str | None
) -> tuple[str, str, int, int]:
    check_added(slide, asked.key_added, made_by="tl.predict_cells")
    if skip_done and _is_done(slide, asked):
        table = slide.sdata.tables[asked.key_added]
        return slide.name, SKIPPED, table.n_obs, int(np.isfinite(np.asarray(table.X)).any(axis=1).sum())
    if asked.cells == DETECT and _keys.NUCLEI not in slide.sdata.shapes:
        find_nuclei(slide.path or slide.sdata, image_key=asked.image_key)
        slide = _again(slide)
    key = _keys.NUCLEI if asked.cells == DETECT else asked.cells
    places = cell_places(slide, key, table_key=asked.table_key, image_key=asked.image_key)
    with placed(model, device):
        of_patch, sources = _of_patches(slide, model, places, asked)
    values = of_patch
    if asked.method == MAP:
        slide = _with_map(slide, model, asked, device)
        values, sources = _of_map(slide, model, places, asked), (asked.map_key, *sources)
    table = _table(slide, places, values, of_patch, model)
    table.uns[_keys.NAMESPACE] = {"predict_cells": asked.record(slide)}
    slide.put(asked.key_added, table, made_by="tl.predict_cells", sources=[*places.sources, *sources])
    return slide.name, PREDICTED, len(values), int(np.isfinite(values).any(axis=1).sum())


def _is_done(slide: Slide, asked: _Asked) -> bool:
    key = asked.key_added
    if key not in slide.sdata.tables or any(slide.lineage.stale(key)) or slide.lineage.is_edited(key):
        return False
    return dict(slide.params(key).get("predict_cells", {})) == asked.record(slide)


def _again(slide: Slide) -> Slide:
    """The slide with what another function has written into its store."""
    from spatialsig.slide.slides import open_slides

    return slide if slide.path is None else next(open_slides(slide.path))


def _with_map(slide: Slide, model: SignatureModel, asked: _Asked, device: str | None) -> Slide:
    """The slide with a fresh map by these weights, drawn where it has none."""
    drawn = slide.attrs.get("signature_map", {}).get(asked.map_key, {})
    there = asked.map_key in slide.sdata.images and drawn.get("weights_sha256") == asked.weights_sha256
    if there and set(drawn["signatures"]) >= set(model.signatures) and not any(slide.lineage.stale(asked.map_key)):
        return slide
    signature_map(
        slide.path or slide.sdata, model, min_tissue=asked.min_tissue, device=device, precision=asked.precision,
        image_key=asked.image_key, patches_key=asked.patches_key, key_added=asked.map_key,
    )  # fmt: skip
    slide.changed()
    return _again(slide)


def _of_map(slide: Slide, model: SignatureModel, places: CellPlaces, asked: _Asked) -> NDArray[np.float32]:
    """Values of the map at the cells, ``(n, n_signatures)``."""
    level = full_resolution(any_image_of(slide, asked.map_key))
    names = list(map(str, level.coords["c"].values))
    inverse = np.linalg.inv(to_image(slide, asked.map_key, asked.image_key))
    xy = places.xy_px @ inverse[:2, :2].T + inverse[:2, 2]
    return sampled(level.data, xy)[:, [names.index(name) for name in model.signatures]]


def _of_patches(
    slide: Slide, model: SignatureModel, places: CellPlaces, asked: _Asked
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Score of the patch that holds each cell, of patches side by side, ``(n, n_signatures)``, and what they are made from."""
    grid = lay_grid(
        slide, model, Bins(1, 1), min_tissue=asked.min_tissue, tissue_key=None, image_key=asked.image_key,
        patches_key=asked.patches_key,
    )  # fmt: skip
    n = len(model.signatures)
    dense = Dense(grid, model, tuple(range(n)), by_place=False, precision=asked.precision)
    scores = np.empty((len(grid.patches), n), np.float32)
    for rows, values in dense.values():
        scores[rows] = values[:, :, 0, 0]
    holds = points_in_patches(places.xy_px, grid.patches.origins, size=grid.patches.spec.size_l0)
    first = np.full(len(places.xy_px), -1)
    held = np.diff(holds.indptr) > 0
    first[held] = holds.indices[holds.indptr[:-1][held]]
    out = scores[first]
    out[~held] = np.nan
    return out, grid.sources


def _table(
    slide: Slide, places: CellPlaces, values: NDArray[np.float32], of_patch: NDArray[np.float32], model: SignatureModel
) -> ad.AnnData:
    n = len(values)
    obs = pd.DataFrame(
        {
            _keys.REGION_KEY: pd.Categorical([places.region] * n),
            _keys.CELL_ID: places.cell_ids,
            places.instance_key: places.instances,
            _keys.SAMPLE: pd.Categorical([slide.name] * n),
            _keys.PATIENT: pd.Categorical([slide.patient] * n),
            "x_um": places.xy_um[:, 0],
            "y_um": places.xy_um[:, 1],
        },
        index=[str(number) for number in range(n)],
    )
    if not pd.Index(places.instances).is_unique:
        msg = f"slide {slide.name!r}: ids of the cells in {places.region!r} repeat; give every cell an id of its own."
        raise InputError(msg)
    table = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=list(model.signatures)), layers={PATCH: of_patch})
    table.obsm[_keys.SPATIAL] = places.xy_um
    return TableModel.parse(
        table,
        region=places.region,
        region_key=_keys.REGION_KEY,
        instance_key=places.instance_key,
        overwrite_metadata=True,
    )
