"""The prototype's three files against a re-implementation of it that shares no code with the package."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from scipy import sparse

from spatialsig.errors import FileMissingError, InputError
from spatialsig.models import Autoencoder
from spatialsig.models.seed import export_seed_autoencoder, import_seed_autoencoder
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.stats.expression import gene_moments, library_size, scaler_from_moments

N_CELLS, N_GENES = 400, 40


@pytest.fixture(scope="module")
def counts() -> sparse.csr_matrix:
    rng = np.random.default_rng(0)
    return sparse.csr_matrix(rng.poisson(rng.gamma(0.6, 2.0, (N_CELLS, N_GENES))).astype(np.float32))


@pytest.fixture(scope="module")
def model(counts: sparse.csr_matrix) -> Autoencoder:
    torch.manual_seed(0)
    mean, std = scaler_from_moments(*gene_moments(counts, library_size(counts)), N_CELLS)
    config = AutoencoderConfig(hidden=(64, 32), n_latent=8, linear_path=False)
    return Autoencoder(config, [f"G{i}" for i in range(N_GENES)], mean=mean, std=std)


def prototype_embedding(directory, dense: np.ndarray) -> np.ndarray:
    """What the prototype's second script computes, in numpy."""
    state = {name: value.numpy() for name, value in torch.load(directory / "ae.ckpt", weights_only=True).items()}
    scaler = np.load(directory / "scaler.npz")
    assert len(json.loads((directory / "ae_genes.json").read_text())) == dense.shape[1]
    x = np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1))
    h = (x - scaler["mu"]) / scaler["sigma"]
    for layer in (0, 2, 4):
        h = h @ state[f"enc.{layer}.weight"].T + state[f"enc.{layer}.bias"]
        h = np.maximum(h, 0) if layer < 4 else h
    return h


def test_the_prototype_reads_our_files_and_gets_the_same_embedding(tmp_path, model, counts) -> None:
    export_seed_autoencoder(model, tmp_path / "seed")
    ours = model.get_latent_representation(counts)
    theirs = prototype_embedding(tmp_path / "seed", counts.toarray().astype(np.float64))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    # mean per 512 um square, as its .npy files hold it
    rng = np.random.default_rng(1)
    squares = np.floor(rng.uniform(0, 1500, (N_CELLS, 2)) / 512) @ [10, 1]
    for square in np.unique(squares):
        np.testing.assert_allclose(ours[squares == square].mean(0), theirs[squares == square].mean(0), atol=1e-5)


def test_files_come_back_as_the_same_model(tmp_path, model, counts) -> None:
    export_seed_autoencoder(model, tmp_path)
    again = import_seed_autoencoder(tmp_path)
    assert again.genes == model.genes
    assert again.config.hidden == (64, 32)
    np.testing.assert_allclose(
        again.get_latent_representation(counts), model.get_latent_representation(counts), atol=1e-5
    )
    again.save(tmp_path / "model")  # and it is a model like any other
    assert Autoencoder.load(tmp_path / "model").n_latent == 8


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, model, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    export_seed_autoencoder(model, tmp_path)
    torch.save({"enc.0.bias": _Bomb()}, tmp_path / "ae.ckpt")
    with pytest.raises(InputError, match="nothing is executed"):
        import_seed_autoencoder(tmp_path)
    (tmp_path / "ae.ckpt").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(InputError, match=r"ae\.ckpt"):
        import_seed_autoencoder(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_files_that_do_not_fit_are_refused(tmp_path, model) -> None:
    with pytest.raises(FileMissingError, match=r"ae\.ckpt.*ae_genes\.json.*scaler\.npz"):
        import_seed_autoencoder(tmp_path)
    export_seed_autoencoder(model, tmp_path)
    (tmp_path / "ae_genes.json").write_text(json.dumps(["A", "B"]))
    with pytest.raises(InputError, match=r"`mu` and `sigma` of 2 numbers"):
        import_seed_autoencoder(tmp_path)
    np.savez(tmp_path / "scaler.npz", mu=np.zeros(2), sigma=np.ones(2))
    with pytest.raises(InputError, match=r"ae\.ckpt' does not fit 2 genes"):
        import_seed_autoencoder(tmp_path)
    (tmp_path / "ae_genes.json").write_text("{}")
    with pytest.raises(InputError, match="wanted a list of gene names"):
        import_seed_autoencoder(tmp_path)


@pytest.mark.parametrize("change", [{"linear_path": True}, {"loss": "poisson"}])
def test_networks_the_prototype_does_not_know_are_refused(tmp_path, model, change) -> None:
    config = AutoencoderConfig(**{"hidden": (8,), "n_latent": 2, "linear_path": False} | change)
    other = Autoencoder(config, model.genes, mean=model.mean, std=model.std)
    with pytest.raises(InputError, match="linear_path=False, loss='mse'"):
        export_seed_autoencoder(other, tmp_path / "none")
    assert not (tmp_path / "none").exists()
