"""Slides that differ by a known change of stain look alike afterwards; a model refuses what it did not learn from."""

from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.nn.vit import ViTConfig
from spatialsig.pp._normalize_stain import REFERENCE_STRENGTH, reference_vectors
from spatialsig.slide.slides import open_slides
from spatialsig.stats.stain import recolour, recolouring

SMALL = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(8, 16), stem_blocks=(0, 0))


def slide(change: np.ndarray | None = None, sample: str = "S1", seed: int = 3) -> sd.SpatialData:
    """A toy slide whose optical densities are multiplied by ``change``, cut into patches."""
    sdata = sp.datasets.toy(seed=seed, size_um=350.0, sample=sample, patient=sample)
    if change is not None:
        pixels = np.asarray(sdata["he_image"]["scale0"]["image"].data).copy()
        recolour(pixels, change)
        own = get_transformation(sdata["he_image"], get_all=True)
        del sdata["he_image"]
        sdata["he_image"] = Image2DModel.parse(pixels, dims=("c", "y", "x"), scale_factors=[2, 2], transformations=own)
    sp.pp.make_patches(sdata, patch_px=56, um_per_px=1.0, min_tissue=0)
    return sdata


def other_stain(strength: tuple[float, float] = (0.7, 1.3)) -> np.ndarray:
    """Haematoxylin and eosin of other hues, so many times as strong."""
    here = reference_vectors()
    there = here + np.array([[0.05, -0.03, 0.05], [0.06, -0.02, 0.04], [0, 0, 0]])
    there /= np.linalg.norm(there, axis=1, keepdims=True)
    return recolouring(here, np.ones(2), there, np.array(strength))


def pixels_of(sdata: sd.SpatialData) -> np.ndarray:
    (one,) = open_slides(sdata)
    source = one.patches().source()
    return read_patches(source, np.arange(len(source))).astype(float)


def labelled(sdata: sd.SpatialData, fold: int) -> sd.SpatialData:
    sdata.attrs["spatialsig"]["split"] = {"by": "patient", "n_folds": 2, "seed": 0, "fold": fold}
    sp.pp.assign_cells(sdata)
    sp.tl.score_cells(sdata, "seed", test_fold=None)
    sp.tl.aggregate_patches(sdata, min_cells=3, use_rep=None)
    return sdata


@pytest.mark.parametrize("strength", [(0.7, 1.3), (1.3, 0.7), (0.6, 0.6)])
def test_a_slide_in_other_stains_is_read_as_the_same(strength: tuple[float, float]) -> None:
    plain, stained = slide(), slide(other_stain(strength))
    apart = np.abs(pixels_of(plain) - pixels_of(stained)).mean()
    for sdata in (plain, stained):
        sp.pp.normalize_stain(sdata)
    assert apart > 5  # grey values
    assert np.abs(pixels_of(plain) - pixels_of(stained)).mean() < apart / 6


def test_what_is_read_has_the_reference_s_strength() -> None:
    sdata = slide(other_stain())
    sp.pp.normalize_stain(sdata)
    pixels = pixels_of(sdata).astype(np.uint8)
    spec = sdata.attrs["spatialsig"]["patches"]["patches"]["stain"]
    od = -np.log((pixels.astype(float) + 1) / 256).transpose(0, 2, 3, 1).reshape(-1, 3)
    amounts = od[od.mean(axis=1) > 0.1] @ np.linalg.inv(reference_vectors())
    np.testing.assert_allclose(np.percentile(amounts[:, :2], 99, axis=0), REFERENCE_STRENGTH, rtol=0.05)
    assert spec["method"] == "macenko"


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_the_table_tells_how_strong_and_how_far_off(method: str) -> None:
    table = sp.pp.normalize_stain(slide(), method=method)
    assert list(table.columns) == ["haematoxylin", "eosin", "haematoxylin_degrees", "eosin_degrees"]
    assert (table > 0).all(axis=None)
    assert (table[["haematoxylin_degrees", "eosin_degrees"]] < 25).all(axis=None)


def test_it_lasts_in_the_store_and_ends_with_new_patches(tmp_path: Path) -> None:
    path = tmp_path / "S1.zarr"
    sp.io.write(slide(other_stain()), path)
    before = pixels_of(sd.read_zarr(path))
    sp.pp.normalize_stain(path)
    first = pixels_of(sd.read_zarr(path))
    assert np.abs(first - before).mean() > 5
    sp.pp.normalize_stain(path)  # starts from the scan again, not from what was normalised
    np.testing.assert_array_equal(pixels_of(sd.read_zarr(path)), first)
    sp.pp.make_patches(path, patch_px=56, um_per_px=1.0, min_tissue=0)
    np.testing.assert_array_equal(pixels_of(sd.read_zarr(path)), before)


def test_a_slide_that_is_not_he_leaves_the_others_alone(tmp_path: Path) -> None:
    green = np.array([[0.0, 0.0, 0.0], [0.9, 0.05, 0.9], [0.9, 0.05, 0.9]])
    stores = {}
    for name, change in (("S1", None), ("S2", green)):
        stores[name] = tmp_path / f"{name}.zarr"
        sp.io.write(slide(change, name), stores[name])
    cohort = sp.Cohort(stores)
    with pytest.raises(InputError, match=r"1 of 2 slides failed, the others are done:\n  S2: .*haematoxylin and eosin"):
        sp.pp.normalize_stain(cohort)
    stains = {name: cohort[name].attrs["spatialsig"]["patches"]["patches"]["stain"] for name in cohort}
    assert stains["S1"]["method"] == "macenko"
    assert stains["S2"] is None


def test_bad_calls_say_what_is_missing() -> None:
    sdata = sp.datasets.toy(size_um=350.0)
    with pytest.raises(KeyMissingError, match="make_patches"):
        sp.pp.normalize_stain(sdata)
    with pytest.raises(InputError, match="method"):
        sp.pp.normalize_stain(slide(), method="reinhard")
    with pytest.raises(InputError, match="pixels of tissue"):
        sp.pp.normalize_stain(slide(np.eye(3) * 0.02))


def test_a_model_refuses_slides_of_another_treatment() -> None:
    train, test = labelled(slide(sample="S1"), 1), labelled(slide(sample="S2", seed=4), 0)
    sp.pp.normalize_stain(train)
    model = sp.tl.train_vit(train, size=SMALL, use_rep=None, max_epochs=1)
    assert model.stain == "macenko"
    with pytest.raises(InputError, match=r"'macenko' wanted, 'none' here"):
        sp.tl.predict(test, model)
    sp.pp.normalize_stain(test)
    sp.tl.predict(test, model)
    assert np.isfinite(test["signatures_pred"].X).all()
