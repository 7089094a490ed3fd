import warnings

import geopandas as gpd
import numpy as np
import pytest
import shapely
import spatialdata as sd
from spatialdata.models import ShapesModel
from spatialdata.transformations import Affine, Identity, Sequence, get_transformation, set_transformation

import spatialsig as sp
from spatialsig.data.patches import read_patches
from spatialsig.errors import AlignmentError, InputError, KeyMissingError, SpatialsigWarning, StaleError
from spatialsig.slide.slides import Slide

SIDE = 80
CORNERS = np.array([[y, x] for y in range(0, 480, 80) for x in range(0, 480, 80)])  # y0, x0


def own(sdata: sd.SpatialData) -> dict:
    return get_transformation(sdata["he_image"], get_all=True)


def boxes(corners: np.ndarray = CORNERS, side: float = SIDE) -> np.ndarray:
    y, x = corners.T
    return shapely.box(x, y, x + side, y + side)


def squidpy_tiles(sdata: sd.SpatialData) -> str:
    import squidpy as sq

    sp.pp.find_tissue(sdata)
    sq.experimental.im.make_tiles(
        sdata, "he_image", tile_size=(SIDE, SIDE), min_tissue_fraction=0.5, preview=False, new_shapes_key="sq"
    )
    return "sq"


def sopa_patches(sdata: sd.SpatialData) -> str:
    """As ``sopa.make_image_patches`` leaves them: whole boxes beside geometries cut along the region of interest."""
    frame = gpd.GeoDataFrame(
        {
            "geometry": shapely.intersection(boxes(), shapely.Point(280, 280).buffer(500)),
            "bboxes": [[x, y, x + SIDE, y + SIDE] for y, x in CORNERS.tolist()],
            "ilocs": (CORNERS[:, ::-1] // SIDE).tolist(),
        }
    )
    sdata["image_patches"] = ShapesModel.parse(frame, transformations=own(sdata))
    return "image_patches"


def lazyslide_tiles(sdata: sd.SpatialData) -> str:
    """As ``wsidata`` adds them: level-0 px, no transformation, sizes in ``attrs["tile_spec"]``."""
    ids = np.arange(len(CORNERS))
    frame = gpd.GeoDataFrame(
        {"tile_id": ids, "x": CORNERS[:, 1], "y": CORNERS[:, 0], "tissue_id": 0, "geometry": boxes()}
    )
    sdata["tiles"] = ShapesModel.parse(frame)
    sdata.attrs["tile_spec"] = {"tiles": {"height": 40, "width": 40, "mpp": 2.0, "base_downsample": 2.0}}
    return "tiles"


@pytest.mark.parametrize("make", [sopa_patches, lazyslide_tiles])
def test_every_tile_becomes_a_patch(toy: sd.SpatialData, make) -> None:
    sp.pp.import_patches(toy, make(toy))
    patches, spec = toy["patches"], toy.attrs["spatialsig"]["patches"]["patches"]
    np.testing.assert_array_equal(patches[["y0", "x0"]], CORNERS)
    np.testing.assert_array_equal(patches[["row", "col"]], CORNERS // SIDE)
    np.testing.assert_array_equal(shapely.area(patches.geometry), SIDE**2)
    assert get_transformation(patches, get_all=True) == own(toy)
    assert (spec["size_l0"], spec["stride_l0"]) == (SIDE, SIDE)
    assert spec["patch_px"] * spec["um_per_px"] == pytest.approx(SIDE * spec["image_um_per_px"])
    assert spec["patch_px"] == (40 if make is lazyslide_tiles else SIDE)  # LazySlide says for which resolution it cut
    assert spec["made_by"].endswith(f"36 of 36 {'tiles' if make is lazyslide_tiles else 'image_patches'!r}")
    assert patches["tissue_fraction"].max() > 0.9


def test_squidpy_tiles_of_tissue(toy: sd.SpatialData) -> None:
    key = squidpy_tiles(toy)
    tiles = toy[key]
    height = toy["he_image"]["scale0"]["image"].sizes["y"]
    sp.pp.import_patches(toy, key, min_tissue=0)
    whole = (tiles["pixel_y0"] + SIDE <= height) & (tiles["pixel_x0"] + SIDE <= height)
    assert len(tiles) > whole.sum()  # squidpy cuts the last row and column short
    np.testing.assert_array_equal(toy["patches"][["y0", "x0"]], tiles.loc[whole, ["pixel_y0", "pixel_x0"]])
    tiles["tile_classification"] = np.where(tiles["pixel_y0"] == 80, "tissue", "partial_tissue")
    sp.pp.import_patches(toy, key)
    assert set(toy["patches"]["y0"]) == {80}


def test_pixels_are_those_of_the_tile(toy: sd.SpatialData) -> None:
    pixels = np.asarray(toy["he_image"]["scale0"]["image"].data)
    sp.pp.import_patches(toy, lazyslide_tiles(toy), um_per_px=1.0)
    images = read_patches(Slide(toy).patches().source(), [7, 20])
    for image, (y, x) in zip(images, CORNERS[[7, 20]], strict=True):
        np.testing.assert_array_equal(image, pixels[:, y : y + SIDE, x : x + SIDE])


@pytest.mark.parametrize("inside", ["one tile whole", "none whole"])
def test_of_bboxes_and_geometries_that_differ_the_bboxes_are_taken(toy: sd.SpatialData, inside: str) -> None:
    """Said only where no tile fills its box, which the outline of a tissue does not do."""
    sopa_patches(toy)
    smaller = shapely.box(*(np.c_[CORNERS[:, ::-1] + 15, CORNERS[:, ::-1] + 65]).T.astype(float))
    if inside == "one tile whole":
        smaller[7] = boxes()[7]
    toy["image_patches"]["geometry"] = smaller
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SpatialsigWarning)
        sp.pp.import_patches(toy, "image_patches")
    np.testing.assert_array_equal(toy["patches"][["y0", "x0"]], CORNERS)
    said = [str(each.message) for each in caught if issubclass(each.category, SpatialsigWarning)]
    wanted = (
        "slide 'toy': shapes 'image_patches': every tile has bboxes larger than its geometry (80 x 80 and 50 x 50 px"
    )
    assert [text.startswith(wanted) for text in said] == ([] if inside == "one tile whole" else [True])
    if inside == "none whole":
        del toy["image_patches"]["bboxes"]
        sp.pp.import_patches(toy, "image_patches", key_added="cut")
        np.testing.assert_array_equal(toy["cut"][["y0", "x0"]], CORNERS + 15)


def test_a_level_of_their_own_is_mapped_back(toy: sd.SpatialData) -> None:
    """Sopa may cut on a coarser level, whose transformation holds the scale."""
    half = Affine(np.diag([2.0, 2.0, 1.0]), ("x", "y"), ("x", "y"))
    frame = gpd.GeoDataFrame(
        {"geometry": boxes(CORNERS / 2, 40), "bboxes": [[x / 2, y / 2, x / 2 + 40, y / 2 + 40] for y, x in CORNERS]}
    )
    toy["image_patches"] = ShapesModel.parse(frame, transformations={"global": Sequence([half, own(toy)["global"]])})
    sp.pp.import_patches(toy, "image_patches", tool="sopa")
    np.testing.assert_array_equal(toy["patches"][["y0", "x0"]], CORNERS)


def test_later_functions_work(toy: sd.SpatialData, tmp_path) -> None:
    lazyslide_tiles(toy)
    sp.io.write(toy, tmp_path / "s.zarr")
    path = tmp_path / "s.zarr"
    sp.pp.import_patches(path, "tiles")
    sp.pp.assign_cells(path)
    sp.tl.score_cells(path, "seed", test_fold=None)
    sp.tl.aggregate_patches(path, min_cells=1, use_rep=None)
    back = sd.read_zarr(path)
    xy = back["table"].obsm["he_px"]
    tile = (xy // SIDE).astype(int)
    expected = [
        int(((tile[:, 1] == r) & (tile[:, 0] == c)).sum()) for r, c in back["patches"][["row", "col"]].to_numpy()
    ]
    counted = np.asarray(back["table"].obsm["patch_membership"].sum(axis=0)).ravel()
    assert np.abs(counted - expected).sum() <= 2  # the float32 truth may sit on an edge
    assert set(back["signatures"].obs["patch_id"]) <= set(back["patches"].index)


@pytest.mark.parametrize("make", [squidpy_tiles, sopa_patches, lazyslide_tiles])
def test_tiles_that_lost_their_transformation_are_placed_by_their_pixels(toy: sd.SpatialData, make) -> None:
    key = make(toy)
    sp.pp.import_patches(toy, key, min_tissue=0)
    expected = toy["patches"][["y0", "x0"]].to_numpy()
    set_transformation(toy[key], {"global": Identity()}, set_all=True)
    sp.pp.import_patches(toy, key, min_tissue=0)
    np.testing.assert_array_equal(toy["patches"][["y0", "x0"]], expected)


@pytest.mark.parametrize("columns", [("pixel_y0", "pixel_x0"), ("y0", "x0")])
def test_tiles_whose_columns_say_another_place_are_refused(toy: sd.SpatialData, columns) -> None:
    frame = gpd.GeoDataFrame({"geometry": boxes(), columns[0]: CORNERS[:, 0], columns[1]: CORNERS[:, 1]})
    toy["tiles"] = ShapesModel.parse(frame, transformations=own(toy))
    sp.pp.import_patches(toy, "tiles")
    toy["tiles"].loc[5, columns[1]] += 40
    with pytest.raises(InputError, match=r"row 5 of 'tiles' lies at \[400.0, 0.0\] px .* say \[440.0, 0.0\]"):
        sp.pp.import_patches(toy, "tiles")


def test_patches_are_stale_when_their_tiles_change(toy: sd.SpatialData) -> None:
    sp.pp.import_patches(toy, sopa_patches(toy))
    assert "image_patches" in sp.io.status(toy)["made_from"].item()
    toy["image_patches"] = toy["image_patches"].iloc[1:]
    with pytest.raises(StaleError, match=r"made from shapes 'image_patches', .* call `sp.pp.import_patches` again"):
        sp.pp.qc_patches(toy)


@pytest.mark.parametrize("make", ["make_patches", "import_patches"])
def test_patches_whose_outlines_were_edited_are_refused(toy: sd.SpatialData, make) -> None:
    if make == "make_patches":
        sp.pp.make_patches(toy, patch_px=56, um_per_px=1.0)
    else:
        sp.pp.import_patches(toy, sopa_patches(toy))
    toy["patches"].geometry = toy["patches"].geometry.translate(20, 0)
    with pytest.raises(InputError, match=r"'patches': the outlines of \d+ patches are not the squares"):
        sp.pp.assign_cells(toy)


def test_tiles_beyond_the_border_are_left_out(toy: sd.SpatialData) -> None:
    height = toy["he_image"]["scale0"]["image"].sizes["y"]
    corners = np.array([[0, 0], [80, 80], [height - 40, 80]])
    toy["squares"] = ShapesModel.parse(gpd.GeoDataFrame({"geometry": boxes(corners)}), transformations=own(toy))
    sp.pp.import_patches(toy, "squares", min_tissue=0)
    np.testing.assert_array_equal(toy["patches"][["y0", "x0"]], corners[:2])
    assert toy.attrs["spatialsig"]["patches"]["patches"]["made_by"] == "shapes: 2 of 3 'squares'"


def put(sdata: sd.SpatialData, geometry: object, transformations: dict) -> None:
    sdata["bad"] = ShapesModel.parse(gpd.GeoDataFrame({"geometry": geometry}), transformations=transformations)


def test_errors(toy: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match=r"`source_key='tiles'` is not in the shapes of slide 'toy'"):
        sp.pp.import_patches(toy, "tiles")
    put(toy, boxes(), own(toy))
    with pytest.raises(InputError, match=r"`tool='qupath'` is not known"):
        sp.pp.import_patches(toy, "bad", tool="qupath")
    with pytest.raises(InputError, match="are not of sopa: no column 'bboxes'"):
        sp.pp.import_patches(toy, "bad", tool="sopa")
    with pytest.raises(InputError, match="is finer than the scan"):
        sp.pp.import_patches(toy, "bad", um_per_px=0.1)
    put(toy, boxes(np.array([[0, 0], [1, 1]]), 2), own(toy))
    with pytest.raises(InputError, match="none is left. Pass `min_tissue=`"):
        sp.pp.import_patches(toy, "bad", min_tissue=1.0)
    put(
        toy,
        [shapely.box(100, 100, 180, 180), shapely.box(200, 200, 300, 280), shapely.box(300, 300, 380, 380)],
        own(toy),
    )
    with pytest.raises(InputError, match="must be squares of one size; most are 80 px, row 1 is 100 x 80 px"):
        sp.pp.import_patches(toy, "bad")
    put(toy, boxes(), {"global": Identity()})
    with pytest.raises((InputError, AlignmentError), match="axes of the image|lie off image"):
        sp.pp.import_patches(toy, "bad")
    assert "patches" not in toy
