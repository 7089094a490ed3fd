"""An ensemble predicts the mixture of its members and survives the disk, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spatialsig.errors import FileMissingError, InputError
from spatialsig.models import SignatureEnsemble, SignatureViT, load_signature_model
from spatialsig.models.ensemble import members_of, predict_with_deviation, weights_hash
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import ViTConfig

VIT = ViTConfig(dim=32, depth=1, heads=2, mlp_dim=64, stem=(8, 16), stem_blocks=(0, 1))
PX = 16


def member(
    seed: int, *, um_per_px: float = 0.5, names: tuple[str, ...] = ("A", "B"), gaussian: bool = False, **run: object
) -> SignatureViT:
    torch.manual_seed(seed)
    model = SignatureViT(
        SignatureConfig(VIT, len(names), gaussian=gaussian),
        names,
        target_mean=np.arange(len(names)) + 5.0,
        target_std=np.full(len(names), 2.0),
        patch_px=PX,
        um_per_px=um_per_px,
        run={"test_fold": 0, "use_rep": None, "seed": seed, "training_samples": ["S1"]} | run,
    )
    if gaussian:
        torch.nn.init.normal_(model.net.spread.weight, std=0.3)
    return model


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 3, PX, PX), dtype=np.uint8)


def test_the_mean_and_the_spread_are_those_of_the_members(images: np.ndarray) -> None:
    members = [member(seed) for seed in range(3)]
    mean, std = SignatureEnsemble(members).predict_distribution(images)
    each = np.stack([m.predict(images) for m in members])
    np.testing.assert_allclose(mean, each.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(std, each.std(axis=0, ddof=1), rtol=1e-4)
    np.testing.assert_array_equal(SignatureEnsemble(members).predict(images), mean)
    assert mean.dtype == std.dtype == np.float32
    turned = np.ascontiguousarray(np.rot90(images, axes=(2, 3)))
    ensemble = SignatureEnsemble(members)
    np.testing.assert_allclose(ensemble.predict(images, n_views=8), ensemble.predict(turned, n_views=8), rtol=1e-4)


def test_own_variances_are_added(images: np.ndarray) -> None:
    members = [member(seed, gaussian=True) for seed in range(2)]
    ensemble = SignatureEnsemble(members)
    each = [m.predict_distribution(images) for m in members]
    expected = np.var([mean for mean, _ in each], axis=0, ddof=1) + np.mean([std**2 for _, std in each], axis=0)
    np.testing.assert_allclose(ensemble.predict_distribution(images)[1], np.sqrt(expected), rtol=1e-4)


def test_one_model_has_a_deviation_only_where_it_knows_one(images: np.ndarray) -> None:
    alone = member(0)
    mean, std = predict_with_deviation(alone, images)
    assert std is None
    np.testing.assert_array_equal(mean, alone.predict(images))
    assert members_of(alone) == (alone,)
    assert predict_with_deviation(member(0, gaussian=True), images)[1].shape == mean.shape


def test_save_and_load_are_bit_exact(images: np.ndarray, tmp_path: Path) -> None:
    ensemble = SignatureEnsemble([member(0), member(1, training_samples=["S1", "S2"])], run={"note": "x"})
    width = {"coverage": 0.9, "guarantee": "patches", "n_views": 1, "scaled": True, "width": [1.5, None]}
    ensemble.intervals = {"H&E": width | {"samples": ["S3"]}}
    ensemble.save(tmp_path / "e")
    ensemble.save(tmp_path / "e", overwrite=True)  # replaces the older one
    back = load_signature_model(tmp_path / "e")
    assert isinstance(back, SignatureEnsemble)
    np.testing.assert_array_equal(back.predict(images), ensemble.predict(images))
    assert (back.run, back.intervals, weights_hash(back)) == (ensemble.run, ensemble.intervals, weights_hash(ensemble))
    assert back.run["training_samples"] == ["S1", "S2"]
    assert (back.run["note"], back.run["seeds"], back.run["test_fold"]) == ("x", [0, 1], 0)
    assert [path.name for path in tmp_path.iterdir()] == ["e"]
    member(0).save(tmp_path / "one")
    assert isinstance(load_signature_model(tmp_path / "one"), SignatureViT)


def test_a_member_that_cannot_be_saved_leaves_the_old_ensemble(images: np.ndarray, tmp_path: Path) -> None:
    good = SignatureEnsemble([member(0), member(1)])
    good.save(tmp_path / "e")
    bad = SignatureEnsemble([member(2), member(3)])
    bad.members[1].run["broken"] = object()
    with pytest.raises(InputError, match="cannot write object"):
        bad.save(tmp_path / "e", overwrite=True)
    np.testing.assert_array_equal(SignatureEnsemble.load(tmp_path / "e").predict(images), good.predict(images))
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_all_differences_are_named() -> None:
    with pytest.raises(InputError, match="`members` are 1 model") as caught:
        SignatureEnsemble([member(0)])
    with pytest.raises(InputError, match=r"model 1 has um_per_px 1\.0, model 0 0\.5") as caught:
        SignatureEnsemble([member(0), member(1, um_per_px=1.0, test_fold=1), member(2, names=("A", "C"))])
    assert "model 1 has test_fold 1, model 0 0" in str(caught.value)
    assert "model 2 has signatures ('A', 'C'), model 0 ('A', 'B')" in str(caught.value)


def test_a_damaged_ensemble_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "e"
    SignatureEnsemble([member(0), member(1)]).save(place)
    member(2).save(place / "member-01", overwrite=True)  # a sound model, but another one
    with pytest.raises(InputError, match="member-01 is not the model that was saved"):
        SignatureEnsemble.load(place)
    text = (place / "config.json").read_text()
    (place / "config.json").write_text(text.replace("member-01", "member-02"))
    with pytest.raises(InputError, match="config.json is not what was saved"):
        SignatureEnsemble.load(place)
    (place / "run.json").unlink()
    with pytest.raises(FileMissingError, match="run.json"):
        SignatureEnsemble.load(place)
    member(0).save(tmp_path / "one")
    with pytest.raises(
        InputError,
        match="holds a model of kind 'SignatureViT', which .* reads; wanted a SignatureEnsemble .made by `sp.tl.train_ensemble`",
    ):
        SignatureEnsemble.load(tmp_path / "one")
    with pytest.raises(FileMissingError, match="config.json"):
        load_signature_model(tmp_path / "nowhere")


@pytest.mark.parametrize("broken", [[], {"H&E": None}, {"H&E": {"coverage": 0.9}}, {"H&E": {"width": [1.0]}}])
def test_damaged_intervals_are_refused(broken: object, tmp_path: Path) -> None:
    ensemble = SignatureEnsemble([member(0), member(1)])
    ensemble.intervals = broken
    ensemble.save(tmp_path / "e")
    with pytest.raises(InputError, match="intervals"):
        SignatureEnsemble.load(tmp_path / "e")


def test_models_say_what_they_are() -> None:
    members = [member(seed) for seed in range(2)]
    ensemble = SignatureEnsemble(members)
    assert repr(ensemble).startswith(f"SignatureEnsemble of {len(members)} models; ")
    assert repr(members[0]).startswith("SignatureViT of ")
    assert f"patches of {members[0].patch_px} px" in repr(members[0])
