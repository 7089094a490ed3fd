"""A model is given the pixels, features and embeddings of its own patches, or nothing."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import spatialdata as sd
import torch

from spatialsig.data.features import FeatureSource
from spatialsig.data.patches import PatchSource
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.inference.inputs import ModelInputs, check_patches, input_source, inputs_name, usable
from spatialsig.slide.slides import Slide


@dataclass
class Config:
    backbone: str = "vit"


@dataclass
class Brightness:
    """Predict brightness, and on top of it the embedding: a model that is easy to be recomputed by hand."""

    signatures: tuple[str, ...] = ("bright", "dark")
    patch_px: int = 56
    um_per_px: float = 1.0
    config: Config = field(default_factory=Config)
    net: torch.nn.Module = field(default_factory=torch.nn.Identity)
    run: dict[str, Any] = field(default_factory=dict)
    knows_uncertainty: bool = False

    def predict(self, images: np.ndarray, ae: np.ndarray | None = None, **_: object) -> np.ndarray:
        bright = images.reshape(len(images), -1).mean(axis=1).astype(np.float32)
        bright = bright if ae is None else bright + 1000 * ae[:, 0]
        return np.stack([bright, -bright], axis=1)


@pytest.fixture
def features(patched: sd.SpatialData) -> sd.SpatialData:
    """A table ``uni`` that holds the number of each patch, in another order and without every third patch."""
    table = patched["signatures"]
    uni = table[::-1].copy()
    uni.X = np.repeat(uni.obs["patch_id"].to_numpy(np.float32)[:, None], table.n_vars, axis=1)
    patched["uni"] = uni[uni.obs["patch_id"] % 3 != 0].copy()
    return patched


def test_patches_of_another_design_are_refused(patched: sd.SpatialData) -> None:
    patches = Slide(patched).patches()
    check_patches(patches, Brightness())
    for model in (Brightness(patch_px=224), Brightness(um_per_px=0.5)):
        message = (
            rf"slide 'toy': patches are 56 px at 1.0 µm/px; the model wants {model.patch_px} px at {model.um_per_px} µm/px"
            rf".*make_patches\(slide, patch_px={model.patch_px}, um_per_px={model.um_per_px}\)"
        )
        with pytest.raises(InputError, match=message):
            check_patches(patches, model)


def test_a_network_is_given_pixels_or_the_rows_of_its_table(features: sd.SpatialData) -> None:
    patches = Slide(features).patches()
    rows = np.array([4, 2, 7])
    pixels = input_source(patches, "vit", rows)
    assert isinstance(pixels, PatchSource)
    np.testing.assert_array_equal(pixels.origins, patches.origins[rows])
    table = input_source(patches, "table:uni", rows)
    assert isinstance(table, FeatureSource)
    np.testing.assert_array_equal(table.features[:, 0], patches.ids.to_numpy()[rows])
    assert len(input_source(patches, "table:uni")) == len(patches)
    with pytest.raises(KeyMissingError, match="`backbone='none'` is not in the tables"):
        input_source(patches, "table:none")


def test_patches_are_usable_with_a_label_and_something_to_see(features: sd.SpatialData) -> None:
    patches = Slide(features).patches()
    labels = patches.labels("signatures")
    labelled = np.isfinite(features["signatures"].X).any(axis=1)
    np.testing.assert_array_equal(usable(patches, labels, "vit"), labelled)
    seen = patches.ids.to_numpy() % 3 != 0
    np.testing.assert_array_equal(usable(patches, labels, "table:uni"), labelled & seen)
    assert 0 < (labelled & seen).sum() < labelled.sum()


def test_scores_belong_to_the_rows_asked_for(patched: sd.SpatialData) -> None:
    table = patched["signatures"]
    table.obsm["X_ae"] = np.arange(table.n_obs, dtype=np.float32)[:, None]
    patches = Slide(patched).patches()
    rows = np.random.default_rng(0).permutation(len(patches))[:70]  # more than one batch
    image = patched["he_image"]["scale0"]["image"].to_numpy()
    bright = np.array([image[:, y : y + 56, x : x + 56].mean() for y, x in patches.origins[rows]])
    alone = ModelInputs.of(patches, Brightness(), signatures_key="signatures", use_rep=None)
    assert alone.embedding_of(rows) is None
    np.testing.assert_allclose(alone.predict(rows)[:, 0], bright, rtol=1e-4)
    both = ModelInputs.of(patches, Brightness(), signatures_key="signatures", use_rep="X_ae")
    np.testing.assert_array_equal(both.embedding_of(rows)[:, 0], rows)
    np.testing.assert_allclose(both.predict(rows)[:, 1], -(bright + 1000 * rows), rtol=1e-4)
    assert both.predict_with_deviation(rows)[1] is None


def test_inputs_made_otherwise_are_refused(patched: sd.SpatialData) -> None:
    model = Brightness(run={"inputs": {"image": {"stain": "macenko"}}})
    with pytest.raises(
        InputError, match="slide 'toy' does not fit the model.*\n.*`stain`: 'macenko' wanted, 'none' here"
    ):
        ModelInputs.of(Slide(patched).patches(), model, signatures_key="signatures", use_rep=None)


def test_inputs_have_names_for_people() -> None:
    assert inputs_name(None) == "H&E"
    assert inputs_name("X_ae") == "H&E + X_ae"
