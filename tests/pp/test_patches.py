import numpy as np
import pytest
import spatialdata as sd
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.pp._patches import _size
from spatialsig.slide.slides import Slide


def width(sdata: sd.SpatialData) -> int:
    return sdata["he_image"]["scale0"]["image"].sizes["x"]


def test_squares_cover_the_asked_micrometres(toy: sd.SpatialData) -> None:
    sp.pp.make_patches(toy, patch_px=56, um_per_px=2.0, stride_um=28.0, min_tissue=0)
    spec = toy.attrs["spatialsig"]["patches"]["patches"]
    matrix = get_transformation(toy["he_image"]).to_affine_matrix(("x", "y"), ("x", "y"))
    pixel = np.sqrt(abs(np.linalg.det(matrix[:2, :2]))) * toy.attrs["spatialsig"]["um_per_global_px"]
    assert spec["size_l0"] == round(112 / pixel)
    assert spec["stride_l0"] == round(28 / pixel)
    bounds = toy["patches"].bounds.to_numpy()
    np.testing.assert_array_equal(bounds[:, 2] - bounds[:, 0], spec["size_l0"])
    np.testing.assert_array_equal(bounds[:, :2], toy["patches"][["x0", "y0"]])
    per_side = (width(toy) - spec["size_l0"]) // spec["stride_l0"] + 1
    assert len(toy["patches"]) == per_side**2


def test_transformations_follow_the_image(toy: sd.SpatialData) -> None:
    sp.pp.make_patches(toy, patch_px=56, um_per_px=2.0)
    assert get_transformation(toy["patches"], get_all=True) == get_transformation(toy["he_image"], get_all=True)


def test_glass_is_left_out_and_the_share_is_right(toy: sd.SpatialData) -> None:
    image = toy["he_image"]
    for level in image.children:
        pixels = image[level]["image"]
        white = np.array(pixels.data)
        white[..., : white.shape[-1] // 2] = 244
        image[level]["image"] = pixels.copy(data=white)
    sp.pp.make_patches(toy, patch_px=28, um_per_px=2.0, min_tissue=0)
    middle, size = width(toy) / 2, toy.attrs["spatialsig"]["patches"]["patches"]["size_l0"]
    share = np.clip((toy["patches"]["x0"] + size - middle) / size, 0, 1)
    # the mask is smoothed: within 30 um (1 um/px) of its rim it may be either
    glass = toy["patches"]["x0"] + size < middle - 30
    assert glass.any()
    np.testing.assert_array_equal(toy["patches"]["tissue_fraction"][glass], 0)
    assert toy["patches"]["tissue_fraction"][share == 1].median() > 0.9
    n_all = len(share)
    sp.pp.make_patches(toy, patch_px=28, um_per_px=2.0, min_tissue=0.25)
    assert 0 < len(toy["patches"]) < n_all
    assert (toy["patches"]["tissue_fraction"] >= 0.25).all()


def test_patches_around_spots_are_centred(toy: sd.SpatialData) -> None:
    sp.pp.make_patches(toy, patch_px=28, um_per_px=2.0, around="table", min_tissue=0)
    size = toy.attrs["spatialsig"]["patches"]["patches"]["size_l0"]
    centres = toy["patches"][["x0", "y0"]].to_numpy() + size / 2
    planted = toy["table"].obsm["he_px"]
    inside = ((planted >= size / 2) & (planted <= width(toy) - size / 2)).all(axis=1)
    assert abs(len(centres) - inside.sum()) <= 0.02 * len(planted)
    nearest = np.abs(centres[:, None] - planted[None]).max(axis=-1).min(axis=1)
    assert nearest.max() <= 0.51


@pytest.mark.parametrize(
    ("given", "px", "um_per_px"),
    [
        ({}, 224, 0.5),
        ({"patch_px": 100}, 100, 0.5),
        ({"um_per_px": 1.0}, 224, 1.0),
        ({"patch_um": 112}, 224, 0.5),
        ({"patch_px": 56, "patch_um": 112}, 56, 2.0),
        ({"um_per_px": 2.0, "patch_um": 112}, 56, 2.0),
        ({"um_per_px": 2.0, "patch_um": 112, "patch_px": 56}, 56, 2.0),
        ({"um_per_px": 0.5, "patch_um": 100.3}, 201, 100.3 / 201),
    ],
)
def test_any_two_sizes_give_the_third(given: dict, px: int, um_per_px: float) -> None:
    size = _size(**({"patch_px": None, "um_per_px": None, "patch_um": None} | given))
    assert (size.px, size.um_per_px) == (px, pytest.approx(um_per_px))


@pytest.mark.parametrize(("overlap", "steps"), [(0.0, 56), (0.5, 28), (0.75, 14)])
def test_overlap_is_a_share_of_the_patch(toy: sd.SpatialData, overlap: float, steps: int) -> None:
    sp.pp.make_patches(toy, patch_um=56, um_per_px=2.0, overlap=overlap, min_tissue=0)
    assert toy.attrs["spatialsig"]["patches"]["patches"]["stride_l0"] == steps  # 1 um/px
    assert np.diff(np.unique(toy["patches"]["x0"])).tolist().count(steps) > 5


@pytest.mark.parametrize(
    ("um_per_px", "level", "resample"), [(1.0, 0, 1.0), (1.5, 0, 1.5), (2.0, 1, 1.0), (3.0, 1, 1.5), (4.0, 2, 1.0)]
)
def test_the_recorded_level_is_the_one_read(toy: sd.SpatialData, um_per_px: float, level: int, resample: float) -> None:
    sp.pp.make_patches(toy, patch_px=24, um_per_px=um_per_px)
    spec = toy.attrs["spatialsig"]["patches"]["patches"]
    assert (spec["level"], spec["resample"]) == (level, resample)
    source = Slide(toy).patches().source()
    assert source.level.shape == toy["he_image"][f"scale{level}"]["image"].shape[1:]


def test_patches_with_few_cells_are_left_out(toy: sd.SpatialData) -> None:
    sp.pp.make_patches(toy, patch_px=28, um_per_px=2.0, min_tissue=0)
    sp.pp.assign_cells(toy)
    cells = np.asarray(toy["table"].obsm["patch_membership"].sum(axis=0)).ravel()
    every = toy["patches"]
    sp.pp.make_patches(toy, patch_px=28, um_per_px=2.0, min_tissue=0, min_cells=10)
    assert 0 < len(toy["patches"]) < len(every)
    np.testing.assert_array_equal(toy["patches"][["y0", "x0"]], every.loc[cells >= 10, ["y0", "x0"]])
    with pytest.raises(InputError, match=r"patches on tissue holds 10000 cells of table 'table' \(the most is \d+\)"):
        sp.pp.make_patches(toy, patch_px=28, um_per_px=2.0, min_cells=10_000)
    with pytest.raises(KeyMissingError, match="`table_key='cells'` is not in the tables"):
        sp.pp.make_patches(toy, patch_px=28, um_per_px=2.0, min_cells=1, table_key="cells")


def test_survives_the_store(toy: sd.SpatialData, tmp_path) -> None:
    sp.pp.make_patches(toy, patch_px=56, um_per_px=2.0)
    sp.io.write(toy, tmp_path / "s.zarr")
    back = sd.read_zarr(tmp_path / "s.zarr")
    assert back["patches"].equals(toy["patches"])
    assert back.attrs["spatialsig"]["patches"] == toy.attrs["spatialsig"]["patches"]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"image_key": "HE"}, KeyMissingError, r"`image_key='HE'` is not in the images of slide 'toy'"),
        ({"patch_px": 0}, InputError, "`patch_px=0` .* greater than or equal to 1"),
        ({"stride_um": -5.0}, InputError, "`stride_um=-5.0` .* must be greater than 0"),
        ({"patch_px": 4000}, InputError, r"covers \d+ px of image 'he_image', which has only \d+ x \d+ px"),
        (
            {"patch_um": 100.0},
            InputError,
            "`patch_px=56` at `um_per_px=2.0` is 112 µm, which contradicts `patch_um=100.0`",
        ),
        ({"stride_um": 5.0, "overlap": 0.5}, InputError, "say the same thing; pass one of them"),
        ({"overlap": 1.0}, InputError, "`overlap` must lie between 0 and 1, 1 not included; got 1.0"),
        ({"um_per_px": 0.1}, InputError, "is finer than the scan"),
        ({"min_tissue": 1.2}, InputError, "`min_tissue=1.2` .* less than or equal to 1"),
        ({"around": "spots"}, KeyMissingError, "`around='spots'` is not in the tables"),
    ],
)
def test_errors(toy: sd.SpatialData, kwargs: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sp.pp.make_patches(toy, **{"patch_px": 56, "um_per_px": 2.0} | kwargs)
    assert "patches" not in toy
