"""Networks of others, tables of features and pre-training, as a user calls them."""

from pathlib import Path

import numpy as np
import pytest
import scanpy as sc
import spatialdata as sd
import torch
from torch import Tensor, nn

import spatialsig as sp
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.nn import backbones
from spatialsig.nn.vit import ViTConfig

TINY = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
FEW = {"max_epochs": 1, "use_rep": None, "size": TINY, "batch_size": 64}


class Colours(nn.Module):
    """Mean colours through an attention-like layer; the same weights every time."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.query = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.query(torch.cat([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=1))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(backbones, "_FACTORIES", {"colours": Colours})


@pytest.fixture
def slide(patched: sd.SpatialData) -> sd.SpatialData:
    """Half of the patches of a slide, so that training is quick."""
    sp.pp.make_patches(patched, patch_px=24, um_per_px=2.0, stride_um=48.0)
    sp.pp.assign_cells(patched)
    sp.tl.aggregate_patches(patched, min_cells=5, use_rep=None)
    return patched


def predicted(slide: sd.SpatialData, model: sp.models.SignatureViT) -> np.ndarray:
    sp.tl.predict(slide, model)
    return slide["signatures_pred"].X


@pytest.mark.parametrize("tune", ["frozen", "lora", "full"])
def test_a_network_of_others_trains_saves_loads_and_predicts_equal(
    slide: sd.SpatialData, tmp_path: Path, tune: str
) -> None:
    model = sp.tl.train_vit(slide, backbone="registered:colours", tune=tune, **FEW | {"batch_size": 16})
    first = predicted(slide, model)
    assert np.isfinite(first).all()
    model.save(tmp_path / "m")
    loaded = sp.models.SignatureViT.load(tmp_path / "m")
    np.testing.assert_array_equal(predicted(slide, loaded), first)
    assert loaded.run["tune"] == tune
    moved = not torch.equal(model.net.backbone.model.query.weight, Colours().query.weight)
    assert moved == (tune != "frozen")


def test_features_that_are_computed_once_are_those_of_the_network(slide: sd.SpatialData) -> None:
    """A head trained on a table of the features is the head trained behind the frozen network."""
    with pytest.warns(
        SpatialsigWarning, match="'registered:colours'` keeps the weights it has, and only a head learns"
    ):
        frozen = sp.tl.train_vit(slide, backbone="registered:colours", **FEW)
    sp.tl.embed_patches(slide, "registered:colours")
    by_table = sp.tl.train_vit(slide, backbone="table:embedding", **FEW)
    np.testing.assert_allclose(predicted(slide, by_table), predicted(slide, frozen), rtol=1e-4, atol=1e-5)


def test_a_model_of_a_table_is_judged_and_sees_only_what_the_table_holds(slide: sd.SpatialData, tmp_path: Path) -> None:
    sp.tl.embed_patches(slide, "registered:colours")
    model = sp.tl.train_vit(slide, backbone="table:embedding", **FEW)
    model.save(tmp_path / "m")
    loaded = sp.models.SignatureViT.load(tmp_path / "m")
    full = predicted(slide, model)
    slide["embedding"].X[4] = np.nan
    again = predicted(slide, loaded)
    assert np.isnan(again[4]).all()
    np.testing.assert_allclose(np.delete(again, 4, 0), np.delete(full, 4, 0), atol=1e-6)
    slide["embedding"].uns["spatialsig"]["embed_patches"]["weights_sha256"] = "0" * 64
    with pytest.raises(
        InputError, match=r"does not fit the model, .*\n  features `weights_sha256`: .* wanted, .* here"
    ):
        sp.tl.predict(slide, loaded)


def test_embeddings_are_a_table_for_scanpy(slide: sd.SpatialData) -> None:
    sp.tl.embed_patches(slide, Colours())
    table = slide["embedding"]
    assert table.shape == (len(slide["patches"]), 5)
    assert set(table.uns["spatialsig"]["embed_patches"]) == {"backbone", "weights_sha256", "patch_px", "um_per_px"}
    sc.pp.pca(table, n_comps=2)
    with pytest.warns(SpatialsigWarning, match="was trained at 0.5 µm/px and will see 2 µm/px"):
        sp.tl.embed_patches(slide, Colours(), um_per_px=0.5)


def test_an_object_trains_but_says_that_it_cannot_be_saved(slide: sd.SpatialData, tmp_path: Path) -> None:
    model = sp.tl.train_vit(slide, backbone=Colours(), tune="frozen", **FEW)
    assert np.isfinite(predicted(slide, model)).all()
    with pytest.raises(InputError, match="an object of type Colours, which cannot be built again"):
        model.save(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_pretraining_is_where_training_starts(slide: sd.SpatialData, tmp_path: Path) -> None:
    pretrained = sp.tl.pretrain_vit(slide, size=TINY, max_epochs=2, batch_size=16, run_dir=tmp_path / "run")
    losses = pretrained.run["history"]["train_loss"]
    assert losses[1] < losses[0]
    assert (tmp_path / "run" / "history.csv").is_file()
    n_training = int((slide["signatures"].obs["fold"] == 1).sum())
    assert 0 < pretrained.run["n_patches"] <= n_training
    pretrained.save(tmp_path / "p")
    frozen = sp.tl.train_vit(slide, pretrained=tmp_path / "p", tune="frozen", **FEW)
    for name, weight in pretrained.net.named_parameters():
        torch.testing.assert_close(frozen.net.backbone.get_parameter(name), weight, rtol=0, atol=0)
    frozen.save(tmp_path / "m")
    np.testing.assert_array_equal(
        predicted(slide, sp.models.SignatureViT.load(tmp_path / "m")), predicted(slide, frozen)
    )
    with pytest.raises(InputError, match=r"another shape than `size='tiny'`: dim 16, asked for 128; .*Pass the `size`"):
        sp.tl.train_vit(slide, pretrained=pretrained, **FEW | {"size": "tiny"})
    with pytest.raises(InputError, match="cannot be combined with `backbone='registered:colours'`"):
        sp.tl.train_vit(slide, pretrained=pretrained, backbone="registered:colours", **FEW)
    pretrained.um_per_px = 0.5
    with pytest.raises(InputError, match=r"has seen patches at 0.5 µm/px; these are at 2.0"):
        sp.tl.train_vit(slide, pretrained=pretrained, **FEW)


def test_an_unlabelled_slide_of_another_patient_is_learned_from(slide: sd.SpatialData, tmp_path: Path) -> None:
    he_only = sd.SpatialData(
        images={"he_image": slide["he_image"]}, attrs={"spatialsig": {"sample": "H", "patient": "X"}}
    )
    he_only.attrs["spatialsig"]["um_per_global_px"] = slide.attrs["spatialsig"]["um_per_global_px"]
    sp.pp.make_patches(he_only, patch_px=24, um_per_px=2.0, stride_um=48.0)
    found = sp.tl.pretrain_vit(he_only, size=TINY, max_epochs=1)
    assert found.run["n_patches"] == len(he_only["patches"])
    he_only.attrs["spatialsig"]["split"] = {"by": "slide", "n_folds": 2, "seed": 0, "fold": 0}
    with pytest.raises(InputError, match="no patch outside `test_fold=0` to learn from"):
        sp.tl.pretrain_vit(he_only, size=TINY, max_epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": "lora"}, "`tune='lora'` needs a network that was trained before"),
        ({"tune": "half", "backbone": "registered:colours"}, "`tune='half'` is not known"),
        ({"tune": "full", "backbone": "table:signatures"}, "is a table of features, not a network that could learn"),
        ({"backbone": "resnet50"}, "backbone 'resnet50' is not known"),
        ({"backbone_options": {"depth": 3}}, "`backbone_options={'depth': 3}` belong to a `backbone` of others"),
        (
            {"backbone": "registered:colours", "tune": "full", "backbone_options": {"inputpx": 3}},
            "`build_backbone` has no option `inputpx`; did you mean `input_px`",
        ),
    ],
)
def test_requests_that_do_not_fit_are_refused(slide: sd.SpatialData, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sp.tl.train_vit(slide, **FEW | options)


def test_augmentation_of_a_frozen_network_is_refused(slide: sd.SpatialData) -> None:
    from spatialsig.nn.augment import AugmentConfig

    with pytest.raises(InputError, match="computes the features of every patch once; leave `augment` out"):
        sp.tl.train_vit(slide, backbone="registered:colours", tune="frozen", augment=AugmentConfig(), **FEW)
