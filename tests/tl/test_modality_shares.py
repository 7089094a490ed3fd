"""Shares of image and expression in a prediction, of models whose parts are known by construction."""

from itertools import product
from types import ModuleType

import numpy as np
import pytest
import spatialdata as sd
import torch

import spatialsig as sp
from spatialsig.data.patches import read_patches
from spatialsig.inference.modalities import N_OTHERS, ModalityShares
from spatialsig.nn.stacking import Stacking
from spatialsig.slide.slides import Slide

A, B = 3.0, -0.4


class Known:
    """Scores whose parts are known: a sum, an image alone, an expression alone, a product, and a constant."""

    signatures = ("sum", "image", "expression", "product", "constant")

    def predict(self, images: np.ndarray, ae: np.ndarray) -> np.ndarray:
        light, code = images.mean(axis=(1, 2, 3)) / 255, np.asarray(ae)[:, 0].astype(float)
        return np.stack([A * light + B * code, light, code, light * code, np.ones(len(images))], axis=1)


@pytest.fixture(scope="module")
def slide(planted: ModuleType) -> sd.SpatialData:
    """25 patches that touch, with an embedding of four numbers."""
    return planted.labelled("S", planted.tiny(), stride_um=64.0)


def measured(slide: sd.SpatialData, rows: np.ndarray, codes: np.ndarray, columns: tuple[int, ...] = ()) -> dict:
    source = Slide(slide).patches().source(rows)
    shares = ModalityShares(Known(), columns, source, codes, seed=0)  # type: ignore[arg-type]
    for part in np.array_split(np.arange(len(rows)), 3):
        shares.add(read_patches(source, part), codes[part])
    return shares.table()


def test_shares_of_a_sum_are_those_of_its_parts(slide: sd.SpatialData) -> None:
    """Also where image and expression go together, so that one part's variance does not tell its share."""
    rows = np.arange(25)
    light = read_patches(Slide(slide).patches().source(rows), rows).mean(axis=(1, 2, 3)) / 255
    codes = np.random.default_rng(0).normal(size=(25, 4)) * light.std()
    codes[:, 0] += 2 * light
    found = measured(slide, rows, codes)
    whole = A * light + B * codes[:, 0]
    expected = np.cov(A * light, whole)[0, 1] / whole.var(ddof=1)
    assert expected > 1.05  # the expression takes away what the image adds
    np.testing.assert_allclose(found["share_image"][:3], [expected, 1, 0], atol=1e-9)
    np.testing.assert_allclose(found["share_expression"][:3], [1 - expected, 0, 1], atol=1e-9)
    assert np.isnan(found["share_image"][4])
    assert np.isnan(found["share_expression"][4])
    np.testing.assert_array_equal(measured(slide, rows, codes, (1, 3))["share_image"], found["share_image"][[1, 3]])


def test_shapley_values_are_those_of_the_four_coalitions(slide: sd.SpatialData) -> None:
    """A product, over as many patches as stand in for others: each coalition written out."""
    rows = np.arange(3, 3 + N_OTHERS)
    codes = np.random.default_rng(1).normal(1, 1, (N_OTHERS, 4))
    light = read_patches(Slide(slide).patches().source(rows), np.arange(N_OTHERS)).mean(axis=(1, 2, 3)) / 255
    e = codes[:, 0]
    pairs = list(product(range(N_OTHERS), repeat=2))
    nobody = np.mean([light[j] * e[k] for j, k in pairs])
    values = []
    for i in range(N_OTHERS):
        both, image, code = light[i] * e[i], np.mean(light[i] * e), np.mean(light * e[i])
        values.append(((image - nobody) + (both - code), (code - nobody) + (both - image)))
        assert sum(values[-1]) / 2 == pytest.approx(both - nobody)
    of_image = np.array(values)[:, 0] / 2
    whole = light * e
    expected = np.cov(of_image, whole)[0, 1] / whole.var(ddof=1)
    assert 0.05 < expected < 0.95
    found = measured(slide, rows, codes)
    assert found["share_image"][3] == pytest.approx(expected, abs=1e-9)


def test_patches_without_an_embedding_are_left_out(slide: sd.SpatialData) -> None:
    rows, codes = np.arange(25), np.random.default_rng(2).normal(size=(25, 4))
    codes[::2] = np.nan
    found, kept = measured(slide, rows, codes), measured(slide, rows[1::2], codes[1::2])
    np.testing.assert_allclose(found["share_image"][:3], kept["share_image"][:3], atol=1e-9)
    nothing = measured(slide, rows, np.full((25, 4), np.nan))
    assert (nothing["share_image"] == 1).all()
    assert (nothing["share_expression"] == 0).all()


def test_a_model_of_the_image_alone_says_so(slide: sd.SpatialData, planted: ModuleType) -> None:
    for model, n in ((planted.tiny(), 1), (planted.tiny(n_latent=4), 3)):
        found = sp.tl.attention(sd.deepcopy(slide), model, patches=list(range(n)), n_steps=1)
        assert found["share_image"].tolist() == [1.0] * 3
        assert found["share_expression"].tolist() == [0.0] * 3


def test_a_stacked_model_is_taken_apart_into_what_it_adds_up(slide: sd.SpatialData, planted: ModuleType) -> None:
    """Scores that are .3 of the regression on the embedding and .7 of the network on the image, exactly."""
    model = planted.tiny(n_latent=4)
    stacking = Stacking(2, 4, 3)
    rng = torch.Generator().manual_seed(0)
    stacking.width.fill_(1.0)
    stacking.linear.copy_(torch.randn(4, 3, generator=rng) * 0.01)
    stacking.shares.copy_(torch.tensor([[0.3], [0.7], [0.0]]).expand(3, 3))
    model.net.stack(stacking.eval())
    model.config = model.net.config
    data = sd.deepcopy(slide)
    found = sp.tl.attention(data, model, use_rep="X_id", n_steps=1)
    codes = data["signatures"].obsm["X_id"]
    image = 0.7 * (model.predict(read_patches(Slide(data).patches().source(), np.arange(25))) - model.target_mean)
    code = 0.3 * stacking.expression(torch.from_numpy(codes)).numpy() * model.target_std
    whole = image + code
    expected = [np.cov(image[:, k], whole[:, k])[0, 1] / whole[:, k].var(ddof=1) for k in range(3)]
    assert all(0.05 < share < 0.95 for share in expected), expected
    np.testing.assert_allclose(found["share_image"], expected, atol=1e-3)
    np.testing.assert_allclose(found["share_image"] + found["share_expression"], 1)
    kept = data.attrs["spatialsig"]["attention"]["attention"]["deletion"]
    assert kept["share_image"] == found["share_image"].tolist()
    stacking.shares.copy_(torch.tensor([[1.0], [0.0], [0.0]]).expand(3, 3))  # nothing of the network is left
    blind = sp.tl.attention(data, model, use_rep="X_id", method="rollout")
    np.testing.assert_allclose(blind["share_expression"], 1, atol=1e-6)


def test_an_ensemble_is_asked_as_one(slide: sd.SpatialData, planted: ModuleType) -> None:
    """Two copies of a model say what it says alone."""
    model = planted.tiny(n_latent=4)
    one, two = (
        sp.tl.attention(sd.deepcopy(slide), asked, use_rep="X_id", signatures=["Immune_T"], n_steps=1)
        for asked in (model, sp.models.SignatureEnsemble([model, model]))
    )
    assert one["share_image"].item() == pytest.approx(two["share_image"].item(), abs=1e-4)
    assert 0 < one["share_image"].item() < 1
