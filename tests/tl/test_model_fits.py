"""Every function that gives a slide to a model refuses what was made otherwise than the model learned from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError

USES: dict[str, Callable[..., Any]] = {
    "predict": lambda s, m, **d: sp.tl.predict(s, m, **d),
    "evaluate": lambda s, m, **_: sp.tl.evaluate(s, m),  # takes the embedding that the model learned from
    "calibrate": lambda s, m, **d: sp.tl.calibrate(s, m, fold=0, coverage=0.5, **d),
    "attention": lambda s, m, **d: sp.tl.attention(s, m, patches=[0], n_steps=1, **d),
}
OF_IMAGE = USES | {"embed_patches": lambda s, m, **_: sp.tl.embed_patches(s, m)}


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    return sp.datasets.toy_study()


@pytest.fixture
def model(study: sd.SpatialData) -> Any:
    return sp.datasets.toy_model(study)


def other_stain(model: Any) -> str:
    model.run["inputs"] = {"image": {"stain": "macenko"}}
    return "`stain`: 'macenko' wanted, 'none' here"


def other_size(model: Any) -> str:
    model.patch_px *= 2
    return "patches are 28 px at .*; the model wants 56 px"


def other_resolution(model: Any) -> str:
    model.um_per_px *= 2
    return "the model wants 28 px at"


@pytest.mark.parametrize("use", OF_IMAGE)
@pytest.mark.parametrize("mismatch", [other_stain, other_size, other_resolution])
def test_patches_of_another_kind_are_refused(
    study: sd.SpatialData, model: Any, use: str, mismatch: Callable[[Any], str]
) -> None:
    slide = sd.deepcopy(study)
    OF_IMAGE[use](slide, model)  # as it is, it fits
    before = set(slide.images) | set(slide.tables)
    message = mismatch(model)
    with pytest.raises(InputError, match=message):
        OF_IMAGE[use](slide, model)
    assert set(slide.images) | set(slide.tables) == before


@pytest.fixture(scope="module")
def embedded() -> tuple[sd.SpatialData, Any]:
    sdata = sp.datasets.toy_study()
    options = {"signatures": "seed", "n_latent": 4, "hidden": (8,), "test_fold": 0, "max_epochs": 1}
    sp.tl.embed_cells(sdata, sp.tl.train_autoencoder(sdata, **options))
    sp.pp.assign_cells(sdata)
    sp.tl.aggregate_patches(sdata)
    tiny = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
    return sdata, sp.tl.train_vit(sdata, use_rep="X_ae", size=tiny, max_epochs=1, stacking=False)


@pytest.mark.parametrize("use", USES)
def test_embeddings_of_another_autoencoder_are_refused(embedded: Any, use: str) -> None:
    sdata, model = sd.deepcopy(embedded[0]), copy.deepcopy(embedded[1])
    USES[use](sdata, model, use_rep="X_ae")
    before = set(sdata.images) | set(sdata.tables)
    model.run["inputs"]["embedding"]["model_sha256"] = "0" * 64
    with pytest.raises(InputError, match="embedding `model_sha256`: '00000"):
        USES[use](sdata, model, use_rep="X_ae")
    assert set(sdata.images) | set(sdata.tables) == before
