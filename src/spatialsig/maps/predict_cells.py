"""Predicted scores of single cells.

Floor 8, above io, pl, pp, tl. Called as sp.tl.predict_cells.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import anndata as ad
import numpy as np
import pandas as pd
from spatialdata.models import TableModel

from spatialsig import _keys
from spatialsig._arguments import Fraction, Key, NewKey, checked
from spatialsig.errors import InputError
from spatialsig.inference.domain import warn_of_slide
from spatialsig.inference.held_out import LEARNED, learned_from
from spatialsig.inference.inputs import check_reads_images
from spatialsig.maps.cell_places import CellPlaces, cell_places
from spatialsig.maps.cell_values import HEAD, MAP, PATCH, Asked, OfPatches, of_head, of_map, of_patches
from spatialsig.maps.signature_map import usual_map
from spatialsig.models.cell_head import CellHead
from spatialsig.models.ensemble import SignatureModel, placed, weights_hash
from spatialsig.pp import find_nuclei
from spatialsig.slide.added import check_added
from spatialsig.slide.each import map_slides
from spatialsig.slide.roles import explained, with_cells
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

DETECT = "detect"
PREDICTED, SKIPPED = "predicted", "skipped"


@checked
def predict_cells(
    data: Data,
    model: SignatureModel,
    *,
    cells: Key | None = None,
    head: CellHead | None = None,
    method: Literal["head", "map", "patch"] | None = None,
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

    With a ``head`` (:func:`train_cell_head`), which has learned from scored cells, what the network sees of the nucleus itself counts;
    without one, a cell has the value of the map at its middle, and the model has learned from patches only. Beside it stands the score
    of the whole patch that holds the cell. How much the value of a cell says beyond that of its patch is measured by
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
        transformation to the H&E. ``None`` (default) takes the cells of the table, at their positions (slides of a cohort that are an
        H&E alone are passed over); ``"detect"`` takes
        ``shapes["nuclei"]``, which :func:`spatialsig.pp.find_nuclei` makes if they are not there.
    head
        Head of :func:`train_cell_head` for this model.
    method
        None takes ``"head"`` where one is given, else ``"map"``. ``"map"`` samples the map (linear between its px); ``"patch"`` gives every cell the score of the patch that holds it.
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
        Map of :func:`signature_map`; drawn with its defaults where the slide has none by the same weights of the same image and
        stain, in the same precision, or it is stale.
    image_key, patches_key
        H&E image; patches whose stain is used, as for :func:`signature_map`.
    key_added
        Name of the new table; one of that name is replaced.

    Returns
    -------
    One row per slide: ``sample``, ``outcome`` (``"predicted"`` or ``"skipped"``), ``n_cells``, ``n_predicted``.

    Writes ``tables[key_added]``, one row per cell, which annotates the cells' element: ``X`` predicted scores float32, NaN off
    the tissue; ``layers["patch"]`` the score of the patch that holds the cell; ``obs``: ``cell_id``, ``sample``, ``patient``,
    ``x_um``, ``y_um`` of the middle, ``ood`` of its patch (how far that lies from what the model learned from, as of
    :func:`predict`); ``obsm["spatial"]``, the same; ``uns["spatialsig"]["predict_cells"]``: method, cells, hash of
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
    check_reads_images(model)
    asked = Asked(
        cells=cells, method=_method(model, head, method), head=head, min_tissue=min_tissue, weights_sha256=weights_hash(model), precision=precision,
        table_key=table_key, map_key=map_key, image_key=image_key, patches_key=patches_key, key_added=key_added,
    )  # fmt: skip
    work = partial(_predict, model=model, asked=asked, skip_done=skip_done, device=device)
    columns = ["sample", "outcome", "n_cells", "n_predicted"]
    if cells is not None:
        return pd.DataFrame(map_slides(data, work, "cells"), columns=columns)
    with explained(data, "predict_cells"):  # the cells of the table: an H&E alone has none
        return pd.DataFrame(map_slides(with_cells(data, told_by="predict_cells"), work, "cells"), columns=columns)


def _predict(
    slide: Slide, *, model: SignatureModel, asked: Asked, skip_done: bool, device: str | None
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
        patch = of_patches(slide, model, places, asked)
        values, sources = patch.scores, patch.sources
        values = values if asked.method != HEAD else of_head(slide, model, places, asked)
    if asked.method == MAP:
        slide = _with_map(slide, model, asked, device)
        values, sources = of_map(slide, model, places, asked), (asked.map_key, *sources)
    table = _table(slide, places, values, patch, model)
    runs = [model.run, *([asked.head.run] if asked.head is not None and asked.method == HEAD else [])]
    made = asked.record(slide) | learned_from(*runs)
    table.uns[_keys.NAMESPACE] = {
        "predict_cells": made if patch.domain is None else made | {_keys.OOD: patch.domain.as_record()}
    }
    warn_of_slide(slide.name, patch.domain, model)
    slide.put(asked.key_added, table, made_by="tl.predict_cells", sources=[*places.sources, *sources])
    return slide.name, PREDICTED, len(values), int(np.isfinite(values).any(axis=1).sum())


def _method(model: SignatureModel, head: CellHead | None, method: str | None) -> str:
    """How cells get their values; refuses a head of another model."""
    if method == HEAD and head is None:
        msg = "`method='head'` needs `head`, which `sp.tl.train_cell_head` makes from slides with scored cells."
        raise InputError(msg)
    if head is not None and (head.model_sha256 != weights_hash(model) or head.signatures != model.signatures):
        msg = "`head` was trained for another model: its features are not those of this one. Call `sp.tl.train_cell_head` with this model."
        raise InputError(msg)
    return method or (MAP if head is None else HEAD)


def _is_done(slide: Slide, asked: Asked) -> bool:
    key = asked.key_added
    if key not in slide.sdata.tables or any(slide.lineage.stale(key)) or slide.lineage.is_edited(key):
        return False
    recorded = slide.params(key).get("predict_cells", {})
    wanted = asked.record(slide)
    return {name: value for name, value in recorded.items() if name not in (*LEARNED, _keys.OOD)} == wanted


def _again(slide: Slide) -> Slide:
    """The slide with what another function has written into its store."""
    from spatialsig.slide.slides import open_slides

    return slide if slide.path is None else next(open_slides(slide.path))


def _with_map(slide: Slide, model: SignatureModel, asked: Asked, device: str | None) -> Slide:
    """The slide with a fresh map by these weights, drawn where it has none."""
    drawn = slide.attrs.get("signature_map", {}).get(asked.map_key, {})
    wanted = {name: getattr(asked, name) for name in ("weights_sha256", "image_key", "patches_key", "precision")}
    there = asked.map_key in slide.sdata.images and all(drawn.get(name) == value for name, value in wanted.items())
    if there and set(drawn["signatures"]) >= set(model.signatures) and not any(slide.lineage.stale(asked.map_key)):
        return slide
    usual_map(
        slide, model, min_tissue=asked.min_tissue, device=device, precision=asked.precision, image_key=asked.image_key,
        patches_key=asked.patches_key, key_added=asked.map_key,
    )  # fmt: skip
    return _again(slide)


def _table(
    slide: Slide, places: CellPlaces, values: NDArray[np.float32], patch: OfPatches, model: SignatureModel
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
    if patch.ood is not None:
        obs[_keys.OOD] = patch.ood
    if not pd.Index(places.instances).is_unique:
        msg = f"slide {slide.name!r}: ids of the cells in {places.region!r} repeat; give every cell an id of its own."
        raise InputError(msg)
    table = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=list(model.signatures)), layers={PATCH: patch.scores})
    table.obsm[_keys.SPATIAL] = places.xy_um
    return TableModel.parse(
        table,
        region=places.region,
        region_key=_keys.REGION_KEY,
        instance_key=places.instance_key,
        overwrite_metadata=True,
    )
