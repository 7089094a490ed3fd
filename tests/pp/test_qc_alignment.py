"""Planted shifts and mistakes on slides whose truth is known."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import spatialdata as sd
from spatialdata.transformations import Affine, get_transformation, remove_transformation, set_transformation

import spatialsig as sp
from spatialsig.errors import AlignmentError, InputError, KeyMissingError, SpatialsigWarning

XY = ("x", "y")
SWAP = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])


@pytest.fixture(scope="module")
def slides() -> list[sd.SpatialData]:
    """Clean slides; scanned at 1, 2 and 0.5 µm/px."""
    return [
        sp.datasets.toy(seed=900 + i, size_um=400, he_um_per_px=um, sample=f"S{i}")
        for i, um in enumerate([1.0, 2.0, 0.5])
    ]


def matrix_of(sdata: sd.SpatialData) -> np.ndarray:
    return np.asarray(get_transformation(sdata["he_image"]).to_affine_matrix(XY, XY))


def with_matrix(sdata: sd.SpatialData, matrix: np.ndarray) -> sd.SpatialData:
    work = sd.deepcopy(sdata)
    set_transformation(work["he_image"], Affine(matrix, XY, XY))
    return work


def shifted(sdata: sd.SpatialData, dx_um: float, dy_um: float) -> sd.SpatialData:
    matrix = matrix_of(sdata)
    matrix[:2, 2] += np.array([dx_um, dy_um]) / sdata.attrs["spatialsig"]["um_per_global_px"]
    return with_matrix(sdata, matrix)


def fewer_cells(sdata: sd.SpatialData, n_cells: int) -> sd.SpatialData:
    work = sd.deepcopy(sdata)
    keep = np.sort(np.random.default_rng(0).permutation(work["table"].n_obs)[:n_cells])
    work["table"] = work["table"][keep].copy()
    return work


def test_clean_slides_are_good_and_quiet(slides) -> None:
    for slide in slides:
        work = sd.deepcopy(slide)
        row = sp.pp.qc_alignment(work).loc[slide.attrs["spatialsig"]["sample"]]
        assert row["verdict"] == "good"
        assert row["shift_um"] < 0.5
        assert row["confidence"] > 0.8
        assert row["share_in_image"] > 0.99
        assert row["share_on_tissue"] > 0.95
        assert row["mistake"] == row["fix"] == ""
        assert matrix_of(work).tolist() == matrix_of(slide).tolist()


@pytest.mark.parametrize(("which", "dx", "dy"), [(0, -5.0, 3.0), (1, 0, 25.0), (2, -30.0, -40.0)])
@pytest.mark.parametrize("n_cells", [None, 200])
def test_planted_shifts_in_the_frame_of_the_cells(slides, which, dx, dy, n_cells) -> None:
    work = shifted(slides[which], dx, dy)
    work = work if n_cells is None else fewer_cells(work, n_cells)
    if np.hypot(dx, dy) > 10:
        with pytest.warns(SpatialsigWarning, match=r"lies (24|25|49|50)\.\d um off the cells .*refine=True"):
            row = sp.pp.qc_alignment(work).iloc[0]
        assert row["verdict"] == "shifted"
    else:
        row = sp.pp.qc_alignment(work).iloc[0]
        assert row["verdict"] == "good"
    assert row["dx_um"] == pytest.approx(dx, abs=1)
    assert row["dy_um"] == pytest.approx(dy, abs=1)
    assert row["shift_um"] == pytest.approx(np.hypot(dx, dy), abs=1)


MISTAKES = (
    "axes_swapped", "flipped_x", "inverse", "um_as_px", "cells_swapped", "cells_in_px", "he_half_size", "he_double_size",
    "he_rescaled", "pixel_size_2_too_large",
)  # fmt: skip


@pytest.mark.parametrize(("which", "mistake"), [(i % 3, mistake) for i, mistake in enumerate(MISTAKES)])
def test_planted_mistakes_are_named(slides, which, mistake) -> None:
    slide = slides[which]
    matrix, pixel = matrix_of(slide), slide.attrs["spatialsig"]["um_per_global_px"]
    width = slide["he_image"]["scale0"]["image"].sizes["x"]
    wrong = {
        "axes_swapped": matrix @ SWAP,
        "flipped_x": matrix @ np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]),
        "inverse": np.linalg.inv(matrix),
        "um_as_px": np.diag([pixel, pixel, 1]) @ matrix,
        "he_half_size": matrix @ np.diag([2, 2, 1]),
        "he_double_size": matrix @ np.diag([0.5, 0.5, 1]),
        "he_rescaled": matrix @ np.diag([1.37, 1.37, 1]),
    }
    work = with_matrix(slide, wrong.get(mistake, matrix))
    cells = work["table"].obsm
    if mistake == "cells_swapped":
        cells["spatial"] = cells["spatial"][:, ::-1].copy()
    if mistake == "cells_in_px":
        cells["spatial"] = cells["spatial"] / pixel
    if mistake == "pixel_size_2_too_large":
        work.attrs["spatialsig"]["um_per_global_px"] = 2 * pixel
    with pytest.warns(SpatialsigWarning, match="does not fit the cells as it is aligned .* It fits"):
        row = sp.pp.qc_alignment(work).iloc[0]
    assert row["verdict"] == "wrong"
    fits = work.attrs["spatialsig"]["qc_alignment"]["hypotheses"]
    clear = [name for name, fit in fits.items() if fit["dx_um"] is not None]
    assert max(clear, key=lambda name: fits[name]["peak_height"]) == mistake
    assert row["mistake"]
    assert row["fix"]


@pytest.mark.parametrize("stated", [None, 1.0])
def test_a_copy_of_any_size_is_recognised_with_its_factor(slides, stated) -> None:
    """By what the file of the image states, and from the nuclei alone where it states nothing."""
    work = with_matrix(slides[0], matrix_of(slides[0]) @ np.diag([0.8, 0.8, 1]))
    if stated is not None:
        work.attrs["spatialsig"]["file_um_per_px"] = {"he_image": [stated, stated]}
    with pytest.warns(SpatialsigWarning, match=r"It fits .* copy of the H&E with 1\.2[45]\d* times its px"):
        row = sp.pp.qc_alignment(work).iloc[0]
    assert row["verdict"] == "wrong"
    assert work.attrs["spatialsig"]["qc_alignment"]["mistake_name"] == "he_rescaled"


@pytest.mark.parametrize("which", [1, 2])
def test_um_that_were_taken_as_px_are_named(slides, which) -> None:
    """Not as a copy of the image or a wrong size of px, by which the cells would fit as well."""
    slide = slides[which]
    px = np.moveaxis(slide["he_image"]["scale0"]["image"].to_numpy(), 0, 2)
    global_um = slide.attrs["spatialsig"]["um_per_global_px"]
    to_px = np.linalg.inv(np.diag([global_um, global_um, 1]) @ matrix_of(slide))[:2]
    um = sp.io.mpp(slide)
    xy = slide["table"].obsm["spatial"]
    centre = np.array(px.shape[1::-1]) * um / 2
    um_of_image = (np.c_[xy, np.ones(len(xy))] @ to_px.T) * um
    given = ad.AnnData(slide["table"].X, var=slide["table"].var[[]], obsm={"spatial": um_of_image})
    right = sp.io.from_anndata(given, px, um_per_px=um, spatial_unit="um")
    assert sp.pp.qc_alignment(right).iloc[0]["verdict"] == "good"
    # px of 2 um: um reach beyond the image, so only the cells of a part of it can be mistaken
    some = given[(um_of_image < centre).all(axis=1)] if um > 1 else given
    wrong = sp.io.from_anndata(some.copy(), px, um_per_px=um)
    with pytest.warns(SpatialsigWarning, match=r"um already, and were taken as px of .* spatial_unit='um'"):
        assert sp.pp.qc_alignment(wrong).iloc[0]["verdict"] == "wrong"


def test_h_and_e_of_another_slide_gets_no_number(slides) -> None:
    work = sd.deepcopy(slides[0])
    work["he_image"] = slides[2]["he_image"]
    with pytest.warns(SpatialsigWarning, match="slide 'S0': cannot tell whether .*landmarks"):
        row = sp.pp.qc_alignment(work).iloc[0]
    assert row["verdict"] == "cannot tell"
    assert np.isnan(row[["dx_um", "dy_um", "shift_um"]].astype(float)).all()
    assert row["confidence"] == 0


def test_too_few_cells_and_a_too_long_shift_get_no_number(slides) -> None:
    for work in (fewer_cells(slides[0], 20), shifted(slides[0], 60, 0)):
        with pytest.warns(SpatialsigWarning, match="cannot tell"):
            row = sp.pp.qc_alignment(work, max_shift_um=40).iloc[0]
        assert row["verdict"] == "cannot tell"
        assert np.isnan(row["shift_um"])


def test_map_of_shifts_follows_a_stretched_slide(slides) -> None:
    """An H&E that is 2 % too wide is off by -4 ... +4 µm from left to right."""
    slide = sd.deepcopy(slides[0])
    xy = slide["table"].obsm["spatial"]
    middle = xy[:, 0].mean()
    xy[:, 0] = middle + (xy[:, 0] - middle) / 1.02
    sp.pp.qc_alignment(slide, n_regions=3)
    kept = slide.attrs["spatialsig"]["qc_alignment"]
    regions = kept["regions"]
    assert len(regions) == 9
    assert sum(region["n_cells"] for region in regions) == kept["n_cells"]
    for region in regions:
        assert region["dx_um"] == pytest.approx(0.02 * (region["x_um"] - middle), abs=0.7)
        assert region["dy_um"] == pytest.approx(0, abs=0.7)
    slopes = np.polyfit([r["x_um"] for r in regions], [r["dx_um"] for r in regions], 1)
    assert slopes[0] == pytest.approx(0.02, abs=0.006)


def test_empty_regions_have_no_shift(slides) -> None:
    work = sd.deepcopy(slides[0])
    xy = work["table"].obsm["spatial"]
    low, high = xy.min(axis=0), xy.max(axis=0)
    corner = (xy < (low + high) / 2).all(axis=1)
    corner[np.argmin(xy.sum(axis=1))] = False
    work["table"] = work["table"][~corner].copy()
    sp.pp.qc_alignment(work, n_regions=2)
    regions = work.attrs["spatialsig"]["qc_alignment"]["regions"]
    assert [region["dx_um"] is None for region in regions] == [True, False, False, False]


def test_refine_moves_the_image_and_says_so(slides, tmp_path) -> None:
    path = tmp_path / "s.zarr"
    sp.io.write(shifted(slides[0], 14.0, -9.0), path)
    chunks = {f: f.stat().st_mtime_ns for f in path.glob("images/he_image/*/c/**/*") if f.is_file()}
    assert chunks
    row = sp.pp.qc_alignment(path, refine=True).iloc[0]
    assert row["verdict"] == "good"
    assert row["shift_um"] < 0.5
    assert row["moved_um"] == pytest.approx(np.hypot(14, 9), abs=0.5)
    back = sd.read_zarr(path)
    np.testing.assert_allclose(matrix_of(back), matrix_of(slides[0]), atol=1 / 0.2125)
    refined = back.attrs["spatialsig"]["qc_alignment"]["refined"]
    np.testing.assert_allclose(refined["matrix_before"], matrix_of(shifted(slides[0], 14.0, -9.0)))
    np.testing.assert_allclose(refined["matrix_after"], matrix_of(back))
    assert refined["before"]["dx_um"] == pytest.approx(14, abs=0.5)
    assert {f: f.stat().st_mtime_ns for f in chunks} == chunks  # no pixel was written again


def test_refine_is_refused_after_patches_were_cut(slides) -> None:
    work = shifted(slides[0], 14.0, 0)
    before = matrix_of(work)
    sp.pp.make_patches(work, patch_px=56, um_per_px=1.0)
    with pytest.raises(AlignmentError, match=r"slide 'S0': patches \['patches'\] were cut .*make_patches"):
        sp.pp.qc_alignment(work, refine=True)
    np.testing.assert_array_equal(matrix_of(work), before)
    assert "qc_alignment" not in work.attrs["spatialsig"]


def test_parameters_survive_the_store(slides, tmp_path) -> None:
    sp.io.write(fewer_cells(slides[1], 200), tmp_path / "s.zarr")
    row = sp.pp.qc_alignment(tmp_path / "s.zarr").iloc[0]
    kept = sd.read_zarr(tmp_path / "s.zarr").attrs["spatialsig"]["qc_alignment"]
    assert {key: kept[key] for key in row.index} == row.to_dict()
    assert len(kept["regions"]) == 16
    assert len(kept["hypotheses"]) == 19
    assert "refined" not in kept


def test_single_scale_image_is_read_too(slides) -> None:
    work = sd.deepcopy(slides[2])
    image = work["he_image"]["scale0"]["image"]
    del work.images["he_image"]
    work["he_image"] = sd.models.Image2DModel.parse(
        np.asarray(image.data),
        dims=("c", "y", "x"),
        transformations=get_transformation(slides[2]["he_image"], get_all=True),
    )
    assert sp.pp.qc_alignment(work)["shift_um"].item() < 0.5


@pytest.mark.parametrize("side", ["first", "last"])
def test_levels_that_leave_out_pixels_do_not_shift_it(slides, side) -> None:
    """A level of an odd image is made without its first or without its last pixel."""
    work = sd.deepcopy(slides[2])
    pixels = np.asarray(work["he_image"]["scale0"]["image"].data)
    pixels = pixels[:, : pixels.shape[1] // 8 * 8 - 1, : pixels.shape[2] // 8 * 8 - 3]
    moved = get_transformation(work["he_image"], get_all=True)
    del work.images["he_image"]
    work["he_image"] = sd.models.Image2DModel.parse(
        pixels, dims=("c", "y", "x"), scale_factors=[2, 2], transformations=moved
    )
    for level in (1, 2):
        fine = np.asarray(work["he_image"][f"scale{level - 1}"]["image"].data)
        height, width = (n // 2 for n in fine.shape[1:])
        y0, x0 = (fine.shape[i + 1] % 2 if side == "first" else 0 for i in (0, 1))
        blocks = fine[:, y0 : y0 + 2 * height, x0 : x0 + 2 * width].reshape(3, height, 2, width, 2)
        node = work["he_image"][f"scale{level}"]
        node["image"] = node["image"].copy(data=blocks.mean(axis=(2, 4)).round().astype(np.uint8))
    assert sp.pp.qc_alignment(work)["shift_um"].item() < 0.2


def test_object_of_another_reader(tmp_path) -> None:
    from spatialdata_io import xenium

    bundle = sp.datasets.synthetic_xenium(tmp_path, n_slides=1, seed=77, size_um=250, transcripts=False)[
        "bundle"
    ].item()
    sdata = xenium(
        bundle, cells_as_circles=True, cells_boundaries=False, nucleus_boundaries=False, cells_labels=False,
        nucleus_labels=False, transcripts=False, morphology_mip=False, morphology_focus=False,
    )  # fmt: skip
    (image_key,) = sdata.images
    row = sp.pp.qc_alignment(sdata, image_key=image_key).iloc[0]
    assert row["verdict"] == "good"
    assert row["shift_um"] < 0.5


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"image_key": "HE"}, KeyMissingError, "`image_key='HE'` is not in the images of slide 'toy'"),
        ({"table_key": "cells"}, KeyMissingError, "`table_key='cells'` is not in the tables of slide 'toy'"),
        ({"max_shift_um": 0}, InputError, "`max_shift_um=0` .* must be greater than 0"),
        ({"n_regions": -1}, InputError, "`n_regions=-1` .* greater than or equal to 1"),
    ],
)
def test_errors(toy: sd.SpatialData, kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sp.pp.qc_alignment(toy, **kwargs)


def test_image_without_a_place_and_cells_without_positions(toy: sd.SpatialData) -> None:
    work = sd.deepcopy(toy)
    work["table"].obsm["spatial"][:] = np.nan
    with pytest.raises(InputError, match="positions are not finite; at most 1%"):
        sp.pp.qc_alignment(work)
    remove_transformation(toy["he_image"], "global")
    set_transformation(toy["he_image"], sd.transformations.Identity(), "elsewhere")
    with pytest.raises(AlignmentError, match="no transformation to 'global'; give it one with `sp.pp.align_he`"):
        sp.pp.qc_alignment(toy)
