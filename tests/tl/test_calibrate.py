"""Intervals against labels whose noise is known."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy.stats import norm

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, LeakageError, SpatialsigWarning

NOISE = 0.3


@pytest.fixture(scope="module")
def model(planted: ModuleType) -> sp.models.SignatureViT:
    return planted.tiny(validation_fold=1)


@pytest.fixture(scope="module")
def cohort(planted: ModuleType, model: sp.models.SignatureViT, tmp_path_factory: pytest.TempPathFactory) -> sp.Cohort:
    """The training slide A, B and C to calibrate on."""
    sp.settings.progress = False
    where = tmp_path_factory.mktemp("calibrated")
    for seed, (name, fold) in enumerate(zip("ABC", (2, 1, 1), strict=True)):
        slide = planted.labelled(name, model, seed=seed, noise=NOISE, fold=fold)
        sp.io.write(slide, where / f"{name}.zarr")
    return sp.Cohort({name: where / f"{name}.zarr" for name in "ABC"})


@pytest.fixture
def judged(planted: ModuleType, model: sp.models.SignatureViT) -> sd.SpatialData:
    """A slide that nothing was measured on."""
    return planted.labelled("D", model, seed=3, noise=NOISE)


def held(sdata: sd.SpatialData) -> pd.Series:
    pred, truth = sdata["signatures_pred"], sdata["signatures"]
    inside = (truth.X >= pred.layers["lower"]) & (truth.X <= pred.layers["upper"])
    return pd.Series(inside.mean(axis=0), pred.var_names)


def test_widths_are_the_quantiles_of_the_planted_noise(
    cohort: sp.Cohort, planted: ModuleType, judged: sd.SpatialData, tmp_path: Path
) -> None:
    model = planted.tiny(validation_fold=1)
    found = sp.tl.calibrate(cohort, model, coverage=0.9).set_index("signature")
    assert model.intervals["H&E"]["samples"] == ["B", "C"]
    assert found.loc["Immune_T", "half_width"] == pytest.approx(NOISE * norm.ppf(0.95), rel=0.08)
    assert found.loc["Immune_T", "n_slides"] == 2
    assert 0.8 < found.loc["Immune_T", "lowest"] <= found.loc["Immune_T", "highest"] <= 1
    assert np.isnan(found.loc["Absent", "half_width"])
    model.save(tmp_path / "m")
    back = sp.models.SignatureViT.load(tmp_path / "m")
    assert back.intervals == model.intervals
    sp.tl.predict(judged, back)
    assert held(judged)[["Immune_T", "Fibroblast"]].tolist() == pytest.approx([0.9, 0.9], abs=0.05)
    layers = judged["signatures_pred"].layers
    assert "std" not in layers
    np.testing.assert_allclose(
        (layers["lower"] + layers["upper"])[:, :2] / 2, judged["signatures_pred"].X[:, :2], rtol=1e-4
    )
    assert np.isnan(layers["upper"][:, 2]).all()


def test_a_model_that_knows_its_deviation_gets_wider_intervals_where_it_is_unsure(planted: ModuleType) -> None:
    model = planted.tiny(gaussian=True, training_samples=[])
    slides = {n: planted.labelled(n, model, seed=s, noise=1.0) for s, n in enumerate("EF")}
    found = sp.tl.calibrate(slides["E"], model, coverage=0.9).set_index("signature")
    record = model.intervals["H&E"]
    assert record["scaled"]
    assert record["width"][:2] == pytest.approx([norm.ppf(0.95)] * 2, rel=0.12)
    assert np.isnan(found.loc["Immune_T", "lowest"])
    sp.tl.predict(slides["F"], model)
    layers = slides["F"]["signatures_pred"].layers
    width = (layers["upper"] - layers["lower"])[:, 0]
    np.testing.assert_allclose(width / layers["std"][:, 0], 2 * record["width"][0], rtol=1e-3)
    assert layers["std"][:, 0].max() > 1.2 * layers["std"][:, 0].min()
    assert held(slides["F"])["Immune_T"] == pytest.approx(0.9, abs=0.06)


def test_training_slides_are_refused(cohort: sp.Cohort, planted: ModuleType) -> None:
    with pytest.raises(LeakageError, match="slide 'A' trained the model, so its errors are too small"):
        sp.tl.calibrate(cohort, planted.tiny())
    with pytest.raises(LeakageError, match=r"\(`fold=2`\)"):
        sp.tl.calibrate(cohort, planted.tiny(), fold=2)
    sp.tl.calibrate(cohort.subset(["B", "C"]), planted.tiny())  # without a validation fold: all that is given


def test_held_out_blocks_of_a_training_slide_may_be_used(planted: ModuleType) -> None:
    model = planted.tiny(validation_fold=1, test_fold=0, training_samples=["G"])
    sdata = planted.labelled("G", model)
    sdata.attrs["spatialsig"]["split"] = {"by": "block", "n_folds": 3, "seed": 0, "block_um": 80.0, "buffer_um": 20.0}
    found = sp.tl.calibrate(sdata, model, coverage=0.8)
    sp.tl.predict(sdata, planted.tiny(), key_added="other")
    assert found["n_patches"][0] == (sdata["other"].obs["fold"] == 1).sum() > 0
    with pytest.raises(LeakageError, match="trained the model"):
        sp.tl.calibrate(sdata, model, fold=2)


def test_other_inputs_or_views_get_no_intervals(cohort: sp.Cohort, planted: ModuleType, judged: sd.SpatialData) -> None:
    model = planted.tiny(n_latent=4, validation_fold=1)
    sp.tl.calibrate(cohort, model, use_rep="X_id", n_views=2)
    slide = judged
    for options in ({}, {"use_rep": "X_id"}):
        with pytest.warns(SpatialsigWarning, match="calibrated for 'H&E \\+ X_id' with n_views=2, not for 'H&E"):
            sp.tl.predict(slide, model, **options)
        assert "lower" not in slide["signatures_pred"].layers
    sp.tl.calibrate(cohort, model)
    assert set(model.intervals) == {"H&E", "H&E + X_id"}
    sp.tl.predict(slide, model)
    assert "lower" in slide["signatures_pred"].layers
    assert sp.tl.predict(slide, model, skip_done=True)["outcome"][0] == "skipped"
    sp.tl.calibrate(cohort, model, coverage=0.5)
    assert sp.tl.predict(slide, model, skip_done=True)["outcome"][0] == "predicted"


def test_too_few_slides_or_patches_are_named(cohort: sp.Cohort, planted: ModuleType, judged: sd.SpatialData) -> None:
    model = planted.tiny(validation_fold=1)
    with pytest.raises(InputError, match=r"wants at least 19 slides; there are \d+ labelled patches on 2 slides"):
        sp.tl.calibrate(cohort, model, guarantee="slides")
    with pytest.raises(InputError, match="wants at least 10000 patches"):
        sp.tl.calibrate(cohort, model, coverage=0.9999)
    assert model.intervals is None
    sp.tl.calibrate(cohort, model, guarantee="slides", coverage=0.6)
    with pytest.raises(InputError, match="no labelled patch in `fold=7`"):
        sp.tl.calibrate(cohort, model, fold=7)
    bare = sd.deepcopy(judged)
    del bare.attrs["spatialsig"]["split"]
    with pytest.raises(KeyMissingError, match="slide 'D' has no folds"):
        sp.tl.calibrate(bare, model)
    judged["signatures"].var_names = ["x", "y", "z"]
    with pytest.raises(InputError, match="has the signatures"):
        sp.tl.calibrate(judged, model)
