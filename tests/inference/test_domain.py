"""Patches unlike those that a model has learned from are known while they are predicted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd
from scipy.ndimage import gaussian_filter

import spatialsig as sp
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.inference.domain import DomainWatch
from spatialsig.models.domain import DOMAIN, SHARPNESS, STAIN, TISSUE, OutOfDomain
from spatialsig.models.vit import SignatureViT
from spatialsig.slide.slides import Slide

TINY = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    return sp.datasets.toy_study()


@pytest.fixture(scope="module")
def model(study: sd.SpatialData) -> SignatureViT:
    return trained(study)


def trained(study: sd.SpatialData, **options: Any) -> SignatureViT:
    """A model that has learned from all patches of a slide."""
    return sp.tl.train_vit(study, test_fold=None, use_rep=None, max_epochs=1, **{"size": TINY} | options)


@pytest.fixture(scope="module")
def pixels(study: sd.SpatialData) -> np.ndarray:
    patches = Slide(study).patches()
    return read_patches(patches.source(), np.arange(len(patches)))


def watched(model: Any, images: np.ndarray, *, n_views: int = 1) -> OutOfDomain:
    watch = DomainWatch(model, len(images), n_views=n_views, with_expression=False)
    with watch.watching():
        for rows in np.array_split(np.arange(len(images)), 3):
            model.predict(images[rows], n_views=n_views, batch_size=7)
            watch.see(rows, images[rows])
    found = watch.result()
    assert found is not None
    return found


def test_training_patches_lie_inside_and_what_was_planted_is_named(model: SignatureViT, pixels: np.ndarray) -> None:
    own = watched(model, pixels)
    assert own.slide < 1
    assert own.share <= 0.05
    blurred = gaussian_filter(pixels, (0, 0, 3, 3))
    found = watched(model, blurred)
    assert found.ood.mean() > 1.3 * own.ood.mean()
    green = pixels[:, [1, 0, 2]]  # red and green exchanged: no stain of this world
    found = watched(model, green)
    assert found.slide > 1
    assert found.aspect in (STAIN, TISSUE)
    assert set(found.reason) <= {"", STAIN, SHARPNESS, TISSUE}
    assert ((found.ood > 1) == (found.reason != "")).all()


def test_scores_do_not_depend_on_views_batches_or_an_ensemble(model: SignatureViT, pixels: np.ndarray) -> None:
    once = watched(model, pixels)
    np.testing.assert_allclose(watched(model, pixels, n_views=4).ood, once.ood, rtol=1e-4)
    ensemble = sp.models.SignatureEnsemble([model, model])
    assert ensemble.domain is model.domain
    handles = len(model.net.whiten._forward_hooks)
    np.testing.assert_allclose(watched(ensemble, pixels).ood[:30], once.ood[:30], rtol=1e-4)
    assert handles == len(model.net.whiten._forward_hooks) == 0


def test_the_domain_is_saved_under_the_digests_and_old_models_have_none(
    model: SignatureViT, pixels: np.ndarray, tmp_path: Path
) -> None:
    model.save(tmp_path / "m")
    back = SignatureViT.load(tmp_path / "m")
    assert back.domain is not None
    assert back.domain.sha256 == model.domain.sha256
    np.testing.assert_array_equal(watched(back, pixels).ood, watched(model, pixels).ood)
    bare = SignatureViT.load(tmp_path / "m")
    bare.domain = None
    bare.save(tmp_path / "old")
    (tmp_path / "old" / DOMAIN).write_bytes((tmp_path / "m" / DOMAIN).read_bytes())  # no file of this model
    assert SignatureViT.load(tmp_path / "old").domain is None
    with (tmp_path / "m" / DOMAIN).open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match=r"domain\.npz is not what was saved"):
        SignatureViT.load(tmp_path / "m")
    (tmp_path / "m" / DOMAIN).unlink()
    with pytest.raises(FileNotFoundError, match=r"domain\.npz"):
        SignatureViT.load(tmp_path / "m")


def test_predict_writes_it_and_says_once_that_a_slide_lies_outside(study: sd.SpatialData, model: SignatureViT) -> None:
    slide = sd.deepcopy(study)
    sp.tl.predict(slide, model)
    table = slide["signatures_pred"]
    assert (table.obs["ood"] <= 1).mean() > 0.95
    facts = table.uns["spatialsig"]["predict"]["ood"]
    assert facts["share"] == pytest.approx((table.obs["ood"] > 1).mean())
    assert facts["slide"] == pytest.approx(np.quantile(table.obs["ood"], 0.8), rel=1e-5)
    assert sp.tl.predict(slide, model, skip_done=True)["outcome"].tolist() == ["skipped"]
    other = sp.datasets.toy()
    for level in other["he_image"].values():
        level["image"].data = level["image"].data[[1, 0, 2]]
    sp.pp.make_patches(other, patch_px=28, um_per_px=2.0, min_tissue=0.0)
    with pytest.warns(SpatialsigWarning, match=r"slide 'toy': \d+% of its patches lie outside what the model") as said:
        sp.tl.predict(other, model)
    assert len([w for w in said if "lie outside" in str(w.message)]) == 1
    sp.tl.predict(slide, sp.datasets.toy_model(study))  # which has learned from too few patches
    assert "ood" not in slide["signatures_pred"].obs


def test_features_of_a_table_have_a_domain_of_their_own(study: sd.SpatialData) -> None:
    slide = sd.deepcopy(study)
    sp.tl.embed_patches(slide, sp.datasets.toy_model(slide), key_added="features")
    model = trained(slide, backbone="table:features", size="tiny")
    assert list(model.domain.aspects) == [TISSUE]
    sp.tl.predict(slide, model)
    slide["features"].X = slide["features"].X + 100
    assert watched(model, np.asarray(slide["features"].X)).slide > 1


def test_a_model_of_few_patches_has_no_domain(study: sd.SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sp.datasets.toy_model(study).domain is None
    monkeypatch.setattr("spatialsig.inference.domain.MIN_PATCHES", 5)
    assert sp.datasets.toy_model(study).domain is not None
