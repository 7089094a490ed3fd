"""Whatever state a network was left in, it predicts as it was trained to or is refused, and is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd
import torch
from scipy import sparse

import spatialsig as sp
from spatialsig.errors import InputError
from spatialsig.models import SignatureEnsemble

USES: dict[str, Callable[[sd.SpatialData, Any, Any], Any]] = {
    "predict": lambda s, m, _: sp.tl.predict(s, m),
    "evaluate": lambda s, m, _: sp.tl.evaluate(s, m),
    "calibrate": lambda s, m, _: sp.tl.calibrate(s, m, fold=0, coverage=0.5),
    "attention": lambda s, m, _: sp.tl.attention(s, m, patches=[0], n_steps=1),
    "train_cell_head": lambda s, m, _: sp.tl.train_cell_head(s, m),
    "predict_cells": lambda s, m, _: sp.tl.predict_cells(s, m),
    "signature_map": lambda s, m, _: sp.tl.signature_map(s, m, stride_um=56.0),
    "embed_patches": lambda s, m, _: sp.tl.embed_patches(s, m),
    "embed_cells": lambda s, _, a: sp.tl.embed_cells(s, a),
    "model.predict": lambda _, m, __: m.predict(np.zeros((1, 3, 28, 28), np.uint8)),
    "ensemble.predict": lambda _, m, __: SignatureEnsemble([m, m]).predict(np.zeros((1, 3, 28, 28), np.uint8)),
    "autoencoder.get_latent_representation": lambda _, __, a: a.get_latent_representation(_no_cells(a)),
    "autoencoder.reconstruct": lambda _, __, a: a.reconstruct(_no_cells(a)),
    "autoencoder.get_reconstruction_error": lambda _, __, a: a.get_reconstruction_error(_no_cells(a)),
}


def _no_cells(autoencoder: Any) -> sparse.csr_matrix:
    return sparse.csr_matrix((1, len(autoencoder.genes)), dtype=np.float32)


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    return sp.datasets.toy_study()


@pytest.fixture(scope="module")
def saved(study: sd.SpatialData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    sp.datasets.toy_model(study).save(place / "vit")
    options = {"signatures": "seed", "n_latent": 4, "hidden": (8,), "test_fold": None, "max_epochs": 1}
    sp.tl.train_autoencoder(study, **options).save(place / "ae")
    return place


@pytest.fixture
def models(saved: Path) -> tuple[Any, Any]:
    return sp.models.SignatureViT.load(saved / "vit"), sp.models.Autoencoder.load(saved / "ae")


@pytest.mark.parametrize("use", USES)
def test_networks_left_in_training_mode_predict_in_evaluation_mode(
    study: sd.SpatialData, models: Any, use: str
) -> None:
    seen: list[bool] = []
    parts = [part for model in models for part in model.net.train().modules()]
    models[0].net.head.eval()  # each part in its own mode
    before = [part.training for part in parts]
    for part in parts:
        part.register_forward_pre_hook(lambda part, _: seen.append(part.training))
    USES[use](sd.deepcopy(study), *models)
    assert set(seen) <= {False}
    assert seen or use.startswith("autoencoder.") or use == "embed_cells"  # whose networks are asked for their parts
    assert [part.training for part in parts] == before


@pytest.mark.parametrize("use", USES)
def test_weights_that_are_no_numbers_are_named(study: sd.SpatialData, models: Any, use: str) -> None:
    for model in models:
        next(model.net.parameters()).data[...] = np.nan
    nets = (*(model.net for model in models), models[0].net.backbone)
    names = "|".join(name for net in nets for name, of in net.named_parameters() if of.isnan().any())
    copy = sd.deepcopy(study)
    with pytest.raises(InputError, match=rf"NaN or infinite weights in 1 tensors of the model: ({names})\."):
        USES[use](copy, *models)
    assert set(copy.tables) == set(study.tables)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_weights_of_another_type_are_refused_with_the_remedy(
    study: sd.SpatialData, models: Any, use: str, dtype: torch.dtype
) -> None:
    for model in models:
        model.net.to(dtype)
    with pytest.raises(InputError, match=rf"weights of the model are {dtype}: .*Call `model\.net\.float\(\)`"):
        USES[use](sd.deepcopy(study), *models)
    for model in models:
        model.net.float()
    if "." in use:  # the others call these
        USES[use](study, *models)


def test_what_could_not_be_loaded_is_not_saved(models: Any, tmp_path: Path) -> None:
    ensemble = SignatureEnsemble([models[0], models[0]])
    for model in models:
        next(model.net.parameters()).data.view(-1)[0] = np.inf
    for model in (*models, ensemble):
        with pytest.raises(
            InputError,
            match=r"NaN or infinite weights in 1 tensors of the model to be saved as .*: [a-z0-9_]+\..+\. Train",
        ):
            model.save(tmp_path / "new")
    assert not list(tmp_path.iterdir())
