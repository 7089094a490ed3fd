"""Patches say where they lie, whose they are and what was said about them, whatever way the image is turned."""

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import sparse
from spatialdata.models import Image2DModel
from spatialdata.transformations import Affine

import spatialsig as sp
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.slide.patches import level_read
from spatialsig.slide.slides import Slide

UM_PER_GLOBAL, UM_PER_PX, TURN = 0.25, 0.5, np.deg2rad(30)
# turned by 30 degrees, mirrored, moved: no part of it is its own inverse
TO_GLOBAL = np.array(
    [[2 * np.cos(TURN), 2 * np.sin(TURN), 40.0], [2 * np.sin(TURN), -2 * np.cos(TURN), -7.0], [0.0, 0.0, 1.0]]
)


@pytest.fixture
def turned() -> sd.SpatialData:
    """An image of random pixels that lies aslant in ``global``, with 5 by 9 overlapping patches of 32 px."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 96, 160), dtype=np.uint8)
    affine = Affine(TO_GLOBAL, input_axes=("x", "y"), output_axes=("x", "y"))
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"), transformations={"global": affine})
    attrs = {"spatialsig": {"sample": "S1", "patient": "P7", "um_per_global_px": UM_PER_GLOBAL}}
    sdata = sd.SpatialData(images={"he_image": image}, attrs=attrs)
    sp.pp.make_patches(sdata, patch_px=32, um_per_px=UM_PER_PX, stride_um=8.0, min_tissue=0)
    return sdata


def corners_um(sdata: sd.SpatialData) -> np.ndarray:
    """Corners of every square through the affine in homogeneous coordinates, ``(n_patches, 4, 2)``."""
    corners = np.stack([np.asarray(square.exterior.coords)[:4] for square in sdata["patches"].geometry])
    homogeneous = np.concatenate([corners, np.ones((*corners.shape[:2], 1))], axis=2)
    return np.einsum("ij,nkj->nki", TO_GLOBAL, homogeneous)[..., :2] * UM_PER_GLOBAL


def test_origins_are_the_least_corners_of_the_squares_row_by_row(turned: sd.SpatialData) -> None:
    patches = Slide(turned).patches()
    assert len(patches) == 5 * 9
    bounds = turned["patches"].geometry.bounds
    np.testing.assert_array_equal(patches.origins, bounds[["miny", "minx"]].to_numpy())
    expected = [(y, x) for y in range(0, 65, 16) for x in range(0, 129, 16)]
    np.testing.assert_array_equal(patches.origins, expected)


def test_centres_go_through_the_turned_affine(turned: sd.SpatialData) -> None:
    patches = Slide(turned).patches()
    np.testing.assert_allclose(patches.centres_um, corners_um(turned).mean(axis=1), atol=1e-9)
    first = UM_PER_GLOBAL * (TO_GLOBAL @ [16, 16, 1])[:2]
    np.testing.assert_allclose(patches.centres_um[0], first, atol=1e-9)


def test_extent_is_the_width_of_the_turned_square_along_the_axes(turned: sd.SpatialData) -> None:
    patches = Slide(turned).patches()
    assert patches.extent_um == pytest.approx(np.ptp(corners_um(turned), axis=1).max())
    assert patches.extent_um == pytest.approx(32 * UM_PER_PX * (np.cos(TURN) + np.sin(TURN)))
    assert patches.extent_um > 32 * UM_PER_PX


def test_pixels_are_those_under_the_square(turned: sd.SpatialData) -> None:
    patches = Slide(turned).patches()
    rows = np.array([40, 3, 17])
    pixels = turned["he_image"].to_numpy()
    source = patches.source(rows)
    np.testing.assert_array_equal(source.origins, patches.origins[rows])
    images = read_patches(source, np.arange(3))
    for image, (y, x) in zip(images, patches.origins[rows], strict=True):
        np.testing.assert_array_equal(image, pixels[:, y : y + 32, x : x + 32])


def test_stain_recolours_what_is_read(turned: sd.SpatialData) -> None:
    slide = Slide(turned)
    assert slide.patches().source().recolour is None
    spec = dict(slide.attrs["patches"]["patches"])
    before = slide.patches().content_hash
    slide.attrs["patches"]["patches"] = spec | {"stain": {"method": "macenko", "matrix": np.eye(3).tolist()}}
    slide.changed()
    np.testing.assert_array_equal(slide.patches().source().recolour, np.eye(3))
    assert slide.patches().content_hash != before


def test_patches_are_read_once_and_anew_when_they_are_replaced(turned: sd.SpatialData) -> None:
    slide = Slide(turned)
    patches, before = slide.patches(), slide.patches().content_hash
    assert slide.patches() is patches
    slide.put("patches", turned["patches"].iloc[:7])
    assert slide.patches() is not patches
    assert len(slide.patches().origins) == 7
    assert slide.patches().content_hash != before


def test_content_hash_knows_folds_and_names(turned: sd.SpatialData) -> None:
    slide = Slide(turned)
    hashes = {slide.patches().content_hash}
    for key, value in (("split", {"by": "slide", "fold": 1}), ("patient", "P8"), ("sample", "S2")):
        slide.attrs[key] = value
        hashes.add(slide.patches().content_hash)
    assert len(hashes) == 4


def test_rows_are_named_by_the_ids_of_the_patches(turned: sd.SpatialData) -> None:
    turned["patches"].index = turned["patches"].index + 100
    patches = Slide(turned).patches()
    np.testing.assert_array_equal(patches.rows_named(None), np.arange(45))
    np.testing.assert_array_equal(patches.rows_named([130, 102, 130]), [2, 30])


@pytest.mark.parametrize(("ids", "shown"), [([3, 44, 45, -1], r"\[45, -1\]"), ([], "none given")])
def test_unknown_patches_are_named(turned: sd.SpatialData, ids: list[int], shown: str) -> None:
    message = rf"`patches`: {shown}; slide 'S1' has patches 0 to 44 in 'patches'"
    with pytest.raises(KeyMissingError, match=message):
        Slide(turned).patches().rows_named(ids)


def test_patches_nobody_laid_are_refused(turned: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match=r"`patches_key='none'` is not in the shapes of slide 'S1'.*make_patches"):
        Slide(turned).patches("none")
    turned["others"] = turned["patches"].copy()
    with pytest.raises(KeyMissingError, match="`patches_key='others'` is not in the patches that `sp.pp.make_patches`"):
        Slide(turned).patches("others")


def test_tables_made_of_patches_carry_ids_folds_and_places(turned: sd.SpatialData) -> None:
    patches = Slide(turned).patches()
    values = np.arange(90.0).reshape(45, 2)
    table = patches.table(values, ["A", "B"], n_cells=np.arange(45))
    np.testing.assert_array_equal(table.X, values)
    assert table.obs["sample"].unique().tolist() == ["S1"]
    assert table.obs["patient"].unique().tolist() == ["P7"]
    assert set(table.obs["fold"]) == {0}
    assert table.obs_names[[0, 44]].tolist() == ["S1-0", "S1-44"]
    np.testing.assert_allclose(table.obsm["spatial"], corners_um(turned).mean(axis=1))
    assert "n_cells" not in patches.table(values, ["A", "B"], n_cells=None).obs
    turned["made"] = table[::-1].copy()
    np.testing.assert_array_equal(patches.rows_in("made"), np.arange(45)[::-1])
    np.testing.assert_array_equal(patches.matrix("made", name="x").values, values)


def test_columns_and_cells_follow_the_ids_not_the_order(patched: sd.SpatialData) -> None:
    table = patched["signatures"]
    kept = table[np.random.default_rng(0).permutation(table.n_obs)[3:]].copy()
    patched["signatures"] = kept
    patches = Slide(patched).patches()
    by_id = pd.Series(kept.obs["n_cells"].to_numpy(np.float64), index=kept.obs["patch_id"].to_numpy())
    expected = by_id.reindex(patches.ids).to_numpy()
    assert np.isnan(expected).sum() == 3
    np.testing.assert_array_equal(patches.column("signatures", "n_cells"), expected)
    np.testing.assert_array_equal(patches.n_cells("signatures"), expected)
    assert np.isnan(patches.column("signatures", "no_such_column")).all()


def test_cells_are_counted_only_where_labels_say_so(patched: sd.SpatialData) -> None:
    patches, counts = Slide(patched).patches(), patched["signatures"].obs["n_cells"].to_numpy()
    np.testing.assert_array_equal(patches.n_cells("signatures"), counts)
    assert np.issubdtype(patches.n_cells("signatures").dtype, np.integer)
    assert patches.n_cells("none") is None


def test_membership_holds_the_cells_within_each_square(patched: sd.SpatialData) -> None:
    """The toy knows where its nuclei lie on the H&E."""
    patches, membership = Slide(patched).patches(), Slide(patched).patches().membership("table")
    bounds = patched["patches"].geometry.bounds.to_numpy()
    x, y = patched["table"].obsm["he_px"].T[:, :, None]
    inside = (x >= bounds[:, 0]) & (x < bounds[:, 2]) & (y >= bounds[:, 1]) & (y < bounds[:, 3])
    assert membership.shape == (patched["table"].n_obs, len(patches))
    assert (membership.toarray() != inside).mean() < 1e-4  # rounding, on an edge


def test_cells_assigned_to_other_patches_are_refused(patched: sd.SpatialData) -> None:
    n = len(patched["patches"])
    patched["table"].obsm["patch_membership"] = sparse.csr_matrix((patched["table"].n_obs, n - 1))
    message = rf"slide 'toy': cells are assigned to {n - 1} patches, but 'patches' holds {n}; call `sp.pp.assign_cells`"
    with pytest.raises(InputError, match=message):
        Slide(patched).patches().membership("table")
    del patched["table"].obsm["patch_membership"]
    with pytest.raises(KeyMissingError, match="Call `sp.pp.assign_cells` first"):
        Slide(patched).patches().membership("table")


def test_embeddings_are_those_of_the_patches_or_none(patched: sd.SpatialData) -> None:
    table = patched["signatures"]
    table.obsm["X_ae"] = np.random.default_rng(0).normal(size=(table.n_obs, 3)).astype(np.float32)
    patches = Slide(patched).patches()
    assert patches.embedding("signatures", None) is None
    np.testing.assert_array_equal(patches.embedding("signatures", "X_ae"), table.obsm["X_ae"])
    with pytest.raises(KeyMissingError, match=r"`use_rep='X_no'` is not in the obsm .* Do this"):
        patches.embedding("signatures", "X_no", fix="Do this.")
    with pytest.raises(KeyMissingError, match="`signatures_key='none'` is not in the tables"):
        patches.embedding("none", "X_ae")


def test_patches_that_straddle_blocks_are_neither_trained_on_nor_tested(patched: sd.SpatialData) -> None:
    patches = Slide(patched).patches()
    training, folds = patches.training(0), patches.folds
    assert set(folds) == {-1, 0, 1}
    np.testing.assert_array_equal(training, folds == 1)
    assert patches.training(None).all()
    gap = np.abs(patches.centres_um[folds == 0][:, None] - patches.centres_um[folds == 1][None]).max(axis=-1)
    assert gap.min() >= patches.extent_um * (1 - 1e-9)  # so that no pixel is shared


@pytest.mark.parametrize(
    ("um_per_px", "level", "resample"), [(1.0, 0, 1.0), (2.0, 1, 1.0), (3.0, 1, 1.5), (4.0, 2, 1.0)]
)
def test_level_is_the_coarsest_that_is_fine_enough(
    toy: sd.SpatialData, um_per_px: float, level: int, resample: float
) -> None:
    """The toy has levels of 1, 2 and 4 um per px."""
    chosen = level_read(Slide(toy), "he_image", size_l0=32 * um_per_px, out_px=32)
    assert chosen == (level, pytest.approx(resample, rel=0.02))
