"""The head for nuclei against a regression written out, on features read by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
import torch
from sklearn.linear_model import Ridge

import spatialsig as sp
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.maps.cell_places import cell_places
from spatialsig.maps.grid import HALF, lay_grid
from spatialsig.maps.nucleus_features import nucleus_features
from spatialsig.models import CellHead, SignatureEnsemble, SignatureViT
from spatialsig.slide.slides import Slide


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    return sp.datasets.toy_study()


@pytest.fixture(scope="module")
def model(study: sd.SpatialData) -> SignatureViT:
    return sp.datasets.toy_model(study)


@pytest.fixture(scope="module")
def head(study: sd.SpatialData, model: SignatureViT) -> CellHead:
    return sp.tl.train_cell_head(study, model)


def features_of(study: sd.SpatialData, model: SignatureViT) -> np.ndarray:
    slide = Slide(study)
    places = cell_places(slide, None, table_key="table", image_key="he_image")
    keys = {"tissue_key": None, "image_key": "he_image", "patches_key": "patches"}
    grid = lay_grid(slide, model, HALF, min_tissue=0.25, **keys)
    out = np.full((len(places.xy_px), 4 + 4 + 16 + 6), np.nan)  # stages, tokens, scores
    for rows, values in nucleus_features(grid, model, places, precision="32"):
        out[rows] = values
    return out


def test_a_nucleus_is_read_where_it_lies_in_the_patch_whose_middle_is_nearest(
    study: sd.SpatialData, model: SignatureViT
) -> None:
    slide = Slide(study)
    keys = {"tissue_key": None, "image_key": "he_image", "patches_key": "patches"}
    grid = lay_grid(slide, model, HALF, min_tissue=0.25, **keys)
    found, xy = features_of(study, model), study["table"].obsm["he_px"]
    for cell in (0, 333, 808):
        off = np.abs(grid.patches.centres_px - xy[cell]).max(axis=1)
        patch = int(off.argmin())
        image = read_patches(grid.patches.source(), [patch])
        x, y = (xy[cell] - grid.patches.origins[patch][::-1]) / 2  # px of the model
        with torch.no_grad():
            stage = model.net.backbone.stages(torch.from_numpy(image))[1][0]  # 7 x 7, of 4 px
        row, column = np.clip(y / 4 - 0.5, 0, 6), np.clip(x / 4 - 0.5, 0, 6)
        padded = np.pad(stage.numpy(), ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
        smooth = np.nanmean([padded[:, i : i + 7, j : j + 7] for i in range(3) for j in range(3)], axis=0)
        i, j = min(int(row), 5), min(int(column), 5)
        v, u = row - i, column - j
        expected = (
            smooth[:, i, j] * (1 - v) * (1 - u) + smooth[:, i, j + 1] * (1 - v) * u
            + smooth[:, i + 1, j] * v * (1 - u) + smooth[:, i + 1, j + 1] * v * u
        )  # fmt: skip
        np.testing.assert_allclose(found[cell, 4:8], expected, rtol=1e-3, atol=1e-4)
        scores = found[cell, -6:] * model.target_std + model.target_mean
        np.testing.assert_allclose(scores, model.predict(image)[0], rtol=1e-4, atol=1e-4)


def test_the_head_is_a_ridge_regression_on_training_cells(
    study: sd.SpatialData, model: SignatureViT, head: CellHead
) -> None:
    features, fold = features_of(study, model), study["table"].obs["fold"].to_numpy()
    measured = np.asarray(study["table"].obsm["signatures"], float)
    known = np.isfinite(features).all(axis=1) & (fold > 0)
    assert head.run["n_cells"] == known.sum()
    assert head.run["training_samples"] == ["toy"]
    scaled = (features - features[known].mean(axis=0)) / features[known].std(axis=0)
    ridge = Ridge(alpha=head.run["penalty"] * known.sum()).fit(scaled[known], measured[known])
    whole = np.isfinite(features).all(axis=1)
    np.testing.assert_allclose(head.predict(features[whole]), ridge.predict(scaled[whole]), rtol=1e-3, atol=2e-3)


def test_cells_get_what_the_head_says_also_after_it_was_saved(
    study: sd.SpatialData, model: SignatureViT, head: CellHead, tmp_path: Path
) -> None:
    head.save(tmp_path / "head")
    loaded = CellHead.load(tmp_path / "head")
    assert loaded.sha256 == head.sha256
    assert "trained on toy; fold 0 held out" in repr(loaded)
    sp.tl.predict_cells(study, model, head=loaded)
    expected = head.predict(features_of(study, model))
    np.testing.assert_allclose(study["cells_pred"].X, expected, rtol=1e-5, atol=1e-6)
    assert sp.tl.predict_cells(study, model, head=head, skip_done=True)["outcome"].item() == "skipped"
    assert sp.tl.predict_cells(study, model, skip_done=True)["outcome"].item() == "predicted"  # by the map


def test_a_head_of_two_slides_and_of_an_ensemble(model: SignatureViT, study: sd.SpatialData, tmp_path: Path) -> None:
    for seed, name in enumerate("AB"):
        slide = sp.datasets.toy_study(seed=seed)
        slide.attrs["spatialsig"] |= {"sample": name, "patient": name}
        sp.io.write(slide, tmp_path / f"{name}.zarr")
    cohort = sp.Cohort({name: tmp_path / f"{name}.zarr" for name in "AB"})
    ensemble = SignatureEnsemble([model, model])
    head = sp.tl.train_cell_head(cohort, ensemble, test_fold=None)
    assert head.run["training_samples"] == ["A", "B"]
    assert head.n_features == 2 * 30
    sp.tl.predict_cells(study, ensemble, head=head)
    assert np.isfinite(study["cells_pred"].X).all(axis=1).mean() > 0.9


@pytest.mark.parametrize("what", ["model", "method", "scores", "cells", "tokens"])
def test_errors(what: str, study: sd.SpatialData, model: SignatureViT, head: CellHead) -> None:
    slide = sd.deepcopy(study)
    if what == "model":
        other = sp.tl.train_vit(slide, use_rep=None, size=model.config.vit, max_epochs=1, seed=5)
        with pytest.raises(InputError, match="`head` was trained for another model"):
            sp.tl.predict_cells(slide, other, head=head)
    elif what == "method":
        with pytest.raises(InputError, match=r"`method='head'` needs `head`"):
            sp.tl.predict_cells(slide, model, method="head")
    elif what == "scores":
        slide["table"].uns["spatialsig"].pop("score_cells")
        with pytest.raises(KeyMissingError, match=r"Call `sp\.tl\.score_cells` first"):
            sp.tl.train_cell_head(slide, model)
    elif what == "cells":
        with pytest.raises(KeyMissingError, match="`cells='nowhere'`"):
            sp.tl.train_cell_head(slide, model, cells="nowhere")
    else:
        vit = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0), pool="class")
        classes = sp.tl.train_vit(slide, use_rep=None, size=vit, max_epochs=1)
        with pytest.raises(
            InputError, match=r"`sp\.tl\.train_cell_head` reads the tokens of a network that averages them"
        ):
            sp.tl.train_cell_head(slide, classes)
