from typing import Any

import dask.array as da
import numpy as np
import pytest
import shapely
import spatialdata as sd
from hypothesis import given
from hypothesis import strategies as st
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel
from spatialdata.transformations import Identity, Scale, get_transformation

import spatialsig as sp
from spatialsig.errors import AlignmentError, InputError, KeyMissingError, SpatialsigWarning
from spatialsig.pp._find_tissue import polygons
from spatialsig.pp._segmentation import TissueMask, coarse_pixels, segment, tidy, tissue_fraction
from spatialsig.slide import fingerprints

GLASS = (242, 240, 243)
EDGE = 300  # px; tissue lies left of it


def pixels_of(sdata: sd.SpatialData) -> np.ndarray:
    """A writable copy ``(3, y, x)`` of the full resolution."""
    return np.array(sdata["he_image"]["scale0"]["image"].data)


def repaint(sdata: sd.SpatialData, pixels: np.ndarray) -> None:
    transformations = get_transformation(sdata["he_image"], get_all=True)
    del sdata["he_image"]
    sdata["he_image"] = Image2DModel.parse(
        pixels, dims=("c", "y", "x"), scale_factors=[2, 2], chunks=(3, 256, 256), transformations=transformations
    )


@pytest.fixture
def half(toy: sd.SpatialData) -> sd.SpatialData:
    """The toy with glass to the right of ``EDGE``, as noisy as a camera makes it."""
    pixels = pixels_of(toy)
    noise = np.random.default_rng(0).normal(0, 2, pixels[:, :, EDGE:].shape)
    pixels[:, :, EDGE:] = np.clip(np.array(GLASS)[:, None, None] + noise, 0, 255)
    repaint(toy, pixels)
    return toy


def area_right_of(sdata: sd.SpatialData, x: float) -> float:
    strip = shapely.box(x, -1, 1e5, 1e5)
    return float(shapely.area(shapely.intersection(shapely.union_all(sdata["tissue"].geometry), strip)))


def test_outline_follows_the_tissue(half: sd.SpatialData) -> None:
    sp.pp.find_tissue(half)
    outline = shapely.union_all(half["tissue"].geometry)
    height = pixels_of(half).shape[1]
    assert area_right_of(half, EDGE + 20) == 0
    inner = shapely.box(60, 60, EDGE - 20, height - 60)
    assert shapely.area(shapely.intersection(outline, inner)) > 0.93 * inner.area
    um = 1.0  # of the toy's H&E
    np.testing.assert_allclose(half["tissue"]["area_um2"], half["tissue"].area * um**2)
    assert half["tissue"]["area_um2"].is_monotonic_decreasing
    assert get_transformation(half["tissue"], get_all=True) == get_transformation(half["he_image"], get_all=True)
    assert half.attrs["spatialsig"]["find_tissue"]["tissue"]["um_per_px"] == 8.0


@pytest.mark.parametrize(
    "ink", [(28, 44, 150), (18, 106, 72), (30, 30, 36), (170, 12, 28)], ids=["blue", "green", "black", "red"]
)
def test_pen_marks_are_not_tissue(half: sd.SpatialData, ink: tuple[int, int, int]) -> None:
    pixels = pixels_of(half)
    pixels[:, 100:500, EDGE + 100 : EDGE + 180] = np.array(ink)[:, None, None]
    repaint(half, pixels)
    sp.pp.find_tissue(half, min_area_um2=500)
    assert area_right_of(half, EDGE + 20) < 0.02 * 400 * 80


def test_dark_rims_and_spilled_stain_are_not_tissue(half: sd.SpatialData) -> None:
    pixels = pixels_of(half)
    pixels[:, :, -40:] = 60
    haze = (
        0.12
        * np.exp(-((np.arange(pixels.shape[2]) - EDGE - 120) ** 2) / (2 * 50.0**2))
        * (np.arange(pixels.shape[2]) > EDGE)
    )
    pixels[1] = np.rint(pixels[1] * np.exp(-haze)).astype(np.uint8)
    repaint(half, pixels)
    sp.pp.find_tissue(half)
    assert area_right_of(half, EDGE + 30) == 0


def test_swapped_colours_are_named(half: sd.SpatialData) -> None:
    repaint(half, pixels_of(half)[::-1])
    with pytest.warns(SpatialsigWarning, match=r"slide 'toy'.*'he_image' absorbs blue more than red.*BGR"):
        sp.pp.find_tissue(half)


def test_holes_are_kept_or_filled(half: sd.SpatialData) -> None:
    pixels = pixels_of(half)
    pixels[:, 200:300, 100:200] = np.array(GLASS)[:, None, None]
    repaint(half, pixels)
    middle = shapely.Point(150, 250)
    sp.pp.find_tissue(half)
    assert not shapely.union_all(half["tissue"].geometry).contains(middle)
    sp.pp.find_tissue(half, max_hole_um2=20_000)
    assert shapely.union_all(half["tissue"].geometry).contains(middle)


def test_a_slide_without_tissue_says_so(half: sd.SpatialData) -> None:
    pixels = pixels_of(half)
    pixels[:] = np.clip(np.random.default_rng(0).normal(240, 2, pixels.shape), 0, 255)
    repaint(half, pixels)
    with pytest.raises(InputError, match=r"slide 'toy': no tissue of at least 10000 µm² on image 'he_image'"):
        sp.pp.find_tissue(half)


def test_only_a_coarse_level_is_read(toy: sd.SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "WHOLE", 0)  # as for a large image
    read: list[tuple[str, tuple[int, ...]]] = []

    def seen(block: np.ndarray, level: str, block_info: Any = None) -> np.ndarray:
        read.append((level, block_info[0]["chunk-location"]))
        return block

    tree = toy["he_image"]
    for level in ("scale0", "scale1"):
        array = tree[level]["image"]
        chunks = da.asarray(array.data).rechunk((3, 128, 128))
        data = da.map_blocks(seen, chunks, level, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
        tree[level]["image"] = array.copy(data=data)
    sp.pp.find_tissue(toy)
    assert len(toy["tissue"])
    # the fingerprint of the image looks at three blocks of 256 px of each level (two of them the same here)
    finest = {place for level, place in read if level == "scale0"}
    assert len(finest) <= 8 < tree["scale0"]["image"].data.npartitions


def test_one_level_gives_the_same_as_a_pyramid(toy: sd.SpatialData) -> None:
    tree, full = toy["he_image"], toy["he_image"]["scale0"]["image"]
    many, scale_many = coarse_pixels(tree, um_per_px=1.0, target_um_per_px=8.0)
    one, scale_one = coarse_pixels(full, um_per_px=1.0, target_um_per_px=8.0)
    assert scale_one == scale_many == (8.0, 8.0)
    masks = [segment(pixels[:72, :72], um_per_px=8.0) for pixels in (many, one)]
    assert (masks[0] == masks[1]).mean() > 0.98


@given(st.integers(0, 2**32 - 1), st.floats(1.0, 6.0), st.integers(1, 40))
def test_share_is_that_of_the_mask(seed: int, scale: float, size: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 11)) < 0.5
    origins = np.stack([rng.integers(0, 9, 5), rng.integers(0, 9, 5)], axis=1)
    found = tissue_fraction(TissueMask(mask, (scale, scale)), origins, size=size)
    for (y, x), share in zip(origins, found, strict=True):
        wy, wx = (
            np.clip(np.minimum((np.arange(n) + 1) * scale, o + size) - np.maximum(np.arange(n) * scale, o), 0, None)
            for n, o in zip(mask.shape, (y, x), strict=True)
        )
        expected = (wy[:, None] * wx * mask).sum() / max(wy.sum() * wx.sum(), 1e-12)
        assert share == pytest.approx(expected, abs=1e-6)


def test_polygons_lie_on_the_pixels() -> None:
    mask = np.zeros((10, 12), bool)
    mask[2:8, 3:12] = True
    mask[4:6, 5:7] = False
    (piece,) = polygons(mask, (2.0, 3.0), (20, 36))
    assert piece.bounds == (9.0, 4.0, 36.0, 16.0)
    (hole,) = piece.interiors
    assert shapely.Polygon(hole).bounds == (15.0, 8.0, 21.0, 12.0)


def test_tidy() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    mask[5:7, 5:7] = False  # 4 px
    mask[17, 17] = True
    clean = tidy(mask, px_area_um2=10.0, min_area_um2=50.0, max_hole_um2=30.0)
    assert not clean[5, 5]
    assert not clean[17, 17]
    clean = tidy(mask, px_area_um2=10.0, min_area_um2=5.0, max_hole_um2=60.0)
    assert clean[5, 5]
    assert clean[17, 17]
    assert not clean[0, 0]  # a gap at the border is no hole, however small


def plant_masks(half: sd.SpatialData) -> None:
    """The same rectangle of tissue as each tool would store it."""
    image = half["he_image"]
    box = shapely.box(0, 0, EDGE, 400)
    own = get_transformation(image, get_all=True)
    half["region_of_interest"] = ShapesModel.parse(_frame([box]), transformations=own)
    lazy = _frame([box])
    lazy["tissue_id"] = [0]
    half["tissues"] = ShapesModel.parse(lazy)
    labels = np.zeros(pixels_of(half).shape[1:], np.int32)
    labels[:400, :EDGE] = 3
    half["he_image_tissue"] = Labels2DModel.parse(labels, dims=("y", "x"), scale_factors=[2], transformations=own)
    quarter = Labels2DModel.parse(
        labels[::4, ::4], dims=("y", "x"), transformations={"global": _after(Scale([4, 4], ("x", "y")), own["global"])}
    )
    half["coarse"] = quarter


def _frame(geometry: list) -> "object":
    import geopandas as gpd

    return gpd.GeoDataFrame({"geometry": geometry})


def _after(first: Scale, then: object) -> "object":
    from spatialdata.transformations import Sequence

    return Sequence([first, then])


@pytest.mark.parametrize("key", ["region_of_interest", "tissues", "he_image_tissue", "coarse"])
def test_masks_of_other_tools_choose_the_patches(half: sd.SpatialData, key: str) -> None:
    plant_masks(half)
    sp.pp.make_patches(half, patch_px=25, um_per_px=2.0, min_tissue=0, tissue_key=key)
    patches = half["patches"]
    inside = np.clip(EDGE - patches["x0"], 0, 50) * np.clip(400 - patches["y0"], 0, 50) / 2500
    np.testing.assert_allclose(patches["tissue_fraction"], inside, atol=0.09)
    assert half.attrs["spatialsig"]["patches"]["patches"]["tissue_key"] == key


def test_squidpy_mask(half: sd.SpatialData) -> None:
    import squidpy as sq

    sq.experimental.im.detect_tissue(half, "he_image")
    sp.pp.make_patches(half, patch_px=25, um_per_px=2.0, min_tissue=0, tissue_key="he_image_tissue")
    labels = np.asarray(half["he_image_tissue"]["scale0"]["image"].data) > 0
    expected = [labels[y : y + 50, x : x + 50].mean() for y, x in half["patches"][["y0", "x0"]].to_numpy()]
    np.testing.assert_allclose(half["patches"]["tissue_fraction"], expected, atol=0.15)
    assert np.abs(half["patches"]["tissue_fraction"] - expected).mean() < 0.03


def test_own_outlines_are_used_without_asking_and_foreign_ones_are_not(half: sd.SpatialData) -> None:
    spec = half.attrs["spatialsig"].setdefault("patches", {})
    half["tissue"] = ShapesModel.parse(_frame([shapely.box(0, 0, 60, 60)]), transformations={"global": Identity()})
    sp.pp.make_patches(half, patch_px=25, um_per_px=2.0)
    assert spec["patches"]["tissue_key"] is None
    with pytest.raises(
        InputError, match="shapes 'tissue', which `sp.pp.find_tissue` did not make, and it would be lost"
    ):
        sp.pp.find_tissue(half)
    del half["tissue"]
    sp.pp.find_tissue(half)
    sp.pp.make_patches(half, patch_px=25, um_per_px=2.0)
    assert spec["patches"]["tissue_key"] == "tissue"


def test_errors(half: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match=r"`image_key='HE'` is not in the images"):
        sp.pp.find_tissue(half, image_key="HE")
    with pytest.raises(InputError, match="`um_per_px=.*` .* must be greater than 0"):
        sp.pp.find_tissue(half, um_per_px=0)
    with pytest.raises(InputError, match="must be greater than or equal to 0"):
        sp.pp.find_tissue(half, min_area_um2=-1)
    with pytest.raises(KeyMissingError, match=r"`tissue_key='nowhere'` is in neither the shapes nor the labels"):
        sp.pp.make_patches(half, patch_px=25, um_per_px=2.0, tissue_key="nowhere")
    half["far"] = ShapesModel.parse(_frame([shapely.box(1e6, 0, 2e6, 9)]), transformations={"global": Identity()})
    with pytest.raises(AlignmentError, match="shapes 'far' lie off image 'he_image'"):
        sp.pp.make_patches(half, patch_px=25, um_per_px=2.0, tissue_key="far")
    with pytest.raises(InputError, match="must be polygons; found Point"):
        sp.pp.make_patches(half, patch_px=25, um_per_px=2.0, tissue_key="cell_circles")


def test_stores_and_cohorts(half: sd.SpatialData, tmp_path) -> None:
    sp.io.write(half, tmp_path / "s.zarr")
    sp.pp.find_tissue(sp.Cohort({"toy": tmp_path / "s.zarr"}))
    sp.pp.find_tissue(half)
    back = sd.read_zarr(tmp_path / "s.zarr")
    assert back["tissue"].geom_equals(half["tissue"]).all()
    assert back.attrs["spatialsig"]["find_tissue"] == half.attrs["spatialsig"]["find_tissue"]
