import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy.ndimage import gaussian_filter
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError

COLUMNS = ["focus", "white_share", "pen_share", "fold_share", "stain_outlier"]
INKS = [(28, 44, 150), (18, 106, 72), (30, 30, 36)]


@pytest.fixture(scope="module")
def clean() -> sd.SpatialData:
    return sp.datasets.toy(seed=4, size_um=900, he_um_per_px=0.5)


def plant(pixels: np.ndarray, um: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Blur, ink, a fold and a hole in the four quarters of an image ``(3, h, w)``, and where each is."""
    image = pixels.astype(np.float32)
    h, w = image.shape[1:]
    y, x = np.mgrid[:h, :w]
    masks = {name: np.zeros((h, w), bool) for name in COLUMNS[:4]}
    reach = int(130 / um)
    rng = np.random.default_rng(0)

    def quarter(fy: float, fx: float) -> np.ndarray:
        return (abs(y - fy * h) < reach) & (abs(x - fx * w) < reach)

    masks["focus"] = quarter(0.3, 0.3)
    blurred = gaussian_filter(image, (0, 2 / um, 2 / um)) + rng.normal(0, 2, image.shape)
    image = np.where(masks["focus"], blurred, image)
    for ink, offset in zip(INKS, (-90, 0, 90), strict=True):
        stroke = quarter(0.3, 0.7) & (abs(y - 0.3 * h - offset / um) < 20 / um)
        image = np.where(stroke, image * np.array(ink)[:, None, None] / 255, image)
        masks["pen_share"] |= stroke
    masks["fold_share"] = quarter(0.7, 0.3) & (abs(x - 0.3 * w) < 30 / um)
    image = np.where(masks["fold_share"], image**2 / 243, image)
    masks["white_share"] = quarter(0.7, 0.7)
    image = np.where(masks["white_share"], 242 + rng.normal(0, 2, image.shape), image)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), masks


def spoil(sdata: sd.SpatialData) -> tuple[sd.SpatialData, dict[str, np.ndarray]]:
    sdata = sd.deepcopy(sdata)
    pixels, masks = plant(np.asarray(sdata["he_image"]["scale0"]["image"].data), 0.5)
    own = get_transformation(sdata["he_image"], get_all=True)
    del sdata["he_image"]
    sdata["he_image"] = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), scale_factors=[2, 2, 2], chunks=(3, 256, 256), transformations=own
    )
    return sdata, masks


def test_clean_patches_pass(clean: sd.SpatialData) -> None:
    sdata = sd.deepcopy(clean)
    sp.pp.make_patches(sdata, overlap=0.5, min_tissue=0.5)
    report = sp.pp.qc_patches(sdata)
    assert (~sdata["patches"]["qc_pass"]).mean() <= 0.05
    assert report.loc["toy", "n_pass"] == sdata["patches"]["qc_pass"].sum()
    assert sdata["patches"]["focus"].median() == pytest.approx(1, abs=0.05)


def test_planted_artefacts_are_found(clean: sd.SpatialData) -> None:
    sdata, masks = spoil(clean)
    sp.pp.make_patches(sdata, overlap=0.5, min_tissue=0)
    report = sp.pp.qc_patches(sdata)
    patches = sdata["patches"]
    size = sdata.attrs["spatialsig"]["patches"]["patches"]["size_l0"]
    share = pd.DataFrame(
        {
            name: [mask[y : y + size, x : x + size].mean() for y, x in patches[["y0", "x0"]].to_numpy()]
            for name, mask in masks.items()
        }
    )
    fails = {
        "focus": patches["focus"] < sdata.attrs["spatialsig"]["qc_patches"]["patches"]["min_focus_used"],
        "white_share": patches["white_share"] > 0.75,
        "pen_share": patches["pen_share"] > 0.03,
        "fold_share": patches["fold_share"] > 0.08,
    }
    for name, least in {"focus": 0.6, "white_share": 0.85, "pen_share": 0.08, "fold_share": 0.25}.items():
        hit = share[name] > least
        assert hit.sum() >= 5, name
        assert fails[name][hit].mean() >= 0.9, name
        assert report.loc["toy", name] == fails[name].sum()
    untouched = (share == 0).all(axis=1) & (patches["white_share"] < 0.5)
    assert untouched.sum() > 30
    assert (~patches["qc_pass"])[untouched].mean() <= 0.05
    np.testing.assert_array_equal(
        patches["qc_pass"], ~pd.DataFrame(fails).any(axis=1) & ~(patches["stain_outlier"] > 5)
    )


def test_columns_survive_the_store_and_limits_are_recorded(toy: sd.SpatialData, tmp_path) -> None:
    sp.pp.make_patches(toy, patch_px=56, um_per_px=1.0)
    before = toy["patches"].copy()
    sp.io.write(toy, tmp_path / "s.zarr")
    report = sp.pp.qc_patches(tmp_path / "s.zarr", max_white=0.5)
    back = sd.read_zarr(tmp_path / "s.zarr")
    assert list(report.index) == ["toy"]
    assert back["patches"][before.columns].equals(before)
    assert back["patches"]["qc_pass"].dtype == bool
    assert all(back["patches"][name].dtype == float for name in COLUMNS)
    patches, image = (
        get_transformation(back[key]).to_affine_matrix(("x", "y"), ("x", "y")) for key in ("patches", "he_image")
    )
    np.testing.assert_allclose(patches, image)
    assert back.attrs["spatialsig"]["qc_patches"]["patches"]["limits"]["max_white"] == 0.5
    sp.pp.qc_patches(toy, max_white=0.5)
    # the store has a smoother pyramid, and glass and folds are judged on it
    pd.testing.assert_frame_equal(toy["patches"][COLUMNS], back["patches"][COLUMNS], rtol=0.15, atol=0.12)


def test_a_blurred_slide_is_held_against_the_cohort(toy: sd.SpatialData, tmp_path) -> None:
    stores = {}
    for name, sigma in {"a": 0, "b": 0, "c": 3}.items():
        slide = sd.deepcopy(toy)
        slide.attrs["spatialsig"] = dict(slide.attrs["spatialsig"], sample=name)
        pixels = np.asarray(slide["he_image"]["scale0"]["image"].data)
        own = get_transformation(slide["he_image"], get_all=True)
        del slide["he_image"]
        blurred = gaussian_filter(pixels, (0, sigma, sigma))
        slide["he_image"] = Image2DModel.parse(blurred, dims=("c", "y", "x"), scale_factors=[2, 2], transformations=own)
        sp.pp.make_patches(slide, patch_px=56, um_per_px=1.0)
        sp.io.write(slide, tmp_path / f"{name}.zarr")
        stores[name] = tmp_path / f"{name}.zarr"
    report = sp.pp.qc_patches(sp.Cohort(stores))
    assert report.loc["c", "focus"] >= 0.95 * report.loc["c", "n_patches"]
    assert (report.loc[["a", "b"], "focus"] < 0.1 * report.loc[["a", "b"], "n_patches"]).all()


def test_drop(toy: sd.SpatialData) -> None:
    sp.pp.make_patches(toy, patch_px=56, um_per_px=1.0, min_tissue=0)
    sp.pp.qc_patches(toy, max_white=0.3)
    kept = toy["patches"][toy["patches"]["qc_pass"]].reset_index(drop=True)
    assert 0 < len(kept) < len(toy["patches"])
    sp.pp.qc_patches(toy, max_white=0.3, drop=True)
    assert toy["patches"].equals(kept)
    assert list(toy["patches"].index) == list(range(len(kept)))
    sp.pp.assign_cells(toy)
    assert toy["table"].obsm["patch_membership"].shape[1] == len(kept)


def test_patches_in_use_are_not_dropped(patched: sd.SpatialData) -> None:
    before = len(patched["patches"])
    with pytest.raises(InputError, match=r"tables \['signatures', 'table'\] refer to the patches of 'patches'"):
        sp.pp.qc_patches(patched, drop=True)
    assert len(patched["patches"]) == before
    sp.pp.qc_patches(patched)  # columns alone do no harm


def test_metrics_of_squidpy_are_averaged_by_area(toy: sd.SpatialData) -> None:
    import squidpy as sq

    sp.pp.make_patches(toy, patch_px=56, um_per_px=1.0, stride_um=30.0)
    sq.experimental.im.qc_image(toy, "he_image", tile_size=(64, 64), preview=False, progress=False)
    sp.pp.qc_patches(toy, qc_key="qc_img_he_image")
    table, patches = toy["qc_img_he_image"], toy["patches"]
    n_x = table.uns["qc_image"]["n_tiles_x"]
    values = np.asarray(table[:, "qc_brightness_mean"].X).reshape(-1, n_x)
    pixelwise = np.kron(values, np.ones((64, 64)))
    expected = [pixelwise[y : y + 56, x : x + 56].mean() for y, x in patches[["y0", "x0"]].to_numpy()]
    np.testing.assert_allclose(patches["qc_brightness_mean"], expected, rtol=1e-5)
    assert {f"qc_{name}" for name in ("tenengrad", "var_of_laplacian", "unfocus_score")} <= set(patches.columns)


def test_errors(toy: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match=r"`patches_key='patches'` is not in the shapes .* `sp.pp.make_patches`"):
        sp.pp.qc_patches(toy)
    sp.pp.make_patches(toy, patch_px=56, um_per_px=1.0)
    with pytest.raises(InputError, match="`max_pen=.*` .* less than or equal to 1"):
        sp.pp.qc_patches(toy, max_pen=2)
    with pytest.raises(InputError, match="`min_focus=.*` .* must be greater than 0"):
        sp.pp.qc_patches(toy, min_focus=0)
    with pytest.raises(KeyMissingError, match=r"`qc_key='qc'` is not in the tables .* `squidpy"):
        sp.pp.qc_patches(toy, qc_key="qc")
    assert "qc_pass" not in toy["patches"]
    with pytest.raises(InputError, match="no patch of 'patches' passes, so none was dropped"):
        sp.pp.qc_patches(toy, max_white=0, max_stain=1e-9, drop=True)
    assert len(toy["patches"])
