"""train_vit, predict and evaluate as a user calls them, on a tiny cohort on disk."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.inference.vit import default_batch_size

pytestmark = pytest.mark.timeout(900)  # trains several models, on machines that may be slow
TINY = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 8, 8), stem_blocks=(0, 0, 0))
TRAIN = {"max_epochs": 1, "batch_size": 16, "size": TINY}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> sp.Cohort:
    """Two labelled slides of two patients, one H&E-only slide apart."""
    where = tmp_path_factory.mktemp("cohort")
    sp.settings.progress = False
    for seed, sample in enumerate(("S1", "S2")):
        sdata = sp.datasets.toy(seed=seed, size_um=350.0)
        sdata.attrs["spatialsig"] |= {"sample": sample, "patient": f"P{seed}"}
        sp.io.write(sdata, where / f"{sample}.zarr")
    cohort = sp.Cohort({s: where / f"{s}.zarr" for s in ("S1", "S2")})
    sp.pp.split(cohort, n_folds=2)
    ae = sp.tl.train_autoencoder(cohort, signatures="seed", max_epochs=1, hidden=(32,), n_latent=4)
    sp.tl.embed_cells(cohort, ae)
    sp.pp.make_patches(cohort, patch_px=32, um_per_px=2.0, stride_um=32.0)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, "seed")
    sp.tl.aggregate_patches(cohort, min_cells=5)
    return cohort


@pytest.fixture(scope="module")
def model(cohort: sp.Cohort) -> sp.models.SignatureViT:
    return sp.tl.train_vit(cohort, **TRAIN)


@pytest.mark.parametrize(
    ("n_patches", "wanted"), [(1, 8), (2_624, 8), (4_799, 8), (4_800, 16), (7_900, 16), (40_000, 128), (10**7, 128)]
)
def test_few_patches_are_learned_in_many_small_steps(n_patches: int, wanted: int) -> None:
    assert default_batch_size(n_patches) == wanted


def test_the_prototype_is_one_word(cohort: sp.Cohort) -> None:
    model = sp.tl.train_vit(cohort, size="seed", max_epochs=1)
    assert (model.config.backbone, model.config.fusion, model.config.modality_dropout) == ("seed", "add", 0.0)
    assert model.run["batch_size"] == 1
    sp.tl.predict(cohort, model, use_rep="X_ae", key_added="prototype")
    assert np.isfinite(cohort[held_out(cohort)]["prototype"].X).all()


def held_out(cohort: sp.Cohort) -> str:
    return next(s for s in cohort.stores if cohort[s].attrs["spatialsig"]["split"]["fold"] == 0)


def test_only_training_slides_are_learned_from(cohort: sp.Cohort, model: sp.models.SignatureViT) -> None:
    assert model.run["training_samples"] == [s for s in cohort.stores if s != held_out(cohort)]
    labels = cohort[model.run["training_samples"][0]]["signatures"].X
    expected = np.nanmean(labels, axis=0)
    np.testing.assert_allclose(model.target_mean, expected, rtol=0.2, atol=0.02)


def test_predictions_land_in_the_store_and_do_not_need_expression(
    cohort: sp.Cohort, model: sp.models.SignatureViT, tmp_path: Path
) -> None:
    full = cohort[held_out(cohort)]
    he_only = sd.SpatialData(
        images={"he_image": full["he_image"]}, attrs={"spatialsig": dict(full.attrs["spatialsig"])}
    )
    sp.io.write(he_only, tmp_path / "he.zarr")
    sp.pp.make_patches(tmp_path / "he.zarr", patch_px=32, um_per_px=2.0, stride_um=32.0)
    sp.tl.predict(tmp_path / "he.zarr", model)
    back = sd.read_zarr(tmp_path / "he.zarr")
    assert set(back.tables) == {"signatures_pred"}
    sp.tl.predict(cohort, model)
    both = sd.read_zarr(cohort.stores[held_out(cohort)])["signatures_pred"]
    np.testing.assert_allclose(back["signatures_pred"].X, both.X, rtol=1e-5, atol=1e-6)
    assert both.uns["spatialsig"]["predict"]["inputs"] == "H&E"
    assert list(both.var_names) == list(full["signatures"].var_names)


def test_expression_changes_the_prediction_only_when_given(cohort: sp.Cohort, model: sp.models.SignatureViT) -> None:
    sp.tl.predict(cohort, model, key_added="he")
    sp.tl.predict(cohort, model, use_rep="X_ae", key_added="fused")
    slide = cohort[held_out(cohort)]
    assert not np.allclose(slide["he"].X, slide["fused"].X)


def test_evaluation_judges_the_held_out_slide_only(cohort: sp.Cohort, model: sp.models.SignatureViT) -> None:
    table = sp.tl.evaluate(cohort, model)
    assert set(table["sample"]) == {held_out(cohort)}
    assert set(table["method"]) == {
        "he_only", "fused", "ae_only", "he_only_permuted", "fused_permuted", "hand_features", "colour", "density",
        "coordinates", "neighbours", "train_mean",
    }  # fmt: skip
    assert not table.duplicated(["method", "signature", "sample"]).any()
    np.testing.assert_allclose(table["share_of_ceiling"], table["pearson"] / table["ceiling"])
    slide = cohort[held_out(cohort)]
    sp.tl.predict(slide, model)
    r = table[table["method"] == "he_only"].set_index("signature")["pearson"]
    for column, name in enumerate(slide["signatures"].var_names):
        pair = pd.DataFrame(
            {"a": slide["signatures"].X[:, column], "b": slide["signatures_pred"].X[:, column]}
        ).dropna()
        assert r[name] == pytest.approx(pair["a"].corr(pair["b"]), abs=1e-4)


def test_an_embedding_of_the_signature_genes_is_called_a_leak(cohort: sp.Cohort, tmp_path: Path) -> None:
    path = tmp_path / "leaky.zarr"
    sp.io.write(cohort["S1"], path)
    leaky = sp.tl.train_autoencoder(
        path, exclude_signature_genes=False, test_fold=None, max_epochs=1, hidden=(8,), n_latent=4
    )
    sp.tl.embed_cells(path, leaky)
    sp.tl.aggregate_patches(path, min_cells=5)
    with pytest.warns(SpatialsigWarning, match="the model can read the answer from it and ignore the image"):
        sp.tl.train_vit(path, test_fold=None, **TRAIN)


def test_patches_of_another_size_are_refused(cohort: sp.Cohort, model: sp.models.SignatureViT, tmp_path: Path) -> None:
    sdata = sp.datasets.toy()
    sp.pp.make_patches(sdata, patch_px=48, um_per_px=2.0)
    with pytest.raises(InputError, match=r"patches are 48 px at 2.0 µm/px; the model wants 32 px at 2.0 µm/px"):
        sp.tl.predict(sdata, model)
    assert "signatures_pred" not in sdata


def test_a_model_of_all_slides_cannot_be_judged(cohort: sp.Cohort) -> None:
    model = sp.tl.train_vit(cohort, test_fold=None, **TRAIN)
    with pytest.raises(InputError, match="no slide is left to judge it on"):
        sp.tl.evaluate(cohort, model)


def test_inside_one_slide_only_the_held_out_blocks_are_judged(label_slide: Callable[..., sd.SpatialData]) -> None:
    sdata = label_slide(sp.datasets.toy(), buffer_um=64, patch_px=32, um_per_px=2.0, stride_um=16.0)
    labels = sdata["signatures"]
    fold, seen = labels.obs["fold"].to_numpy(), np.isfinite(labels.X).all(axis=1)
    assert set(fold) == {-1, 0, 1}
    model = sp.tl.train_vit(sdata, use_rep=None, **TRAIN)
    # with blocks hardly larger than the tissue's regions, places tell a lot: that is said
    with pytest.warns(SpatialsigWarning, match="Position alone, without any image, reaches r = "):
        table = sp.tl.evaluate(sdata, model)
    assert set(table["n_patches"]) == {(seen & (fold == 0)).sum()}
    assert "ae_only" not in set(table["method"])
