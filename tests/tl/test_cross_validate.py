"""Every fold is held out once, also from the autoencoder; what is finished is not done again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, LeakageError, SpatialsigWarning
from spatialsig.inference.inputs import ModelInputs
from spatialsig.nn.vit import ViTConfig
from spatialsig.slide.slides import Slide
from spatialsig.tl import _cross_validate

VIT = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 8, 8), stem_blocks=(0, 0, 0))
TRAIN = {"max_epochs": 1, "batch_size": 16, "size": VIT}
AE = {"max_epochs": 1, "hidden": (8,), "n_latent": 3}

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:Position alone:spatialsig.errors.SpatialsigWarning"),
]


@pytest.fixture(scope="module")
def slide(label_slide: Callable[..., sd.SpatialData]) -> sd.SpatialData:
    """One slide, split in blocks with a buffer."""
    sp.settings.progress = False
    return label_slide(sp.datasets.toy(), patch_px=32, um_per_px=2.0, stride_um=32.0)


@pytest.fixture(scope="module")
def done(slide: sd.SpatialData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    place = tmp_path_factory.mktemp("cv")
    # its buffer is less than a patch: that is said
    with pytest.warns(SpatialsigWarning, match="Position alone, without any image, reaches r = "):
        return place, sp.tl.cross_validate(slide, run_dir=place, autoencoder=AE, **TRAIN)


def test_every_patch_is_predicted_by_the_model_that_has_not_seen_it(
    slide: sd.SpatialData, done: tuple[Path, pd.DataFrame]
) -> None:
    table, models = (
        slide["signatures_pred"],
        [sp.models.SignatureViT.load(done[0] / f"fold-{k}" / "vit") for k in (0, 1)],
    )
    fold = table.obs["fold"].to_numpy()
    assert set(fold) == {-1, 0, 1}
    each = [ModelInputs(Slide(slide).patches(), model, None).predict(np.arange(len(fold))) for model in models]
    for k in (0, 1):
        assert models[k].run["test_fold"] == k
        np.testing.assert_allclose(table.X[fold == k], each[k][fold == k], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(table.X[fold == -1], np.mean(each, axis=0)[fold == -1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(each[0], each[1])


def test_the_autoencoder_of_a_fold_has_not_seen_it(slide: sd.SpatialData, done: tuple[Path, pd.DataFrame]) -> None:
    scored = {g for genes in sp.io.read_signatures("seed").values() for g in genes}
    for k in (0, 1):
        ae = sp.models.Autoencoder.load(done[0] / f"fold-{k}" / "autoencoder")
        assert ae.run["test_fold"] == k
        assert ae.run["n_training_cells"] == (slide["table"].obs["fold"] == 1 - k).sum()
        assert not scored & set(ae.genes)
        cells = ae.get_latent_representation(slide["table"][:, list(ae.genes)].X)
        member = slide["table"].obsm["patch_membership"].toarray().astype(float)
        expected = member.T @ cells / np.where(member.any(axis=0), member.sum(axis=0), np.nan)[:, None]
        np.testing.assert_allclose(slide["signatures"].obsm[f"X_ae_fold{k}"], expected, rtol=1e-4, atol=1e-5)
        assert sp.models.SignatureViT.load(done[0] / f"fold-{k}" / "vit").run["use_rep"] == f"X_ae_fold{k}"
    assert not slide["signatures"].uns["spatialsig"].get("embed_cells")  # as it was


def test_the_frame_holds_all_folds(slide: sd.SpatialData, done: tuple[Path, pd.DataFrame]) -> None:
    place, frame = done
    assert set(frame["fold"]) == {0, 1}
    assert {"he_only", "fused", "ae_only", "coordinates"} <= set(frame["method"])
    truth, pred, fold = slide["signatures"].X, slide["signatures_pred"].X, slide["signatures"].obs["fold"].to_numpy()
    for k in (0, 1):
        rows = (fold == k) & np.isfinite(truth).all(axis=1)
        expected = pd.Series(truth[rows, 0]).corr(pd.Series(pred[rows, 0]))
        name = slide["signatures"].var_names[0]
        row = frame[(frame["fold"] == k) & (frame["method"] == "he_only") & (frame["signature"] == name)]
        assert row["pearson"].item() == pytest.approx(expected, abs=1e-4)
    assert len(pd.read_csv(place / "evaluation.csv")) == len(frame)


def test_finished_folds_are_not_run_again(
    slide: sd.SpatialData, done: tuple[Path, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, frame = done
    ran = []
    monkeypatch.setattr(_cross_validate, "_run_fold", lambda plan, fold: ran.append(fold))
    again = sp.tl.cross_validate(slide, run_dir=place, autoencoder=AE, **TRAIN)
    pd.testing.assert_frame_equal(again, frame)
    assert ran == []
    manifest = place / "cross_validation.json"
    kept = manifest.read_text()
    sp.tl.cross_validate(slide, run_dir=place, autoencoder=AE, **TRAIN | {"learning_rate": 1e-3})
    assert ran == [0, 1]
    manifest.write_text(kept.replace('"fold-1"', '"fold-9"'))
    sp.tl.cross_validate(slide, run_dir=place, autoencoder=AE, **TRAIN)
    assert ran == [0, 1, 1]
    manifest.write_text("{")
    with pytest.raises(InputError, match="cross_validation.json is damaged"):
        sp.tl.cross_validate(slide, run_dir=place, autoencoder=AE, **TRAIN)
    manifest.write_text(kept)


def test_what_would_leak_or_cannot_be_is_refused(slide: sd.SpatialData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\['test_fold'\] cannot be given"):
        sp.tl.cross_validate(slide, run_dir=tmp_path, test_fold=1)
    slide["signatures"].uns["spatialsig"]["embed_cells"] = {"key": "X_ae", "genes": ["a"]}
    with pytest.raises(
        LeakageError, match="'X_ae' is the embedding of an autoencoder that was trained on these slides"
    ):
        sp.tl.cross_validate(slide, run_dir=tmp_path, refit_autoencoder=False)
    del slide["signatures"].uns["spatialsig"]["embed_cells"]
    other = sd.deepcopy(slide)
    del other["signatures"].uns["spatialsig"]["score_cells"]
    with pytest.raises(KeyMissingError, match="does not say which genes were scored"):
        sp.tl.cross_validate(other, run_dir=tmp_path)
    del other.attrs["spatialsig"]["split"]
    with pytest.raises(KeyMissingError, match="has no folds to hold out"):
        sp.tl.cross_validate(other, run_dir=tmp_path)


def test_an_ensemble_goes_on_where_it_stopped(
    slide: sd.SpatialData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spatialsig.tl import _ensemble

    options = TRAIN | {"use_rep": None, "seed": 3, "run_dir": tmp_path}
    first = sp.tl.train_ensemble(slide, n_members=2, **options)
    assert [m.run["seed"] for m in first.members] == [3, 4]
    trained = []
    original = _ensemble._member
    monkeypatch.setattr(
        _ensemble, "_member", lambda data, seed, *options: trained.append(seed) or original(data, seed, *options)
    )
    again = sp.tl.train_ensemble(slide, n_members=3, **options)
    assert trained == [5]
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    for a, b in zip(first.members, again.members[:2], strict=True):
        np.testing.assert_array_equal(a.predict(images), b.predict(images))
    with pytest.raises(InputError, match="`n_members=1` must be at least 2"):
        sp.tl.train_ensemble(slide, n_members=1)
