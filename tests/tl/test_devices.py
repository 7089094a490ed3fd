"""One rule for where networks compute: the call's word, else the setting, else the GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import spatialdata as sd
import torch
from scipy import sparse

import spatialsig as sp
from spatialsig.errors import InputError
from spatialsig.models import SignatureEnsemble
from spatialsig.nn import device as places
from spatialsig.nn.device import choose_device, on_device

TINY = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    return sp.datasets.toy_study()


@pytest.fixture(scope="module")
def model(study: sd.SpatialData) -> Any:
    return sp.datasets.toy_model(study)


@pytest.fixture(scope="module")
def autoencoder(study: sd.SpatialData) -> Any:
    return sp.tl.train_autoencoder(study, signatures="seed", n_latent=4, hidden=(8,), test_fold=None, max_epochs=1)


USES: dict[str, Callable[..., Any]] = {
    "predict": lambda s, m, _, **d: sp.tl.predict(s, m, **d),
    "evaluate": lambda s, m, _, **d: sp.tl.evaluate(s, m, **d),
    "calibrate": lambda s, m, _, **d: sp.tl.calibrate(s, m, fold=0, coverage=0.5, **d),
    "attention": lambda s, m, _, **d: sp.tl.attention(s, m, patches=[0], n_steps=1, **d),
    "train_cell_head": lambda s, m, _, **d: sp.tl.train_cell_head(s, m, **d),
    "predict_cells": lambda s, m, _, **d: sp.tl.predict_cells(s, m, **d),
    "signature_map": lambda s, m, _, **d: sp.tl.signature_map(s, m, stride_um=56.0, **d),
    "embed_patches": lambda s, m, _, **d: sp.tl.embed_patches(s, m, **d),
    "embed_cells": lambda s, _, a, **d: sp.tl.embed_cells(s, a, **d),
}
BY_SETTING: dict[str, Callable[..., Any]] = {
    "train_vit": lambda s, *_: sp.tl.train_vit(s, size=TINY, use_rep=None, max_epochs=1),
    "train_probe": lambda s, *_: sp.tl.train_probe(s, "features"),
    "train_autoencoder": lambda s, *_: sp.tl.train_autoencoder(s, signatures="seed", n_latent=2, hidden=(4,), max_epochs=1),
    "pretrain_vit": lambda s, *_: sp.tl.pretrain_vit(s, size=TINY, max_epochs=1),
    "model.predict": lambda _, m, __: m.predict(np.zeros((1, 3, 28, 28), np.uint8)),
    "ensemble.predict": lambda _, m, __: SignatureEnsemble([m, m]).predict(np.zeros((1, 3, 28, 28), np.uint8)),
    "autoencoder.get_latent_representation": lambda _, __, a: a.get_latent_representation(_no_cells(a)),
    "autoencoder.reconstruct": lambda _, __, a: a.reconstruct(_no_cells(a)),
    "autoencoder.get_reconstruction_error": lambda _, __, a: a.get_reconstruction_error(_no_cells(a)),
}  # fmt: skip


def _no_cells(autoencoder: Any) -> sparse.csr_matrix:
    return sparse.csr_matrix((1, len(autoencoder.genes)), dtype=np.float32)


@pytest.mark.parametrize("use", USES)
def test_the_device_of_a_call_is_obeyed(study: sd.SpatialData, model: Any, autoencoder: Any, use: str) -> None:
    with pytest.raises(InputError, match=r"`device='cuda:7'`: torch .* sees no such device here; available: 'cpu'"):
        USES[use](study, model, autoencoder, device="cuda:7")


@pytest.mark.parametrize("use", [*USES, *BY_SETTING])
def test_the_setting_decides_where_the_call_says_nothing(
    study: sd.SpatialData, model: Any, autoencoder: Any, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sp.settings, "device", "cuda:7")
    with pytest.raises(InputError, match=r"`sp.settings.device='cuda:7'`"):
        (USES | BY_SETTING)[use](study, model, autoencoder)


@pytest.mark.parametrize("use", USES)
def test_the_call_goes_before_the_setting(
    study: sd.SpatialData, model: Any, autoencoder: Any, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sp.settings, "device", "cuda:7")
    USES[use](sd.deepcopy(study), model, autoencoder, device="cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:-1", "meta"])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="`device="):
        choose_device(name)


def test_auto_takes_the_gpu_but_leaves_a_network_that_was_put_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("auto").type == "cpu"
    assert choose_device("auto", torch.nn.Linear(1, 1, device="meta")).type == "meta"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"


def test_networks_are_put_back_and_can_be_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_is_there", lambda _: True)
    net = torch.nn.Linear(2, 1, dtype=torch.float32)
    moves: list[str] = []
    to = net.to
    monkeypatch.setattr(net, "to", lambda place: moves.append(str(place)) or to("cpu"))
    with torch.inference_mode(), on_device(net, device="cuda:1") as outer, on_device(net) as inner:
        assert outer == inner == torch.device("cuda:1")
    assert moves == ["cuda:1", "cuda:1", "cpu", "cpu"]
    with pytest.raises(ZeroDivisionError), on_device(net, device="cuda:1"):
        _ = 1 / 0
    assert moves[-1] == "cpu"
    net(torch.ones(1, 2)).sum().backward()  # weights that inference mode had touched would refuse
    assert choose_device(None).type == "cpu"


def test_bfloat16_scores_are_close_and_known_as_such(study: sd.SpatialData, model: Any) -> None:
    sdata = sd.deepcopy(study)
    sp.tl.predict(sdata, model)
    exact = sdata["signatures_pred"].X.copy()
    outcome = sp.tl.predict(sdata, model, precision="bf16", skip_done=True)
    near = sdata["signatures_pred"].X
    assert outcome["outcome"].tolist() == ["predicted"]
    assert 0 < np.abs(near - exact).max() < 0.05 * exact.std(axis=0).max() + 0.02
    assert sp.tl.predict(sdata, model, precision="bf16", skip_done=True)["outcome"].tolist() == ["skipped"]
    assert sp.tl.predict(sdata, model, skip_done=True)["outcome"].tolist() == ["predicted"]
    np.testing.assert_array_equal(sdata["signatures_pred"].X, exact)


def test_configurations_may_be_given_by_their_fields(study: sd.SpatialData) -> None:
    trained = sp.tl.train_vit(
        study, use_rep=None, max_epochs=1, trainer={"precision": "32", "accumulate": 2},
        size={"dim": 16, "depth": 1, "heads": 2, "mlp_dim": 16, "stem": [4, 4], "stem_blocks": [0, 0]},
    )  # fmt: skip
    assert trained.config.vit.dim == 16
    with pytest.raises(sp.errors.OptionError, match="devices"):
        sp.tl.train_vit(study, trainer={"device": 2})
