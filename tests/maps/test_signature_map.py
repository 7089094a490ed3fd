"""Dense maps against loops written out: blended means, places that add up to their patch, and where the map lies."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import spatialdata as sd
import torch
from shapely import box
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.data.patches import PatchSource, image_levels, read_patches
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.inference.local import scores_of_places
from spatialsig.maps.grid import Bins
from spatialsig.models.vit import SignatureViT
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import ViTConfig
from spatialsig.slide.slides import Slide

SMALL = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 6), stem_blocks=(0, 0))


def untrained(vit: ViTConfig = SMALL, *, seed: int = 0, **options: object) -> SignatureViT:
    """Model of two scores on patches of 28 px at 2 um/px, whose head bends."""
    torch.manual_seed(seed)
    config = SignatureConfig(vit=vit, n_targets=2, **options)
    scale = {"target_mean": np.array([1.0, -2.0]), "target_std": np.array([3.0, 0.5])}
    if config.n_latent:
        scale |= {"ae_mean": np.zeros(config.n_latent), "ae_std": np.ones(config.n_latent)}
    return SignatureViT(config, ["A", "B"], patch_px=28, um_per_px=2.0, **scale)


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    return sp.datasets.toy_study()


@pytest.fixture
def slide(study: sd.SpatialData) -> sd.SpatialData:
    return sd.deepcopy(study)


def images_of(slide: sd.SpatialData, n: int = 6) -> np.ndarray:
    return read_patches(Slide(slide).patches().source(), np.arange(n))


@pytest.mark.parametrize("edges", [1, 4, 7, 14, 5])
@pytest.mark.parametrize(
    "model",
    [
        untrained(),
        untrained(ViTConfig(dim=16, depth=0, heads=2, mlp_dim=16, stem=(4,), stem_blocks=(1,), n_registers=2)),
        untrained(ViTConfig(dim=16, depth=2, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0), stem_features=False)),
        untrained(fusion="token", n_latent=3),
        untrained(fusion="gated", n_latent=3),
        sp.models.SignatureEnsemble([untrained(seed=1), untrained(seed=2)]),
    ],
    ids=["default", "no block, registers", "tokens alone", "fused by token", "fused by gate", "ensemble"],
)  # fmt: skip
def test_the_places_of_a_patch_have_its_score_as_their_mean(
    model: sp.models.SignatureViT, edges: int, study: sd.SpatialData
) -> None:
    images = images_of(study)
    places = scores_of_places(model, images, edges=edges, precision="32")
    np.testing.assert_allclose(places.mean(axis=(2, 3)), model.predict(images), rtol=1e-5, atol=1e-5)
    assert edges == 1 or places.std(axis=(2, 3)).min() > 1e-4


def test_where_the_score_is_linear_a_place_has_the_score_of_its_own_tokens(study: sd.SpatialData) -> None:
    """The linear part read from each token by hand; nothing else is left of the network."""
    model = untrained(
        ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 6), stem_blocks=(0, 0), stem_features=False)
    )
    torch.nn.init.zeros_(model.net.head[-1].weight)
    images = images_of(study, 3)
    with torch.no_grad():
        tokens = model.net.backbone.forward_features(torch.from_numpy(images))  # 7 x 7 of them
        values = model.net.linear(model.net.whiten(tokens)) + model.net.head[-1].bias
    expected = values.numpy().reshape(3, 7, 7, 2).transpose(0, 3, 1, 2) * [[[3.0]], [[0.5]]] + [[[1.0]], [[-2.0]]]
    places = scores_of_places(model, images, edges=7, precision="32")
    np.testing.assert_allclose(places, expected, rtol=1e-4, atol=1e-4)


def test_a_place_says_what_more_of_it_would_do_to_the_score(study: sd.SpatialData) -> None:
    """The patch with a little more of one place, by the weights of the means: the score moves as the place says."""
    model = untrained()
    image = torch.from_numpy(images_of(study, 1))
    vit, share = model.net.backbone, 1e-3
    places = scores_of_places(model, image.numpy(), edges=7, precision="32")[0]

    def score(place: int | None) -> np.ndarray:
        with torch.no_grad():
            stages = vit.stages(image)
            tokens, features = vit.forward_tokens(stages[-1])[0], []
            weight = torch.full((49,), (1 - share if place is not None else 1) / 49)
            if place is not None:
                weight[place] += share
            features.append(weight @ tokens)
            for stage in stages:
                k = stage.shape[2] // 7
                w = weight.reshape(7, 7).repeat_interleave(k, 0).repeat_interleave(k, 1) / k**2
                mean = (stage[0] * w).sum(dim=(1, 2))
                spread = (((stage[0] - mean[:, None, None]) ** 2 * w).sum(dim=(1, 2)) + 1e-5).sqrt()
                features += [mean, spread]
            found = model.net.read(model.net.whiten(torch.cat(features)[None]), None, None).mean[0]
        return found.double().numpy() * [3.0, 0.5] + [1.0, -2.0]

    for place in (0, 24, 45):
        moved = (score(place) - score(None)) / share
        expected = places[:, place // 7, place % 7] - score(None)
        np.testing.assert_allclose(moved, expected, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(("method", "bin_um", "stride_um"), [("patch", 14.0, 14.0), ("token", 8.0, 16.0)])
def test_a_bin_is_the_weighted_mean_of_the_patches_over_it(
    slide: sd.SpatialData, method: str, bin_um: float, stride_um: float
) -> None:
    model = untrained()
    sp.pp.find_tissue(slide)
    sp.tl.signature_map(slide, model, method=method, bin_um=bin_um, stride_um=stride_um, min_tissue=0.4)
    map_, record = (
        slide["signature_map"]["scale0"]["image"],
        slide.attrs["spatialsig"]["signature_map"]["signature_map"],
    )
    edges, step, size = 56 // round(bin_um), round(stride_um / bin_um), 56
    assert (record["edges"], record["step"]) == (edges, step)
    levels = image_levels(slide, "he_image")
    height, width = levels[0].shape
    tissue = slide["tissue"].union_all()

    total, weight = np.zeros((2, height // 4, width // 4)), np.zeros((height // 4, width // 4))
    offset = get_transformation(map_).transformations[1].translation  # x, y of the corner, px of the H&E
    at = lambda n: sorted({*range(0, int((n - size) / bin_um) + 1, step), int((n - size) / bin_um)})  # noqa: E731
    rows = [(y, x) for y in at(height) for x in at(width)]
    corners = np.array([[round(y * bin_um), round(x * bin_um)] for y, x in rows])
    share = np.array([box(x, y, x + size, y + size).intersection(tissue).area / size**2 for y, x in corners])
    assert (np.abs(share - 0.4) > 0.02).sum() > 20
    kept = np.flatnonzero(share >= 0.4)
    images = read_patches(PatchSource("s", levels, corners, 56.0, 28), kept)
    each = model.predict(images)[:, :, None, None] * np.ones((edges, edges))
    if method == "token":
        each = scores_of_places(model, images, edges=edges, precision="32")
    for k, values in zip(kept, each, strict=True):
        for i in range(edges):
            for j in range(edges):
                w = (1 - abs((i + 0.5) / edges - 0.5) * 2) * (1 - abs((j + 0.5) / edges - 0.5) * 2)
                total[:, rows[k][0] + i, rows[k][1] + j] += w * values[:, i, j]
                weight[rows[k][0] + i, rows[k][1] + j] += w
    first = np.rint(np.asarray(offset)[::-1] / bin_um).astype(int)
    shown = map_.to_numpy()
    expected = (total / np.where(weight > 0, weight, np.nan))[:, first[0] :, first[1] :][
        :, : shown.shape[1], : shown.shape[2]
    ]
    shown = shown[:, : expected.shape[1], : expected.shape[2]]
    known = np.isfinite(shown)
    assert known.mean() > 0.3
    close = np.isclose(shown, expected, rtol=1e-3, atol=1e-3)
    # at the rim of the tissue a patch may be taken by one measure of tissue and not by the other
    assert close[known].mean() > 0.97
    assert np.isnan(shown).any()


def test_the_map_lies_over_its_tissue_in_a_store_at_every_level(slide: sd.SpatialData, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    sp.io.write(slide, store)
    outcome = sp.tl.signature_map(store, untrained(), signatures=["B"])
    assert outcome["outcome"].tolist() == ["predicted"]
    back = sd.read_zarr(store)
    map_ = back["signature_map"]
    levels = [map_[scale]["image"] for scale in map_.children]
    assert len(levels) >= 2
    assert all(level.dtype == np.float32 and list(level.coords["c"].values) == ["B"] for level in levels)
    fine, coarse = (levels[k].to_numpy()[0] for k in (0, 1))
    blocks = fine.reshape(coarse.shape[0], 2, coarse.shape[1], 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        np.testing.assert_allclose(coarse, np.nanmean(blocks, axis=(1, 3)), rtol=1e-5)
    axes = ("x", "y")
    matrix = get_transformation(map_).to_affine_matrix(axes, axes)
    image = get_transformation(back["he_image"]).to_affine_matrix(axes, axes)
    in_image = np.linalg.inv(image) @ matrix
    np.testing.assert_allclose(in_image[:2, :2], np.eye(2) * 14, atol=1e-6)  # bins of a quarter of 56 px
    record = back.attrs["spatialsig"]["signature_map"]["signature_map"]
    legend = record["legend"]["B"]
    low, high = np.nanpercentile(fine, [2, 98])
    assert (legend["low"], legend["high"]) == pytest.approx((low, high), rel=1e-5)
    assert record["unit"] == "score, as in the labels of the model"
    assert record["bin_um"] == pytest.approx(14)
    assert sp.io.verify(store)["status"].eq("ok").all()
    assert sp.tl.signature_map(store, untrained(), signatures=["B"], skip_done=True)["outcome"].item() == "skipped"
    again = sp.tl.signature_map(store, untrained(seed=1), signatures=["B"], skip_done=True)
    assert again["outcome"].item() == "predicted"


def test_a_slide_that_is_an_h_and_e_alone_is_read_in_the_stain_of_the_model(slide: sd.SpatialData) -> None:
    model = untrained()
    del slide["signatures"], slide["table"], slide["patches"]
    slide.attrs["spatialsig"].pop("patches")
    plain = untrained()
    model.run["inputs"] = {"image": {"stain": "macenko"}}
    sp.tl.signature_map(slide, model)
    sp.tl.signature_map(slide, plain, key_added="as_scanned")
    ours, theirs = (slide[key]["scale0"]["image"].to_numpy() for key in ("signature_map", "as_scanned"))
    assert not np.allclose(ours, theirs, equal_nan=True)
    assert sorted(slide.images) == ["as_scanned", "he_image", "signature_map"]
    assert not slide.shapes.keys() & {"patches"}


def test_the_stain_of_the_slide_s_own_patches_is_used(slide: sd.SpatialData) -> None:
    sp.pp.normalize_stain(slide)
    model = untrained()
    model.run["inputs"] = {"image": {"stain": "macenko"}}
    sp.tl.signature_map(slide, model)
    assert "patches/stain" in slide.attrs["spatialsig"]["lineage"]["signature_map"]["from"]
    sp.pp.normalize_stain(slide, n_patches=10, seed=3)
    states = sp.io.status(slide).set_index("part")["state"]
    assert states["signature_map"] == "stale"


def test_a_raster_too_large_for_memory_lies_in_a_file(slide: sd.SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    sp.tl.signature_map(slide, untrained())
    monkeypatch.setattr("spatialsig.inference.rasters.IN_MEMORY", 100)
    sp.tl.signature_map(slide, untrained(), key_added="from_file")
    one, other = (slide[key]["scale0"]["image"].to_numpy() for key in ("signature_map", "from_file"))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("patch_um", "bin_um", "stride_um", "edges", "step"),
    [(112, 28, 28, 4, 1), (112, 4, 56, 28, 14), (112, 112, 112, 1, 1), (112, 30, 112, 4, 4), (100, 7, 1, 14, 1)],
)
def test_bins_divide_the_patch_and_steps_are_whole(
    patch_um: float, bin_um: float, stride_um: float, edges: int, step: int
) -> None:
    bins = Bins.of(patch_um, bin_um=bin_um, stride_um=stride_um)
    assert (bins.edges, bins.step) == (edges, step)
    assert bins.weights.shape == (edges, edges)
    assert (bins.weights > 0).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"stride_um": 60.0}, InputError, "`stride_um=60` is larger than a patch of the model, 56 µm"),
        ({"bin_um": 1e-3}, InputError, "the bins of the map would be 0.001 px of the H&E"),
        ({"stride_um": 1e-3}, InputError, "raise `bin_um` or `stride_um`"),
        ({"bin_um": 57.0}, InputError, "`bin_um=57` is larger than a patch"),
        ({"signatures": ["Nope"]}, KeyMissingError, "`signatures='Nope'` is not in the signatures of the model"),
        ({"method": "pixel"}, InputError, "`method='pixel'`"),
        ({"tissue_key": "nowhere"}, KeyMissingError, "`tissue_key='nowhere'`"),
        ({"min_tissue": 1.0, "key_added": "patches"}, InputError, "would be lost"),
    ],
)
def test_errors(slide: sd.SpatialData, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sp.tl.signature_map(slide, untrained(), **options)
    assert "signature_map" not in slide


def test_a_network_of_one_vector_draws_patches_and_says_why_not_more(slide: sd.SpatialData) -> None:
    model = untrained(ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 6), stem_blocks=(0, 0), pool="class"))
    with pytest.raises(
        InputError, match=r"`method='token'` reads the tokens .* only one per patch \(`method='patch'`\)"
    ):
        sp.tl.signature_map(slide, model, method="token")
    sp.tl.signature_map(slide, model)
    assert slide.attrs["spatialsig"]["signature_map"]["signature_map"]["method"] == "patch"


def test_spatialdata_plot_draws_a_channel(slide: sd.SpatialData) -> None:
    pytest.importorskip("spatialdata_plot")
    sp.tl.signature_map(slide, untrained())
    # as docs/maps.md says: it refuses NaN
    slide["shown"] = slide["signature_map"].map_over_datasets(lambda level: level.fillna(-99))
    colours = mpl.colormaps["viridis"].with_extremes(under=(0, 0, 0, 0))
    shown = slide.pl.render_images("he_image").pl.render_images("shown", channel="A", cmap=colours)
    axes = shown.pl.show(return_ax=True, coordinate_systems="global")
    below, above = (image.get_extent() for image in axes.get_images())
    assert below[0] <= above[0] + 1
    assert np.isfinite(np.asarray(axes.get_images()[1].get_array(), float)).any()
    plt.close("all")
