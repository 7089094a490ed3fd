"""Where nobody embedded the cells, nobody has to say so; where an embedding is missing, the error names both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import KeyMissingError
from spatialsig.slide.embeddings import AUTO, chosen_rep

SMALL = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
TINY: dict[str, Any] = {"size": SMALL, "max_epochs": 1}
BOTH_WAYS = r"(?s)'X_ae'.*`sp\.tl\.embed_cells`.*use_rep=None"


@pytest.fixture
def study() -> sd.SpatialData:
    return sp.datasets.toy_study()


def with_features(sdata: sd.SpatialData) -> sd.SpatialData:
    sp.tl.embed_patches(sdata, sp.datasets.toy_model(sdata), key_added="features")
    return sdata


def embedded(sdata: sd.SpatialData) -> sd.SpatialData:
    rng = np.random.default_rng(0)
    sdata["table"].obsm["X_ae"] = rng.normal(size=(sdata["table"].n_obs, 4)).astype(np.float32)
    sp.tl.aggregate_patches(sdata, min_cells=5)
    return sdata


def test_labels_need_no_embedding_and_take_one_that_is_there(study: sd.SpatialData) -> None:
    sp.tl.aggregate_patches(study, min_cells=5)
    assert "X_ae" not in study["signatures"].obsm
    assert "X_ae" in embedded(study)["signatures"].obsm
    with pytest.raises(KeyMissingError, match=BOTH_WAYS):
        sp.tl.aggregate_patches(sp.datasets.toy_study(), min_cells=5, use_rep="X_ae")


def test_labels_of_a_cohort_of_which_some_slides_are_embedded(study: sd.SpatialData, tmp_path: Path) -> None:
    sp.io.write(study, tmp_path / "A.zarr")
    sp.io.write(embedded(sp.datasets.toy_study(seed=1)), tmp_path / "B.zarr")
    with pytest.raises(KeyMissingError, match=BOTH_WAYS):
        sp.tl.aggregate_patches(sp.Cohort({n: tmp_path / f"{n}.zarr" for n in "AB"}), min_cells=5)


TRAININGS: dict[str, Callable[..., Any]] = {
    "train_vit": lambda d, _, **o: sp.tl.train_vit(d, **TINY | o),
    "train_ensemble": lambda d, _, **o: sp.tl.train_ensemble(d, n_members=2, **TINY | o).members[0],
    "cross_validate": lambda d, place, **o: sp.tl.cross_validate(d, run_dir=place, **TINY | o),
}


@pytest.mark.parametrize(
    "function", [pytest.param(n, marks=[] if n == "train_vit" else [pytest.mark.slow]) for n in TRAININGS]
)
def test_what_is_not_fused_needs_no_embedding(function: str, study: sd.SpatialData, tmp_path: Path) -> None:
    train = TRAININGS[function]
    found = train(study, tmp_path / "none", fusion="none")
    of_table = train(with_features(study), tmp_path / "table", backbone="table:features")
    if function == "cross_validate":
        assert not set(found["method"]) & {"ae_only", "fused"}
        assert not list((tmp_path / "none").rglob("autoencoder"))
    else:
        assert found.run["use_rep"] is None
        assert of_table.run["use_rep"] is None


@pytest.mark.parametrize("function", ["train_vit", "train_ensemble"])
def test_what_is_fused_names_both_ways(function: str, study: sd.SpatialData, tmp_path: Path) -> None:
    for options in ({}, {"fusion": "gated"}, {"fusion": "none", "use_rep": "X_ae"}):
        with pytest.raises(KeyMissingError, match=BOTH_WAYS):
            TRAININGS[function](study, tmp_path, **options)


def test_an_embedding_that_is_there_is_taken_as_before(study: sd.SpatialData) -> None:
    """So that the simple predictors of an evaluation still have it."""
    embedded(study)
    assert sp.tl.train_vit(study, fusion="none", **TINY).run["use_rep"] == "X_ae"
    assert chosen_rep(study, None, table_key="signatures", where=all) is None
    assert chosen_rep(study, "mine", table_key="signatures", where=all) == "mine"
    assert chosen_rep(study, AUTO, table_key="nowhere", where=any) is None
