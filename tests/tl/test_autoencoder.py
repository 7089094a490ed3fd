from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError
from spatialsig.train.trainer_config import TrainerConfig

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


def test_embedding_survives_the_store(toy_store: Path, tmp_path: Path) -> None:
    path = toy_store
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
    with pytest.raises(InputError, match=r"\d+ of the \d+ genes of this autoencoder are not in slide 'toy'"):
        sp.tl.embed_cells(toy, model)


def test_a_store_and_the_object_in_memory_train_the_same_model(toy: sd.SpatialData, toy_store: Path) -> None:
    models = [sp.tl.train_autoencoder(d, signatures="seed", test_fold=None, **FAST) for d in (toy, toy_store)]
    np.testing.assert_allclose(models[0].mean, models[1].mean, rtol=1e-6)
    np.testing.assert_allclose(models[0].std, models[1].std, rtol=1e-6)
    counts = toy["table"][:, list(models[0].genes)].X
    np.testing.assert_allclose(
        models[0].get_latent_representation(counts), models[1].get_latent_representation(counts), atol=1e-4
    )


def two_panels(toy: sd.SpatialData, tmp_path: Path) -> sp.Cohort:
    """Two slides; the second does not measure the first 40 genes of the first."""
    stores = {}
    for name, first in (("A", 0), ("B", 40)):
        toy.attrs["spatialsig"]["sample"] = name
        part = sd.SpatialData.init_from_elements({n: e for _, n, e in toy.gen_elements()}, attrs=toy.attrs)
        part["table"] = toy["table"][:, first:].copy()
        stores[name] = tmp_path / f"{name}.zarr"
        sp.io.write(part, stores[name])
    return sp.Cohort(stores)


def test_union_of_panels_uses_every_gene_and_fills_none(toy: sd.SpatialData, tmp_path: Path) -> None:
    cohort = two_panels(toy, tmp_path)
    names, full = list(toy["table"].var_names), toy["table"].X.toarray()
    shared = sp.tl.train_autoencoder(cohort, signatures={"s": names[-5:]}, test_fold=None, **FAST)
    assert set(shared.genes) == set(names[40:-5])
    union = sp.tl.train_autoencoder(cohort, signatures={"s": names[-5:]}, test_fold=None, panel="union", **FAST)
    assert set(union.genes) == set(names[:-5])
    # the scaler of a gene comes from the slide that measures it alone
    dense = full[:, [names.index(g) for g in union.genes]].astype(np.float64)
    expected = np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1))
    only_a = [i for i, gene in enumerate(union.genes) if gene in names[:40]]
    np.testing.assert_allclose(union.mean[only_a], expected[:, only_a].mean(axis=0), rtol=1e-4)
    spread = expected[:, only_a].std(axis=0)
    np.testing.assert_allclose(union.std[only_a], np.where(spread > 0, spread, 1), rtol=1e-3)
    sp.tl.embed_cells(cohort, union)
    assert all(np.isfinite(cohort[name]["table"].obsm["X_ae"]).all() for name in cohort.stores)


def test_a_fold_chooses_the_best_epoch(toy: sd.SpatialData) -> None:
    sp.pp.split(toy, by="block", block_um=150, buffer_um=20, n_folds=3)
    model = sp.tl.train_autoencoder(toy, signatures="seed", validation_fold=1, **FAST)
    assert np.isfinite(model.run["history"]["val_loss"]).all()
    fold = toy["table"].obs["fold"].to_numpy()
    assert model.run["n_training_cells"] == (fold == 2).sum()


@pytest.mark.parametrize("options", [{"loss": "nb"}, {"loss": "poisson", "linear_path": False}, {"denoise": 0.4}])
def test_losses_and_denoising_from_the_function(toy: sd.SpatialData, options: dict) -> None:
    model = sp.tl.train_autoencoder(toy, signatures="seed", test_fold=None, **options, **FAST)
    assert model.config.loss == options.get("loss", "mse")
    assert model.config.dropout == options.get("denoise", 0.2)
    sp.tl.embed_cells(toy, model)
    assert toy["table"].obsm["X_ae"].shape == (toy["table"].n_obs, 4)


def test_the_settings_of_a_training_are_passed_on(toy: sd.SpatialData, tmp_path: Path) -> None:
    """A run that was stopped after its first epoch resumes, through the function, and ends as one call would have."""
    options = {"signatures": "seed", "test_fold": None, "hidden": (8,), "n_latent": 2, "max_epochs": 2}
    whole = sp.tl.train_autoencoder(toy, **options)
    trainer = TrainerConfig(checkpoint_minutes=1e-6, logger=None)
    for _ in range(2):  # the second call finds the training finished, and does not train
        again = sp.tl.train_autoencoder(toy, run_dir=tmp_path, trainer=trainer, **options)
        for name, weights in whole.net.state_dict().items():
            np.testing.assert_array_equal(again.net.state_dict()[name], weights)
    with pytest.raises(InputError, match=r"`precision='64'` is not known"):
        sp.tl.train_autoencoder(toy, trainer=TrainerConfig(precision="64"), **options)


def test_wrong_choices_are_refused(toy: sd.SpatialData) -> None:
    with pytest.raises(InputError, match=r"`panel='all'` is not known; choose one of \['intersection', 'union'\]"):
        sp.tl.train_autoencoder(toy, panel="all")
    with pytest.raises(InputError, match=r"`loss='l1'` is not known"):
        sp.tl.train_autoencoder(toy, signatures="seed", test_fold=None, loss="l1")
