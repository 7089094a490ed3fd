"""Signatures that no training slide measures are left out of the model, said once, and everything that follows goes on."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, SpatialsigWarning

TINY = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
TRAIN: dict[str, Any] = {"use_rep": None, "size": TINY, "max_epochs": 1}
KNOWN = {name: sp.io.read_signatures("seed")[name] for name in ("Immune_T", "Fibroblast")}
ABSENT = {"Absent": ["ZZZ1", "ZZZ2", "ZZZ3"], "Gone": ["ZZZ4", "ZZZ5", "ZZZ6"]}
SAID = r"^2 of 4 signatures were measured on no training slide, so the model leaves them out: Absent, Gone. It predicts Immune_T"

# the blocks of the toy study lie beside each other, without a buffer: that is said, and not what is looked at here
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:Position alone:spatialsig.errors.SpatialsigWarning"),
]


def study(sets: dict[str, list[str]]) -> sd.SpatialData:
    slide = sp.datasets.toy_study()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpatialsigWarning)
        sp.tl.score_cells(slide, sets)
    sp.tl.aggregate_patches(slide, use_rep=None, min_cells=5)
    return slide


@pytest.fixture(scope="module")
def slide() -> sd.SpatialData:
    """Two signatures that the panel measures, between two that it does not."""
    return study({"Absent": ABSENT["Absent"], **KNOWN, "Gone": ABSENT["Gone"]})


@pytest.fixture(scope="module")
def model(slide: sd.SpatialData) -> sp.models.SignatureViT:
    with pytest.warns(SpatialsigWarning, match=SAID) as caught:
        model = sp.tl.train_vit(slide, **TRAIN)
    assert sum(issubclass(each.category, SpatialsigWarning) for each in caught) == 1
    return model


def test_the_model_is_the_one_of_the_other_signatures(model: sp.models.SignatureViT, tmp_path: Path) -> None:
    """To the last bit: as if they had never been asked for."""
    alone = study(KNOWN)
    expected = sp.tl.train_vit(alone, **TRAIN)
    assert model.signatures == expected.signatures == tuple(KNOWN)
    assert model.run["signatures_left_out"] == ["Absent", "Gone"]
    assert "signatures_left_out" not in expected.run
    for name, tensor in expected.net.state_dict().items():
        np.testing.assert_array_equal(model.net.state_dict()[name], tensor)
    model.save(tmp_path / "m")
    again = sp.models.load_signature_model(tmp_path / "m")
    assert (again.signatures, again.run["signatures_left_out"]) == (model.signatures, ["Absent", "Gone"])


def test_what_follows_a_training_goes_on(slide: sd.SpatialData, model: sp.models.SignatureViT) -> None:
    sp.tl.predict(slide, model)
    assert list(slide["signatures_pred"].var_names) == list(KNOWN)
    found = sp.tl.evaluate(slide, model)
    assert set(found["signature"]) == set(KNOWN)
    assert np.isfinite(found.query("method == 'colour'")["pearson"]).all()
    assert len(sp.tl.summarise(found))
    sp.tl.findings(slide, model, found)
    calibrated = sp.tl.calibrate(slide, model, fold=0, coverage=0.8)
    assert calibrated["signature"].tolist() == list(KNOWN)
    model.intervals = None
    sp.tl.attention(slide, model, patches=[0], n_steps=2)
    assert sp.pl.compare(slide, "Immune_T").shape == (1, 4)
    assert len(sp.tl.noise_ceiling(slide)) == 4


def test_one_that_is_asked_for_by_name_is_an_error(slide: sd.SpatialData, model: sp.models.SignatureViT) -> None:
    with pytest.raises(KeyMissingError, match="'Absent' was measured on no training slide, so the model left it out"):
        sp.tl.attention(slide, model, signatures=["Absent"], patches=[0], n_steps=2)
    sp.tl.predict(slide, model)
    with pytest.raises(KeyMissingError, match="Absent"):
        sp.pl.compare(slide, "Absent")


def test_none_that_is_measured_is_still_an_error() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpatialsigWarning)
        slide = study(KNOWN)
    slide["signatures"].X[:] = np.where(np.arange(2) < 3, np.nan, 0)
    with pytest.raises(InputError, match="no labelled patch"):
        sp.tl.train_vit(slide, **TRAIN)


@pytest.mark.parametrize("weights", ["n_cells", "sem", None])
def test_one_that_some_training_patches_measure_stays(slide: sd.SpatialData, weights: str | None) -> None:
    labels = slide["signatures"].copy()
    few = np.flatnonzero(np.isfinite(labels.X[:, 1]) & (labels.obs["fold"] == 1).to_numpy())[:3]
    labels.X[few, 0] = [0.1, 0.2, 0.3]
    if "sem" in labels.layers:
        labels.layers["sem"][few, 0] = 0.1
    other = sd.deepcopy(slide)
    del other.attrs["spatialsig"]["lineage"]
    other["signatures"] = labels
    with pytest.warns(SpatialsigWarning, match="1 of 4 signatures were measured on no training slide.*: Gone"):
        model = sp.tl.train_vit(other, weights=weights, **TRAIN)
    assert model.signatures == ("Absent", *KNOWN)


def test_models_of_folds_may_know_different_signatures(slide: sd.SpatialData, tmp_path: Path) -> None:
    """A signature measured in fold 1 alone is predicted in fold 0 by the model that learned it, and nowhere else."""
    labels = slide["signatures"].copy()
    known = (labels.obs["fold"] == 1).to_numpy() & np.isfinite(labels.X[:, 1])
    labels.X[known, 0] = labels.X[known, 1]
    other = sd.deepcopy(slide)
    del other.attrs["spatialsig"]["lineage"]
    other["signatures"] = labels
    with pytest.warns(SpatialsigWarning, match="signatures were measured on no training slide"):
        found = sp.tl.cross_validate(other, run_dir=tmp_path, **TRAIN)
    table = other["signatures_pred"]
    assert sorted(table.var_names) == sorted(["Absent", *KNOWN])
    finite = np.isfinite(table[:, "Absent"].X[:, 0])
    fold = table.obs["fold"].to_numpy()
    assert finite[fold == 0].all()
    assert not finite[fold == 1].any()
    assert np.isfinite(table[:, list(KNOWN)].X).all()
    assert set(found["signature"]) == {"Absent", *KNOWN}
