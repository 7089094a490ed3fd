"""Lumens, fat, folds, pen marks and blur lie where the masks say, and nothing else changes."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage

import spatialsig as sp
from spatialsig.datasets.synthetic.image.render import paint_he
from spatialsig.datasets.synthetic.slide import Recipe, make_slide
from spatialsig.datasets.synthetic.tissue.expression import CELL_TYPES
from spatialsig.datasets.synthetic.truth import MASK_PX, MASKS, true_masks, true_patches
from spatialsig.errors import InputError

EVERYTHING = {"lumen_share": 0.08, "fat_share": 0.10, "n_folds": 1, "n_pen": 1, "defocus_share": 0.15}
SIZE_UM = 500.0


def slide_of(**options):
    recipe = Recipe(**({"size_um": SIZE_UM} | options))
    return make_slide(recipe, seed=4, index=0, sample="S", patient="P", patient_index=0)


class Picture:
    """A slide, its pixels, and its masks at full resolution."""

    def __init__(self, **options):
        self.slide = slide_of(**options)
        self.coarse = true_masks(self.slide)
        height, width = self.slide.frames.he_shape
        full = self.coarse.repeat(MASK_PX, axis=1).repeat(MASK_PX, axis=2)[:, :height, :width] > 0
        self.mask = dict(zip(MASKS, full, strict=True))

    @cached_property
    def pixels(self):
        return paint_he(self.slide)

    @property
    def density(self):
        """Optical density, mean of the channels."""
        return -np.log((self.pixels.astype(float) + 1) / 243).mean(axis=-1)


def deep(mask, px=8):
    """The inside of a mask, away from its border."""
    return ndimage.minimum_filter(mask, size=2 * px + 1)


@pytest.fixture(scope="module")
def plain():
    return Picture()


@pytest.fixture(scope="module")
def spoiled():
    """The slide of ``plain`` with what changes its picture only."""
    return Picture(n_folds=1, n_pen=2, defocus_share=0.15)


@pytest.fixture(scope="module")
def hollow():
    return Picture(lumen_share=0.08, fat_share=0.10)


def test_by_default_nothing_is_planted(plain):
    assert not plain.coarse[1:].any()
    assert plain.slide.tissue.structures is None
    assert np.isnan(plain.slide.tissue.angle).all()


def test_white_is_bright_and_tissue_is_not(hollow):
    light = hollow.pixels.min(axis=-1)
    assert (light[deep(hollow.mask["white"])] > 220).mean() > 0.999
    assert (light[deep(~hollow.mask["white"], 4)] < 232).mean() > 0.99


def test_artefacts_of_the_section_leave_cells_and_counts_alone(plain, spoiled):
    one, other = plain.slide, spoiled.slide
    np.testing.assert_array_equal(one.tissue.xy_um, other.tissue.xy_um)
    np.testing.assert_array_equal(one.counts.matrix.toarray(), other.counts.matrix.toarray())
    np.testing.assert_array_equal(one.nuclei.axes_um, other.nuclei.axes_um)


def test_the_picture_changes_where_the_masks_say_and_nowhere_else(plain, spoiled):
    changed = (plain.pixels != spoiled.pixels).any(axis=-1)
    planted = spoiled.mask["fold"] | spoiled.mask["pen"] | spoiled.mask["defocus"]
    inside = deep(planted & ~spoiled.mask["white"])
    assert changed[inside].mean() > 0.97
    # the soft border of pen and blur is about 25 um wide; on glass, blur is planted but not marked
    reach = ndimage.maximum_filter(planted, size=2 * round(25 / 0.2738) + 1)
    assert changed[~reach & ~spoiled.mask["white"]].mean() < 0.002


def test_one_knob_does_not_move_another(spoiled):
    alone = Picture(n_folds=1)
    np.testing.assert_array_equal(alone.mask["fold"], spoiled.mask["fold"])
    assert not alone.mask["pen"].any()
    more = Picture(n_folds=3, n_pen=0, defocus_share=0.15)
    np.testing.assert_array_equal(more.mask["defocus"], spoiled.mask["defocus"])


def test_folds_double_the_tissue(plain):
    folded = Picture(n_folds=2)
    fold = deep(folded.mask["fold"], 4)
    assert fold.sum() > 5_000
    ratio = folded.density[fold].mean() / plain.density[fold].mean()
    assert 1.7 < ratio < 2.8
    # a strip: its width is a small part of its length
    area_um2 = folded.coarse[MASKS.index("fold")].sum() * (MASK_PX * 0.2738) ** 2
    assert area_um2 < 2 * 44 * SIZE_UM


def test_pen_is_dark_saturated_and_without_texture(plain, spoiled):
    pen = deep(spoiled.mask["pen"], round(14 / 0.2738)) & ~plain.mask["white"]
    assert pen.sum() > 3_000
    assert spoiled.pixels[pen].max(axis=-1).mean() < 170

    def texture(picture):
        grey = picture.pixels.astype(float).mean(axis=-1)
        return ndimage.generic_gradient_magnitude(ndimage.gaussian_filter(grey, 1.5), ndimage.sobel)[pen].mean()

    assert texture(spoiled) < 0.25 * texture(plain)


def test_defocus_takes_the_detail_away_but_not_the_stain(plain, spoiled):
    blurred = deep(spoiled.mask["defocus"], 40) & ~spoiled.mask["pen"] & ~spoiled.mask["fold"]
    assert blurred.sum() > 20_000

    def detail(picture):
        return np.abs(ndimage.laplace(ndimage.gaussian_filter(picture.density, 1.5)))[blurred].mean()

    assert detail(spoiled) < 0.4 * detail(plain)
    assert spoiled.pixels[blurred].mean() == pytest.approx(plain.pixels[blurred].mean(), rel=0.05)


def test_shares_are_what_was_asked_for(hollow, spoiled):
    lumen, fat = (hollow.mask[name].sum() for name in ("lumen", "fat"))
    tissue = (~plain_white(hollow)).sum()
    assert lumen / tissue == pytest.approx(0.08, abs=0.03)
    assert fat / tissue == pytest.approx(0.10, abs=0.04)
    assert spoiled.mask["defocus"].sum() / (~spoiled.mask["white"]).sum() == pytest.approx(0.15, abs=0.03)


def plain_white(picture):
    """Glass around the tissue and in its gaps, without lumens and fat."""
    return picture.mask["white"] & ~picture.mask["lumen"] & ~picture.mask["fat"]


def test_no_nucleus_lies_in_a_hollow(hollow):
    tissue = hollow.slide.tissue
    assert (tissue.outline.at(tissue.xy_um) > 0).all()
    assert (tissue.structures.lumen.at(tissue.xy_um) > 4).all()


def test_lumens_are_lined_by_tumour_cells_that_point_to_them(hollow):
    tissue = hollow.slide.tissue
    lining = np.isfinite(tissue.angle) & (tissue.cell_type == CELL_TYPES.index("Tumour"))
    depth = tissue.structures.lumen.at(tissue.xy_um)
    assert lining.sum() > 100
    assert (depth[lining] < 11).all()
    # nobody else comes between
    assert (depth[~lining] > 10).all()
    # walking along the long axis leads into the lumen, on one side
    step = 12 * np.stack([np.cos(tissue.angle), np.sin(tissue.angle)], axis=1)[lining]
    ends = [tissue.structures.lumen.at(tissue.xy_um[lining] + sign * step) for sign in (1, -1)]
    assert (np.minimum(*ends) < 0).mean() > 0.9


def test_lumens_and_fat_keep_apart(hollow):
    near_lumen = ndimage.maximum_filter(hollow.mask["lumen"], size=2 * round(8 / 0.2738) + 1)
    assert not (near_lumen & hollow.mask["fat"]).any()


def test_fat_cells_are_round_and_their_walls_thin(hollow):
    fat, white = deep(hollow.mask["fat"], 30), hollow.mask["white"]
    assert white[fat].mean() > 0.8
    labels, n = ndimage.label(white & hollow.mask["fat"])
    areas = np.bincount(labels.ravel())[1:] * 0.2738**2
    whole = areas[areas > 600]
    assert n > 5
    assert 1200 < np.median(whole) < 3500  # 40 to 67 um across


def test_patch_shares_are_the_means_of_the_masks(hollow):
    patches = true_patches(hollow.slide, hollow.coarse)
    centre = (np.arange(max(hollow.coarse.shape[1:])) + 0.5) * MASK_PX
    for patch in patches.iloc[::3].itertuples():
        rows = (centre >= patch.y0) & (centre < patch.y0 + patch.size_l0)
        columns = (centre >= patch.x0) & (centre < patch.x0 + patch.size_l0)
        for name, mask in zip(MASKS, hollow.coarse, strict=True):
            cut = mask[rows[: mask.shape[0]]][:, columns[: mask.shape[1]]]
            assert getattr(patch, f"{name}_share") == pytest.approx(cut.mean())


def test_same_seed_same_picture_whatever_the_threads(monkeypatch):
    small = EVERYTHING | {"size_um": 250.0}
    first = paint_he(slide_of(**small))
    monkeypatch.setattr(sp.settings, "threads", 1)
    np.testing.assert_array_equal(paint_he(slide_of(**small)), first)


def test_files(tmp_path):
    frame = sp.datasets.synthetic_xenium(
        tmp_path, n_slides=1, size_um=250.0, seed=3, transcripts=False, n_folds=1, n_pen=1, version="1.0"
    )
    with tifffile.TiffFile(tmp_path / "S1_truth_masks.tif") as file:
        masks = file.asarray()
        described = file.shaped_metadata[0]
    assert described["masks"] == ["white", "lumen", "fat", "fold", "pen", "defocus"]
    assert described["um_per_px"] == pytest.approx(4 * 0.2738)
    height, width = tifffile.imread(frame["he_image"][0]).shape[:2]
    assert masks.shape == (6, -(-height // 4), -(-width // 4))
    assert set(np.unique(masks)) == {0, 1}
    patches = pd.read_parquet(tmp_path / "S1_truth_patches.parquet")
    shares = patches.filter(like="_share")
    assert list(shares) == [f"{name}_share" for name in described["masks"]]
    assert shares.notna().all(axis=None)
    assert (patches["pen_share"] > 0).any()
    assert Path(frame["he_image"][0]).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lumen_share": 1.2}, "`lumen_share=1.2` of `sp.datasets.synthetic_xenium` must be less than or equal to 1"),
        ({"lumen_share": 0.4, "fat_share": 0.3}, "their sum may be at most 0.6"),
        (
            {"defocus_share": -0.1},
            "`defocus_share=-0.1` of `sp.datasets.synthetic_xenium` must be greater than or equal to 0",
        ),
        ({"n_folds": 1.5}, "`n_folds=1.5` of `sp.datasets.synthetic_xenium` must be a valid integer"),
        ({"n_pen": -1}, "`n_pen=-1` of `sp.datasets.synthetic_xenium` must be greater than or equal to 0"),
    ],
)
def test_impossible_artefacts_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        sp.datasets.synthetic_xenium(tmp_path / "out", n_slides=1, **options)
    assert not (tmp_path / "out").exists()
