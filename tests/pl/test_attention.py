"""The right patches, with their own maps, on one scale."""

from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
import torch
from matplotlib import pyplot as plt

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import ViTConfig

NAMES = ("Immune_T", "Fibroblast")


@pytest.fixture(autouse=True)
def close_figures() -> object:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def mapped(drawn: object) -> sd.SpatialData:
    """A slide with maps of both kinds, of 12 patches."""
    torch.manual_seed(0)
    model = sp.models.SignatureViT(
        SignatureConfig(ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 8, 8), stem_blocks=(0, 0, 0)), 2),
        NAMES, target_mean=np.zeros(2), target_std=np.ones(2), patch_px=32, um_per_px=1.0,
    )  # fmt: skip
    sdata = drawn.make_slide(size=(256, 256))
    sp.tl.attention(sdata, model, patches=range(2, 14), n_steps=4)
    sp.tl.attention(sdata, model, patches=range(2, 14), method="rollout", key_added="looked_at")
    return sdata


def test_highest_and_lowest_patches_are_chosen(mapped: sd.SpatialData, tmp_path: Path) -> None:
    axes = sp.pl.attention(mapped, "Fibroblast", n=2, save=tmp_path / "a.png")
    assert axes.shape == (2, 4)
    score = np.asarray(mapped["signatures_pred"][:, "Fibroblast"].X)[2:14, 0]
    order = np.argsort(-score) + 2
    shown = [panel.get_title().split(":")[0] for panel in axes[0]]
    assert shown == [f"patch {k}" for k in [*order[:2], *order[-2:]]]
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_each_patch_shows_its_pixels_and_its_map(mapped: sd.SpatialData) -> None:
    axes = sp.pl.attention(mapped, "Immune_T", patches=[9, 4])
    spec = mapped.attrs["spatialsig"]["patches"]["patches"]
    layer = mapped["attention"].sel(c="Immune_T").values
    origin = np.array(mapped.attrs["spatialsig"]["attention"]["attention"]["origin_l0"])
    for column, patch in enumerate([9, 4]):
        y0, x0 = mapped["patches"].loc[patch, ["y0", "x0"]].astype(int)
        crop = mapped["he_image"]["scale0"]["image"].values[:, y0 : y0 + spec["size_l0"], x0 : x0 + spec["size_l0"]]
        halved = crop.reshape(3, 32, 2, 32, 2).mean(axis=(2, 4)).transpose(1, 2, 0)
        assert np.abs(axes[0, column].images[0].get_array().astype(float) - halved).max() <= 1.5
        y, x = (np.array([y0, x0]) - origin) // (spec["size_l0"] // 4)
        values = layer[y : y + 4, x : x + 4]
        rgba = axes[1, column].images[1].get_array()
        assert rgba.shape == (4, 4, 4)
        assert np.corrcoef(rgba[..., 3].ravel(), np.abs(values).ravel())[0, 1] > 0.9
        assert ((rgba[..., 0] > rgba[..., 2]) == (values > 0)).all()  # red adds, blue takes


def test_rollout_is_drawn_whatever_the_signature(mapped: sd.SpatialData) -> None:
    axes = sp.pl.attention(mapped, "Immune_T", attention_key="looked_at", n=1)
    assert axes.shape == (2, 2)
    assert sp.pl.attention(mapped, attention_key="looked_at", n=1).shape == (2, 2)


def test_errors(mapped: sd.SpatialData, cohort: object) -> None:
    with pytest.raises(KeyMissingError, match="`attention_key='x'`.*Call `sp.tl.attention`"):
        sp.pl.attention(mapped, attention_key="x")
    with pytest.raises(KeyMissingError, match=r"`patches`: \[1\]; there are maps of 12 patches"):
        sp.pl.attention(mapped, patches=[1])
    with pytest.raises(KeyMissingError, match="`signature='Nope'`"):
        sp.pl.attention(mapped, "Nope")
    with pytest.raises(InputError, match="`n=0` of `sp.pl.attention` must be greater than or equal to 1"):
        sp.pl.attention(mapped, n=0)
    with pytest.raises(InputError, match="holds 2 slides"):
        sp.pl.attention(cohort)
