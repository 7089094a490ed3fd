"""Cells of other tools: ids that mean nothing, labels and shapes that cannot be, and what is stale once they are replaced."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import shapely
import spatialdata as sd
from spatialdata.models import Labels2DModel, ShapesModel
from spatialdata.transformations import Identity, Scale, get_transformation, set_transformation

import spatialsig as sp
from spatialsig.errors import InputError, SpatialsigWarning, StaleError
from spatialsig.slide.slides import Slide

if TYPE_CHECKING:
    from pathlib import Path

    from spatialsig.models import SignatureViT

LABEL_PX = 4  # level-0 px of a px of the labels


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    return sp.datasets.toy_study()


@pytest.fixture(scope="module")
def model(study: sd.SpatialData) -> SignatureViT:
    return sp.datasets.toy_model(study)


def with_labels(study: sd.SpatialData, ids: np.ndarray, *, shift: int = 0, dtype: Any = np.int64) -> sd.SpatialData:
    """A labels element with one px for each cell."""
    slide = sd.deepcopy(study)
    level = slide["he_image"]["scale0"]["image"]
    xy = (slide["table"].obsm["he_px"] / LABEL_PX).astype(int)
    labels = np.zeros((level.sizes["y"] // LABEL_PX + 1, level.sizes["x"] // LABEL_PX + 1), dtype)
    labels[xy[:, 1], np.minimum(xy[:, 0] + shift, labels.shape[1] - 1)] = ids
    slide["nuclei_labels"] = Labels2DModel.parse(labels, dims=("y", "x"), transformations=placed(slide))
    return slide


def placed(slide: sd.SpatialData) -> dict[str, Any]:
    from spatialdata.transformations import Sequence

    own = get_transformation(slide["he_image"], get_all=True)
    return {name: Sequence([Scale([LABEL_PX, LABEL_PX], ("x", "y")), one]) for name, one in own.items()}


def shapes_of(study: sd.SpatialData, geometries: Any, **columns: Any) -> sd.SpatialData:
    slide = sd.deepcopy(study)
    slide["others"] = ShapesModel.parse(slide["cell_circles"].assign(**columns).set_geometry(geometries))
    set_transformation(slide["others"], get_transformation(slide["cell_circles"], get_all=True), set_all=True)
    return slide


def test_ids_that_collide_are_matched_by_place(study: sd.SpatialData, model: SignatureViT) -> None:
    """A segmentation that numbers its nuclei from 1 on, of a table whose cells are numbered so too, in another order."""
    slide = sd.deepcopy(study)
    n = slide["table"].n_obs
    slide["table"].obs["cell_id"] = np.arange(1, n + 1)
    order = np.random.default_rng(0).permutation(n)
    circles = slide["cell_circles"].iloc[order].set_axis(np.arange(1, n + 1))
    slide["stardist"] = ShapesModel.parse(circles)
    set_transformation(slide["stardist"], get_transformation(slide["cell_circles"], get_all=True), set_all=True)
    sp.tl.predict_cells(slide, model, cells="stardist", key_added="theirs")
    sp.tl.predict_cells(slide, model)
    with warnings.catch_warnings(action="ignore"):
        found, own = (
            sp.tl.evaluate_cells(slide, cells_key=key, n_repeats=1).set_index(["scale", "signature"])["r"]
            for key in ("theirs", "cells_pred")
        )
    pd.testing.assert_series_equal(found, own, atol=1e-6)


@pytest.mark.parametrize(("bad", "said"), [(-1, "hold -1"), (2**63 + 5, str(2**63 + 5))])
def test_labels_that_are_no_ids_are_named(study: sd.SpatialData, model: SignatureViT, bad: int, said: str) -> None:
    ids = np.arange(1, study["table"].n_obs + 1).astype(np.uint64 if bad > 0 else np.int64)
    ids[3] = bad
    slide = with_labels(study, ids, dtype=ids.dtype)
    with pytest.raises(InputError, match=rf"slide 'toy': labels 'nuclei_labels' .*{said}"):
        sp.tl.predict_cells(slide, model, cells="nuclei_labels", method="patch")


def test_large_ids_cost_nothing(study: sd.SpatialData, model: SignatureViT) -> None:
    n = study["table"].n_obs
    small, large = (with_labels(study, np.arange(1, n + 1) + offset) for offset in (0, 2**40))
    for slide in (small, large):
        sp.tl.predict_cells(slide, model, cells="nuclei_labels", method="patch")
    np.testing.assert_array_equal(
        large["cells_pred"].obs["instance_id"] - 2**40, small["cells_pred"].obs["instance_id"]
    )
    np.testing.assert_array_equal(large["cells_pred"].obsm["spatial"], small["cells_pred"].obsm["spatial"])


@pytest.mark.parametrize("bad", [shapely.Point(), shapely.Polygon(), shapely.Point(np.nan, np.nan), None])
def test_shapes_without_a_place_are_counted(study: sd.SpatialData, model: SignatureViT, bad: Any) -> None:
    slide = sd.deepcopy(study)
    outlines = slide["cell_circles"].geometry.buffer(2.0).to_numpy().copy()
    slide["others"] = ShapesModel.parse(slide["cell_circles"].drop(columns="radius").set_geometry(outlines))
    set_transformation(slide["others"], get_transformation(slide["cell_circles"], get_all=True), set_all=True)
    outlines[7] = bad
    slide["others"].geometry.array._data[7] = bad  # as a tool leaves it: the model's own check refuses some
    with pytest.raises(InputError, match=r"slide 'toy': 1 of \d+ shapes of 'others' are missing, empty or not finite"):
        sp.tl.predict_cells(slide, model, cells="others", method="patch")


def test_ids_of_shapes_are_ids(study: sd.SpatialData, model: SignatureViT) -> None:
    circles = study["cell_circles"]
    missing = shapes_of(study, circles.geometry, cell_id=[np.nan, *range(1, len(circles))])
    with pytest.raises(InputError, match=r"column 'cell_id' of shapes 'others' is missing in 1 of"):
        sp.tl.predict_cells(missing, model, cells="others", method="patch")
    floats = shapes_of(study, circles.geometry, cell_id=np.arange(len(circles)).astype(float))
    sp.tl.predict_cells(floats, model, cells="others", method="patch")
    assert floats["cells_pred"].obs["cell_id"].tolist()[:2] == ["0", "1"]


READERS = {
    "skip_done": lambda s, m, _: sp.tl.predict_cells(s, m, cells="nuclei_labels", method="patch", skip_done=True)["outcome"].item() == "predicted",
    "status": lambda s, _m, _p: (sp.io.status(s).set_index("part").loc["cells_pred", "state"] == "stale"),
    "evaluate_cells": lambda s, _m, _p: refuses(lambda: sp.tl.evaluate_cells(s, n_repeats=1)),
    "export_explorer_groups": lambda s, _m, p: refuses(lambda: sp.io.export_explorer_groups(s, p / "a.csv", "Immune_T")),
    "export_geojson": lambda s, _m, p: refuses(lambda: sp.io.export_geojson(s, p / "a.geojson", table_key="cells_pred")),
}  # fmt: skip


def refuses(call: Any) -> bool:
    with (
        warnings.catch_warnings(action="ignore", category=SpatialsigWarning),
        pytest.raises(StaleError, match="nuclei_labels"),
    ):
        call()
    return True


@pytest.mark.parametrize("change", ["pixels", "place"])
def test_labels_that_were_replaced_make_stale_what_was_made_of_them(
    study: sd.SpatialData, model: SignatureViT, tmp_path: Path, change: str
) -> None:
    ids = np.arange(1, study["table"].n_obs + 1)
    slide = with_labels(study, ids)
    sp.tl.predict_cells(slide, model, cells="nuclei_labels", method="patch")
    assert not any(Slide(slide).lineage.stale("cells_pred"))
    if change == "pixels":
        slide["nuclei_labels"].data = with_labels(study, ids, shift=7)["nuclei_labels"].data
    else:
        own = placed(slide)
        set_transformation(
            slide["nuclei_labels"], {n: Scale([LABEL_PX + 1] * 2, ("x", "y")) for n in own}, set_all=True
        )
    for name in (
        "status",
        "evaluate_cells",
        "export_explorer_groups",
        "export_geojson",
        "skip_done",
    ):  # the last mends it
        assert READERS[name](slide, model, tmp_path), name


def test_tissue_given_as_labels_is_a_source_of_patches(study: sd.SpatialData) -> None:
    slide = with_labels(study, np.ones(study["table"].n_obs, int))
    slide["nuclei_labels"].data = slide["nuclei_labels"].data * 0 + 1
    sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0, tissue_key="nuclei_labels")
    assert not any(Slide(slide).lineage.stale("patches"))
    set_transformation(slide["nuclei_labels"], {"global": Identity()}, set_all=True)
    assert any("transformation of labels 'nuclei_labels'" in text for text in Slide(slide).lineage.stale("patches"))
