"""Patches unlike those that a model has learned from are known while they are predicted."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
from scipy.ndimage import gaussian_filter

import spatialsig as sp
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.inference.domain import DomainWatch, outside_in_words, warn_of_slide
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


def shifted(pixels: np.ndarray, factor: dict[str, float]) -> OutOfDomain:
    """What is found where 100 patches lie so many times as far as they may in each aspect."""
    ratios = np.stack([np.full(100, value, np.float32) for value in factor.values()])
    reason = np.array(list(factor))[ratios.argmax(axis=0)]
    return OutOfDomain(ratios.max(axis=0), reason, dict(zip(factor, ratios, strict=True)))


def test_every_aspect_beyond_its_threshold_is_named(model: SignatureViT, pixels: np.ndarray) -> None:
    found = shifted(pixels, {STAIN: 0.9, SHARPNESS: 1.3, TISSUE: 1.8})
    assert found.aspects == [TISSUE, SHARPNESS]
    assert found.as_record()["reason"] == "tissue, sharpness"
    with pytest.warns(SpatialsigWarning, match="in their tissue and sharpness .*in focus") as said:
        warn_of_slide("S", found, model)
    assert "stain" not in str(said[0].message)
    assert outside_in_words(shifted(pixels, {STAIN: 0.9}).as_record()) == ""


def test_nobody_is_told_to_normalise_what_is_normalised(model: SignatureViT, pixels: np.ndarray) -> None:
    found = shifted(pixels, {STAIN: 1.5})
    with pytest.warns(SpatialsigWarning, match="normalize_stain"):
        warn_of_slide("S", found, model)
    normalised = copy.copy(model)
    normalised.run = model.run | {"inputs": model.run.get("inputs", {}) | {"image": {"stain": "macenko"}}}
    with pytest.warns(SpatialsigWarning, match="differ even after normalisation") as said:
        warn_of_slide("S", found, normalised)
    assert "normalize_stain" not in str(said[0].message)


def out_of_focus(**options: Any) -> sd.SpatialData:
    """A toy slide blurred by 6 µm as a whole."""
    slide = sp.datasets.toy(**options)
    for level in slide["he_image"].values():
        blurred = gaussian_filter(level["image"].to_numpy(), (0, 6, 6))
        level["image"] = level["image"].copy(data=da.from_array(blurred))
    return slide


def test_a_slide_blurred_as_a_whole_fails_alone_beside_the_model(study: sd.SpatialData, model: SignatureViT) -> None:
    """The slide's own median patch is as blurred as all others: only training patches say how sharp they should be."""
    sharp, blurred = sp.datasets.toy(seed=5, size_um=350), out_of_focus(seed=5, size_um=350)
    failed = {}
    for name, slide in {"sharp": sharp, "blurred": blurred}.items():
        sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0)
        for given in (None, model):
            report = sp.pp.qc_patches(slide, model=given)
            failed[name, given is not None] = report["focus"].item() / report["n_patches"].item()
    assert failed["blurred", False] < 0.2
    assert failed["blurred", True] > 0.8
    assert failed["sharp", True] == failed["sharp", False] < 0.2


def test_maps_and_cells_of_a_slide_outside_say_so(model: SignatureViT, tmp_path: Path) -> None:
    slide = out_of_focus()
    with pytest.warns(SpatialsigWarning, match=r"slide 'toy': \d+% of its patches lie outside") as said:
        sp.tl.predict_cells(slide, model, min_tissue=0.0)
    assert len([w for w in said if "lie outside" in str(w.message)]) == 1  # the map is drawn too
    table = slide["cells_pred"]
    known = np.isfinite(table.layers["patch"]).all(axis=1)
    assert (np.isfinite(table.obs["ood"]) == known).all()
    assert np.median(table.obs["ood"][known]) > 1
    assert slide.attrs["spatialsig"]["signature_map"]["signature_map"]["ood"]["slide"] > 1
    with pytest.warns(SpatialsigWarning, match=r"slide 'toy': \d+% of its patches lie outside"):
        sp.tl.signature_map(slide, model, min_tissue=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialsigWarning)
        assert sp.tl.predict_cells(slide, model, min_tissue=0.0, skip_done=True)["outcome"].tolist() == ["skipped"]
    path = tmp_path / "cells.geojson"
    sp.io.export_geojson(slide, path, table_key="cells_pred")
    first = json.loads(path.read_text())["features"][int(np.flatnonzero(known)[0])]["properties"]["measurements"]
    assert first["ood"] == pytest.approx(float(table.obs["ood"].to_numpy()[known][0]), rel=1e-5)
