from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig._errors import InputError

FAST = {"max_epochs": 1, "hidden": (32,), "n_latent": 4}


def test_signature_genes_are_never_seen(toy: sd.SpatialData) -> None:
    model = sp.tl.train_autoencoder(toy, signatures="seed", test_fold=None, **FAST)
    signature_genes = {gene for genes in sp.io.read_signatures("seed").values() for gene in genes}
    assert not signature_genes & set(model.genes)
    everything = sp.tl.train_autoencoder(toy, signatures="seed", exclude_signature_genes=False, test_fold=None, **FAST)
    assert signature_genes & set(everything.genes)


def test_scaler_and_weights_depend_on_training_cells_only(toy: sd.SpatialData) -> None:
    sp.pp.split(toy, by="block", block_um=150, buffer_um=20, n_folds=2)
    before = sp.tl.train_autoencoder(toy, signatures="seed", **FAST)
    x = toy["table"].X.tolil()
    x[np.flatnonzero(toy["table"].obs["fold"] != 1)] = 3
    toy["table"].X = x.tocsr().astype(np.float32)
    after = sp.tl.train_autoencoder(toy, signatures="seed", **FAST)
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.std, after.std)


def test_embedding_survives_the_store(toy: sd.SpatialData, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    sp.io.write(toy, path)
    model = sp.tl.train_autoencoder(path, signatures="seed", test_fold=None, **FAST)
    sp.tl.embed_cells(path, model)
    table = sd.read_zarr(path)["table"]
    assert table.obsm["X_ae"].dtype == np.float32
    expected = model.get_latent_representation(table[:, list(model.genes)].X)
    np.testing.assert_array_equal(table.obsm["X_ae"], expected)
    model.save(tmp_path / "ae")
    again = sp.models.Autoencoder.load(tmp_path / "ae")
    np.testing.assert_array_equal(again.get_latent_representation(table[:, list(model.genes)].X), expected)


def test_too_few_genes_left(toy: sd.SpatialData) -> None:
    genes = list(toy["table"].var_names)
    with pytest.raises(InputError, match="only 0 genes are left for the autoencoder"):
        sp.tl.train_autoencoder(toy, signatures={"all": genes}, test_fold=None, **FAST)


def test_other_panel_is_refused(toy: sd.SpatialData) -> None:
    model = sp.tl.train_autoencoder(toy, signatures="seed", test_fold=None, **FAST)
    toy["table"] = toy["table"][:, 5:].copy()
    with pytest.raises(InputError, match=r"slide 'toy' does not measure \d+ of \d+ genes"):
        sp.tl.embed_cells(toy, model)
