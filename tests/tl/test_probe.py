"""train_probe as a user calls it: against scikit-learn, saved, on tables and on pixels, with both heads, and its refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, OptionError
from spatialsig.inference import probe
from spatialsig.inference.probe import CHOSEN_FROM
from spatialsig.models.ensemble import weights_hash
from spatialsig.nn import backbones
from spatialsig.slide.slides import open_slides


class Colours(nn.Module):
    """Mean and deviation of the colours of the quarters of a patch."""

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2] // 2, x.shape[-1] // 2
        quarters = [x[..., i : i + h, j : j + w] for i in (0, h) for j in (0, w)]
        return torch.cat([f(q, dim=(2, 3)) for q in quarters for f in (torch.mean, torch.std)], dim=1)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_FACTORIES", {"colours": Colours})


@pytest.fixture(scope="module")
def _study(_patched: sd.SpatialData) -> sd.SpatialData:
    study = sd.deepcopy(_patched)
    sp.tl.embed_patches(study, Colours(), key_added="features")
    return study


@pytest.fixture
def study(_study: sd.SpatialData) -> sd.SpatialData:
    return sd.deepcopy(_study)


def predicted(study: sd.SpatialData, model: sp.models.SignatureViT) -> np.ndarray:
    sp.tl.predict(study, model)
    return np.asarray(study["signatures_pred"].X)


def folds(study: sd.SpatialData) -> np.ndarray:
    (slide,) = open_slides(study)
    return slide.patches("patches").folds


def training_rows(study: sd.SpatialData) -> np.ndarray:
    """Labelled patches outside fold 0, and outside the buffer."""
    return np.flatnonzero((folds(study) == 1) & np.isfinite(study["signatures"].X).all(axis=1))


@pytest.mark.parametrize("n_components", [5, None])
def test_scores_are_those_of_scikit_learn(study: sd.SpatialData, n_components: int | None) -> None:
    model = sp.tl.train_probe(study, "features", n_components=n_components, penalty=0.05, weights=None)
    rows, features = training_rows(study), study["features"].X.astype(np.float64)
    wanted = make_pipeline(StandardScaler(), PCA(n_components or 24, svd_solver="full"), Ridge(0.05 * len(rows))).fit(
        features[rows], study["signatures"].X[rows].astype(np.float64)
    )
    found = predicted(study, model)
    assert len(rows) > 30
    np.testing.assert_allclose(found, wanted.predict(features), rtol=0, atol=2e-5 * found.std())
    assert CHOSEN_FROM not in model.run  # nothing was left to choose


def test_the_penalty_is_chosen_from_a_table_of_training_patches(study: sd.SpatialData, tmp_path: Path) -> None:
    model = sp.tl.train_probe(study, "features", n_components="auto")
    table = pd.DataFrame(model.run[CHOSEN_FROM])
    chosen = table[table["chosen"]].set_index("signature")
    assert list(chosen.index) == list(model.signatures)
    assert chosen["penalty"].to_dict() == model.run["probe"]["penalty"]
    assert chosen["n_components"].to_dict() == model.run["probe"]["n_components"]
    assert set(table["n_components"]) == {24}
    assert model.run["probe"]["folds"] == "blocks of neighbouring patches"
    fixed = {"penalty": 0.05, "weights": None}
    first = weights_hash(sp.tl.train_probe(study, "features", **fixed))
    held_out = np.flatnonzero(folds(study) != 1)
    study["features"].X[held_out] = 1e3  # what the test fold shows is not seen
    study["signatures"].X[held_out] = 7.0
    del study.attrs["spatialsig"]["lineage"]
    again = sp.tl.train_probe(study, "features", n_components="auto")
    assert weights_hash(again) == weights_hash(model)
    assert weights_hash(sp.tl.train_probe(study, "features", **fixed)) == first
    study["features"].X[training_rows(study)[0]] += 5
    assert weights_hash(sp.tl.train_probe(study, "features", **fixed)) != first
    again.save(tmp_path / "probe")
    np.testing.assert_equal(sp.models.load_signature_model(tmp_path / "probe").run[CHOSEN_FROM], model.run[CHOSEN_FROM])


@pytest.mark.filterwarnings("ignore:Position alone")  # of blocks of one small slide
@pytest.mark.parametrize("head", ["ridge", "mlp"])
def test_it_is_taken_wherever_a_model_is(study: sd.SpatialData, tmp_path: Path, head: str) -> None:
    more = {"max_epochs": 1} if head == "mlp" else {}
    model = sp.tl.train_probe(study, "features", head=head, **more)
    first = predicted(study, model)
    assert np.isfinite(first).all()
    assert "on principal components of features of a frozen encoder" in model.card()
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(predicted(study, sp.models.load_signature_model(tmp_path / "m")), first)
    found = sp.tl.evaluate(study, model)
    assert {"he_only", "density", "he_only_permuted"} <= set(found["method"])
    assert found.loc[found["method"] == "he_only", "ceiling"].notna().any()
    sp.tl.calibrate(study, model, fold=0, coverage=0.5)
    assert sp.models.SignatureEnsemble([model, model]).predict(study["features"].X).shape == first.shape


@pytest.mark.parametrize("head", ["ridge", "mlp"])
def test_an_encoder_is_put_in_front(study: sd.SpatialData, tmp_path: Path, head: str) -> None:
    more = {"max_epochs": 1} if head == "mlp" else {}
    by_table = predicted(study, sp.tl.train_probe(study, "features", head=head, **more))
    model = sp.tl.train_probe(study, backbone="registered:colours", head=head, **more)
    for key in ("features", "signatures_pred"):
        del study.tables[key]
    model.save(tmp_path / "m")
    found = predicted(study, sp.models.SignatureViT.load(tmp_path / "m"))
    np.testing.assert_allclose(found, by_table, atol=1e-4)
    assert model.predict(np.full((1, 3, 56, 56), 200, np.uint8)).shape == (1, len(model.signatures))


def test_a_pretrained_network_is_an_encoder(study: sd.SpatialData) -> None:
    size = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
    pretrained = sp.tl.pretrain_vit(study, size=size, max_epochs=1)
    sp.tl.embed_patches(study, pretrained, key_added="by_us")
    model, of_table = sp.tl.train_probe(study, backbone=pretrained), sp.tl.train_probe(study, "by_us")
    np.testing.assert_allclose(predicted(study, model), predicted(study, of_table), atol=1e-4)


def test_the_network_of_components_reads_features_alike(study: sd.SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    widen, scores = probe._widen, []

    def watched(model: Any, reader: Any, mean: np.ndarray, axes: np.ndarray) -> None:
        features = study["features"].X
        scores.append(model.predict(((features - mean) @ axes).astype(np.float32)))
        widen(model, reader, mean, axes)
        scores.append(model.predict(features))

    monkeypatch.setattr(probe, "_widen", watched)
    model = sp.tl.train_probe(study, "features", head="mlp", n_components=6, max_epochs=2)
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert model.run["probe"] == {"head": "mlp", "n_components": 6}
    assert len(model.run["history"]["epoch"]) == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, InputError, "neither of `features_key` and `backbone` is given"),
        ({"features_key": "features", "backbone": Colours()}, InputError, "both of `features_key` and `backbone`"),
        ({"features_key": "featurs"}, KeyMissingError, "^`features_key='featurs'` is not in the tables .*features.*embed_patches"),
        ({"features_key": "features", "max_epochs": 3}, InputError, "`max_epochs` belongs to .*`head='mlp'`"),
        ({"features_key": "features", "max_epoch": 3}, OptionError, "did you mean `max_epochs`"),
        ({"features_key": "features", "head": "mlp", "penalty": 0.1}, InputError, "`penalty=0.1` is .*`head='ridge'`"),
        ({"features_key": "features", "head": "mlp", "n_components": "auto"}, InputError, "`n_components='auto'`"),
        ({"features_key": "features", "penalty": 0.0}, InputError, "`penalty=0.0` of `sp.tl.train_probe`"),
        ({"features_key": "features", "penalty": "best"}, InputError, "`penalty='best'` of `sp.tl.train_probe`"),
        ({"features_key": "features", "n_components": 0}, InputError, "`n_components=0` of `sp.tl.train_probe`"),
        ({"features_key": "features", "head": "svm"}, InputError, "`head='svm'` of `sp.tl.train_probe`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    study: sd.SpatialData, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sp.tl.train_probe(study, **options)
