"""Predictions over a cohort: what is written, what is skipped, and what a bad slide does."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import spatialdata as sd
import torch

import spatialsig as sp
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.inference.inputs import ModelInputs
from spatialsig.slide.slides import Slide


@pytest.fixture(scope="module")
def cohort(planted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> sp.Cohort:
    """Two labelled slides on disk."""
    sp.settings.progress = False
    where = tmp_path_factory.mktemp("predicted")
    for seed, name in enumerate("AB"):
        sp.io.write(planted.labelled(name, planted.tiny(), seed=seed, stride_um=32.0), where / f"{name}.zarr")
    return sp.Cohort({name: where / f"{name}.zarr" for name in "AB"})


def test_every_patch_gets_its_own_score(cohort: sp.Cohort, planted: ModuleType) -> None:
    """Patches are read in another order than they lie in: each row must still be its patch."""
    model, path = planted.tiny(), cohort.stores["A"]
    outcome = sp.tl.predict(path, model)
    sdata = sd.read_zarr(path)
    source = Slide(sdata).patches().source()
    rows = np.arange(len(sdata["patches"]))
    np.testing.assert_allclose(sdata["signatures_pred"].X, model.predict(read_patches(source, rows)), rtol=1e-4)
    assert outcome[["sample", "outcome", "n_patches", "error"]].to_numpy().tolist() == [
        ["A", "predicted", len(rows), ""]
    ]
    some = np.array([17, 3, 3, 40, 0])
    np.testing.assert_allclose(
        ModelInputs(Slide(sdata).patches(), model, None).predict(some), sdata["signatures_pred"].X[some], rtol=1e-4
    )


def test_turned_views_are_averaged(cohort: sp.Cohort, planted: ModuleType) -> None:
    model = planted.tiny()
    sdata = sd.read_zarr(cohort.stores["A"])
    sp.tl.predict(sdata, model, n_views=8)
    images = read_patches(Slide(sdata).patches().source(), np.arange(5))
    each = [
        model.predict(np.ascontiguousarray(np.rot90(x, k, (2, 3))))
        for x in (images, images[..., ::-1])
        for k in range(4)
    ]
    np.testing.assert_allclose(sdata["signatures_pred"].X[:5], np.mean(each, axis=0), rtol=1e-4, atol=1e-5)
    assert sdata["signatures_pred"].uns["spatialsig"]["predict"]["n_views"] == 8


def test_an_ensemble_says_how_uncertain_it_is(cohort: sp.Cohort, planted: ModuleType) -> None:
    members = [planted.tiny(seed) for seed in range(3)]
    sdata = sd.read_zarr(cohort.stores["A"])
    for member in members:
        sp.tl.predict(sdata, member, key_added=f"m{member.run['seed']}")
        assert "std" not in sdata[f"m{member.run['seed']}"].layers
    sp.tl.predict(sdata, sp.models.SignatureEnsemble(members))
    each = np.stack([sdata[f"m{seed}"].X for seed in range(3)])
    np.testing.assert_allclose(sdata["signatures_pred"].X, each.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sdata["signatures_pred"].layers["std"], each.std(axis=0, ddof=1), rtol=1e-3, atol=1e-5)


def test_what_is_done_is_skipped_until_something_changes(planted: ModuleType) -> None:
    model, slide = planted.tiny(n_latent=4), planted.labelled("C", planted.tiny(), stride_um=32.0)

    def again(**options: object) -> str:
        return sp.tl.predict(slide, model, skip_done=True, **options)["outcome"][0]

    assert [again(), again()] == ["predicted", "skipped"]
    assert [again(use_rep="X_id"), again(use_rep="X_id")] == ["predicted", "skipped"]
    slide["signatures"].obsm["X_id"] += 1
    assert [again(use_rep="X_id"), again(use_rep="X_id")] == ["predicted", "skipped"]
    assert [again(n_views=2), again(n_views=2)] == ["predicted", "skipped"]
    with torch.no_grad():
        model.net.linear.bias += 1e-3
    assert [again(n_views=2), again(n_views=2)] == ["predicted", "skipped"]
    slide.attrs["spatialsig"]["split"]["fold"] = 1  # the table tells the fold of every patch
    assert [again(n_views=2), again(n_views=2)] == ["predicted", "skipped"]
    sp.pp.make_patches(slide, patch_px=32, um_per_px=2.0, stride_um=20.0, min_tissue=0)
    del slide["signatures"]
    assert [again(n_views=2), again(n_views=2)] == ["predicted", "skipped"]


def test_stale_predictions_and_those_of_other_names_are_made_again(planted: ModuleType) -> None:
    model, slide = planted.tiny(), planted.bare("D", stride_um=32.0)

    def again() -> str:
        return sp.tl.predict(slide, model, skip_done=True)["outcome"][0]

    def state() -> str:
        return sp.io.status(slide).set_index("part").loc["signatures_pred", "state"]

    assert [again(), again()] == ["predicted", "skipped"]
    slide["patches"].index = list(slide["patches"].index)[::-1]
    assert state() == "stale"
    assert [again(), state(), again()] == ["predicted", "fresh", "skipped"]
    model.signatures = model.signatures[::-1]
    assert [again(), again()] == ["predicted", "skipped"]
    assert tuple(slide["signatures_pred"].var_names) == model.signatures


def test_a_store_remembers_what_is_done(cohort: sp.Cohort, planted: ModuleType) -> None:
    first = sp.tl.predict(cohort, planted.tiny(), skip_done=True, key_added="again")
    slide = cohort["A"]
    del slide["again"]
    Slide(slide, cohort.stores["A"]).put("again", slide["signatures"], made_by="tl.predict")
    second = sp.tl.predict(cohort, planted.tiny(), skip_done=True, key_added="again")
    assert [first["outcome"].tolist(), second["outcome"].tolist()] == [["predicted"] * 2, ["predicted", "skipped"]]


def test_one_bad_slide_does_not_stop_the_others(cohort: sp.Cohort, planted: ModuleType, tmp_path: Path) -> None:
    unpatched = cohort["A"]
    sp.io.write(sd.SpatialData(images={"he_image": unpatched["he_image"]}), tmp_path / "unpatched.zarr")
    unread = tmp_path / "gone.zarr"
    copied = cohort["B"]
    copied.attrs["spatialsig"]["sample"] = "gone"
    sp.io.write(copied, unread)
    both = sp.Cohort({"gone": unread, "bare": tmp_path / "unpatched.zarr", "B": cohort.stores["B"]})
    (unread / "zarr.json").unlink()
    with pytest.warns(
        SpatialsigWarning, match="2 of 3 slides could not be predicted:\n  gone: StoreError: .*\n  bare: Key"
    ):
        outcome = sp.tl.predict(both, planted.tiny(seed=5), on_error="collect", key_added="after")
    assert outcome["outcome"].tolist() == ["failed", "failed", "predicted"]
    assert "Call `sp.pp.make_patches` first" in outcome["error"][1]
    assert "after" in cohort["B"]
    with pytest.raises(sp.errors.SpatialsigError, match=r"2 of 3 slides failed(?s:.*)is not a SpatialData Zarr store"):
        sp.tl.predict(both, planted.tiny())
    with pytest.raises(InputError, match="`on_error='ignore'` of `sp.tl.predict` must be 'raise' or 'collect'"):
        sp.tl.predict(both, planted.tiny(), on_error="ignore")


def test_a_slide_without_patches_in_its_table_is_empty(planted: ModuleType, cohort: sp.Cohort) -> None:
    sdata = sd.read_zarr(cohort.stores["A"])
    assert ModelInputs(Slide(sdata).patches(), planted.tiny(), None).predict(np.empty(0, np.int64)).shape == (0, 3)


EMPTY: dict[str, Callable[[sp.Cohort, sp.models.SignatureViT], object]] = {
    "filter_cells": lambda none, _: sp.pp.filter_cells(none),
    "split": lambda none, _: sp.pp.split(none),
    "highly_variable_genes": lambda none, _: sp.pp.highly_variable_genes(none, test_fold=None),
    "make_patches": lambda none, _: sp.pp.make_patches(none),
    "score_cells": lambda none, _: sp.tl.score_cells(none, "seed", test_fold=None),
    "aggregate_patches": lambda none, _: sp.tl.aggregate_patches(none),
    "train_autoencoder": lambda none, _: sp.tl.train_autoencoder(none, test_fold=None),
    "train_vit": lambda none, _: sp.tl.train_vit(none),
    "predict": sp.tl.predict,
    "calibrate": lambda none, model: sp.tl.calibrate(none, model, fold=0),
    "evaluate": sp.tl.evaluate,
    "baselines": lambda none, _: sp.tl.baselines(none),
    "findings": lambda none, _: sp.tl.findings(none),
    "noise_ceiling": lambda none, _: sp.tl.noise_ceiling(none),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_cohort_of_no_slides_is_refused(name: str, planted: ModuleType) -> None:
    with pytest.raises(InputError, match="the cohort holds no slides"):
        EMPTY[name](sp.Cohort({}), planted.tiny())
