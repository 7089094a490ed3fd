"""`skip_done` of every function that has it: a result made by other values of any argument is not taken for the one that is asked for."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.transformations import get_transformation, set_transformation
from tests.quick import all_of

import spatialsig as sp

if TYPE_CHECKING:
    from collections.abc import Callable

    from spatialsig.models import CellHead, SignatureViT

# where an argument decides nothing of the result, or is where the result goes
FREE = {"data", "model", "backbone", "skip_done", "device", "on_error", "key_added", "batch_size", "backbone_options"}


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    """A study in which every element that is named by a key stands twice, and the second is another one."""
    study = sp.datasets.toy_study()
    study["he2"] = sd.deepcopy(study["he_image"])
    for level in study["he2"].values():
        level["image"].data = level["image"].data[:, ::-1]
    study["half"] = study["table"][::2].copy()
    study["tissue2"] = study["patches"].iloc[:40].drop(columns=["y0", "x0"])
    set_transformation(study["tissue2"], get_transformation(study["patches"], get_all=True), set_all=True)
    sp.pp.make_patches(study, patch_px=28, um_per_px=2.0, stride_um=42.0, key_added="patches2")
    study["circles2"] = study["cell_circles"].iloc[:500]
    return study


@pytest.fixture(scope="module")
def model(study: sd.SpatialData) -> SignatureViT:
    return sp.datasets.toy_model(study)


@pytest.fixture(scope="module")
def head(study: sd.SpatialData, model: SignatureViT) -> CellHead:
    return sp.tl.train_cell_head(study, model)


OTHERS: dict[str, dict[str, Any]] = {
    "predict": {"use_rep": None, "n_views": 2, "precision": "bf16", "patches_key": "patches2", "signatures_key": None},
    "signature_map": {
        "method": "token", "stride_um": 28.0, "bin_um": 28.0, "signatures": ["Immune_B"], "min_tissue": 0.7, "tissue_key": "tissue2",
        "precision": "bf16", "image_key": "he2", "patches_key": "patches2",
    },
    "predict_cells": {
        "cells": "circles2", "head": "head", "method": "patch", "min_tissue": 0.7, "precision": "bf16", "table_key": "half",
        "map_key": "map2", "image_key": "he2", "patches_key": "patches2",
    },
    "embed_patches": {"patches_key": "patches2", "signatures_key": None},
}  # fmt: skip
NEEDS_BEFORE: dict[str, dict[str, Any]] = {"signature_map": {"bin_um": {"stride_um": 28.0, "method": "token"}}}


def outcome(function: str, study: sd.SpatialData, model: Any, **options: Any) -> str:
    """``"skipped"``, or what else the function says; of one that says nothing, whether its table stayed the same object."""
    if function == "embed_patches":
        before = study.tables.get("embedding")
        sp.tl.embed_patches(study, model, skip_done=True, **options)
        return "skipped" if study["embedding"] is before else "made"
    return str(getattr(sp.tl, function)(study, model, skip_done=True, **options)["outcome"].item())


@pytest.mark.parametrize("function", sorted(OTHERS))
def test_every_argument_is_named_here(function: str) -> None:
    names = set(inspect.signature(getattr(sp.tl, function)).parameters)
    assert names - FREE == set(OTHERS[function])


def test_every_function_is_named_here() -> None:
    found = {name for name in sp.tl.__all__ if "skip_done" in _parameters(getattr(sp.tl, name))}
    assert found == set(OTHERS)


def _parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) if callable(function) else set()


QUICK = {"predict_cells table_key", "predict_cells patches_key", "signature_map tissue_key", "predict n_views"}
PAIRS = [f"{f} {a}" for f, options in OTHERS.items() for a, value in options.items() if value is not None]


@pytest.mark.parametrize("pair", all_of(PAIRS, quick=QUICK))
def test_another_value_is_not_taken_for_done(
    study: sd.SpatialData, model: SignatureViT, head: CellHead, pair: str
) -> None:
    function, argument = pair.split()
    slide = sd.deepcopy(study)
    value = head if argument == "head" else OTHERS[function][argument]
    base = {"method": "map"} if function == "predict_cells" and argument == "map_key" else {}
    if argument == "map_key":
        sp.tl.signature_map(slide, model, stride_um=28.0, key_added="map2")
    base |= {"method": "patch"} if (function, argument) == ("predict_cells", "table_key") else {}
    before = NEEDS_BEFORE.get(function, {}).get(argument, base)
    outcome(function, slide, model, **before)
    assert outcome(function, slide, model, **before) == "skipped"
    assert outcome(function, slide, model, **before | {argument: value}) != "skipped"


def test_a_map_of_another_image_is_not_sampled(study: sd.SpatialData, model: SignatureViT) -> None:
    slide, wanted = sd.deepcopy(study), sd.deepcopy(study)
    sp.tl.signature_map(slide, model, image_key="he2")
    for each in (slide, wanted):
        sp.tl.predict_cells(each, model)
    np.testing.assert_array_equal(slide["cells_pred"].X, wanted["cells_pred"].X)
