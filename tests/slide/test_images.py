"""Images that no H&E can be, and places that no image can have: refused by everything that would use them, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import shapely
import spatialdata as sd
from spatialdata.models import Image2DModel, ShapesModel
from spatialdata.transformations import Affine, Scale, Sequence, get_transformation, set_transformation
from xarray import Dataset, DataTree

import spatialsig as sp
from spatialsig.errors import AlignmentError, InputError, SpatialsigWarning
from spatialsig.slide.coordinates import um_per_global
from spatialsig.slide.slides import Slide

if TYPE_CHECKING:
    from collections.abc import Callable


def put(toy: sd.SpatialData, image: object) -> sd.SpatialData:
    del toy.images["he_image"]
    toy.images["he_image"] = image
    return toy


def parsed(toy: sd.SpatialData, pixels: np.ndarray, names: list[str]) -> object:
    place = get_transformation(toy["he_image"], get_all=True)
    return Image2DModel.parse(pixels, dims=("c", "y", "x"), c_coords=names, transformations=place)


def pixels_of(toy: sd.SpatialData) -> np.ndarray:
    return np.asarray(toy["he_image"]["scale0"]["image"].data)


def coarse_first(toy: sd.SpatialData) -> DataTree:
    full = pixels_of(toy)
    levels = [parsed(toy, np.ascontiguousarray(one), ["r", "g", "b"]) for one in (full[:, ::2, ::2], full)]
    return DataTree.from_dict({f"scale{i}": Dataset({"image": level}) for i, level in enumerate(levels)})


def cropped_level(toy: sd.SpatialData) -> DataTree:
    full = pixels_of(toy)
    levels = [parsed(toy, np.ascontiguousarray(one), ["r", "g", "b"]) for one in (full, full[:, :200, :380])]
    return DataTree.from_dict({f"scale{i}": Dataset({"image": level}) for i, level in enumerate(levels)})


RGB = ["r", "g", "b"]
NO_H_AND_E: dict[str, tuple[Callable[[sd.SpatialData], object], str]] = {
    "gray": (lambda t: parsed(t, pixels_of(t)[:1], ["r"]), r"of shape \(1, .*gray image has no stain colours"),
    "RGBA": (
        lambda t: parsed(t, np.concatenate([pixels_of(t), pixels_of(t)[:1]]), list("rgba")),
        r"of shape \(4, .*`image\[:3\]`",
    ),
    "float": (lambda t: parsed(t, (pixels_of(t) / 255).astype("f4"), RGB), "float32 .*multiply by 255"),
    "16 bit": (lambda t: parsed(t, pixels_of(t).astype("u2") * 257, RGB), "uint16"),
    "fluorescence": (lambda t: parsed(t, pixels_of(t), ["DAPI", "GFP", "RFP"]), r"channels \['dapi', 'gfp', 'rfp'\]"),
    "a strange channel": (lambda t: parsed(t, pixels_of(t), ["r", "b", "x"]), r"channels \['r', 'b', 'x'\]"),
    "a channel twice": (lambda t: parsed(t, pixels_of(t), ["r", "r", "b"]), r"channels \['r', 'r', 'b'\]"),
    "blue first": (lambda t: parsed(t, pixels_of(t), ["b", "g", "r"]), r"channels \['b', 'g', 'r'\]"),
    "coarse level first": (coarse_first, "levels of 292 x 292, 583 x 583 px .* finest first"),
    "a level of another part": (cropped_level, "200 x 380 has other proportions"),
}
READERS: dict[str, Callable[[sd.SpatialData], object]] = {
    "find_tissue": sp.pp.find_tissue,
    "make_patches": lambda data: sp.pp.make_patches(data, patch_px=28, um_per_px=2.0),
    "qc_alignment": sp.pp.qc_alignment,
    "align_he": lambda data: sp.pp.align_he(data, matrix="identity"),
    "pl.alignment": sp.pl.alignment,
    "import_patches": lambda data: sp.pp.import_patches(data, "tiles"),
}


def with_tiles(toy: sd.SpatialData) -> sd.SpatialData:
    tiles = gpd.GeoDataFrame(geometry=[shapely.box(x, 200, x + 56, 256) for x in (200, 256, 312)])
    own = dict(get_transformation(toy["he_image"], get_all=True))  # which is changed alone
    toy["tiles"] = ShapesModel.parse(tiles, transformations=own)
    return toy


@pytest.mark.parametrize("fault", NO_H_AND_E)
@pytest.mark.parametrize("reader", READERS)
def test_what_can_be_no_h_and_e_is_refused(toy: sd.SpatialData, reader: str, fault: str) -> None:
    make, message = NO_H_AND_E[fault]
    slide = put(with_tiles(toy), make(toy))
    with pytest.raises(InputError, match=f"slide 'toy': image 'he_image'.*{message}"):
        READERS[reader](slide)


def test_a_size_is_told_of_an_image_of_any_channels(toy: sd.SpatialData) -> None:
    slide = put(toy, parsed(toy, pixels_of(toy)[:1], ["DAPI"]))
    assert sp.io.mpp(slide) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "names",
    [
        [0, 1, 2],
        ["0", "1", "2"],
        ["channel 1", "channel 2", "channel 3"],
        ["Red", "Green", "Blue"],
        ["C:0", "C:1", "C:2"],
    ],
)
def test_names_that_say_nothing_are_no_fault(toy: sd.SpatialData, names: list[object]) -> None:
    sp.pp.find_tissue(put(toy, parsed(toy, pixels_of(toy), names)))


def moved(toy: sd.SpatialData, element: str, matrix: list[list[float]]) -> sd.SpatialData:
    own = get_transformation(toy[element], get_all=True)["global"]
    affine = Affine(np.array(matrix, float), input_axes=("x", "y"), output_axes=("x", "y"))
    set_transformation(toy[element], Sequence([affine, own]), "global")
    return toy


NO_PLACE = {
    "stretched": ([[3, 0, 0], [0, 1, 0], [0, 0, 1]], "stretches one axis 3 times"),
    "sheared": ([[1, 0.2, 0], [0, 1, 0], [0, 0, 1]], "stretches one axis 1.22 times"),
    "singular": ([[1, 0, 0], [0, 0, 0], [0, 0, 1]], r"singular \(|singular"),
    "NaN": ([[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]], "NaN or infinite"),
    "infinite": ([[np.inf, 0, 0], [0, 1, 0], [0, 0, 1]], "NaN or infinite"),
}
USERS = {
    name: READERS[name] for name in ("find_tissue", "make_patches", "qc_alignment", "pl.alignment", "import_patches")
}
USERS |= {"mpp": sp.io.mpp}


@pytest.mark.parametrize("fault", NO_PLACE)
@pytest.mark.parametrize("user", USERS)
def test_an_image_without_a_place_is_refused(toy: sd.SpatialData, user: str, fault: str) -> None:
    matrix, message = NO_PLACE[fault]
    with pytest.raises(AlignmentError, match=f"slide 'toy': the transformation of image 'he_image' .*{message}"):
        USERS[user](moved(with_tiles(toy), "he_image", matrix))


@pytest.mark.parametrize("fault", NO_PLACE)
def test_tiles_without_a_place_are_refused(toy: sd.SpatialData, fault: str) -> None:
    matrix, message = NO_PLACE[fault]
    with pytest.raises(AlignmentError, match=f"slide 'toy': the transformation of 'tiles' .*{message}"):
        sp.pp.import_patches(moved(with_tiles(toy), "tiles", matrix), "tiles")


def test_an_image_without_a_place_gets_one(toy: sd.SpatialData) -> None:
    right = np.asarray(get_transformation(toy["he_image"]).to_affine_matrix(("x", "y"), ("x", "y")))
    moved(toy, "he_image", NO_PLACE["NaN"][0])
    sp.pp.align_he(toy, matrix=right)
    assert toy.attrs["spatialsig"]["align_he"]["matrix_before"] is None
    assert sp.io.mpp(toy) == pytest.approx(1.0)


def test_patches_on_an_image_that_is_stretched_a_little_are_told(toy: sd.SpatialData) -> None:
    with pytest.warns(
        SpatialsigWarning, match=r"slide 'toy': the transformation of image 'he_image' stretches one axis 1.15"
    ):
        sp.pp.make_patches(moved(toy, "he_image", [[1.15, 0, 0], [0, 1, 0], [0, 0, 1]]), patch_px=28, um_per_px=2.0)


def annotated(toy: sd.SpatialData, scale: list[float], *, first: bool) -> Slide:
    """An object of another reader, with an outline drawn in other pixels before or after the cells."""
    del toy.attrs["spatialsig"]["um_per_global_px"]
    outline = gpd.GeoDataFrame(geometry=[shapely.box(10, 10, 50, 50)])
    outline = ShapesModel.parse(outline, transformations={"global": Scale(scale, axes=("x", "y"))})
    cells = toy.shapes.pop("cell_circles")
    for name, shapes in [("drawn", outline), ("cell_circles", cells)][:: 1 if first else -1]:
        toy.shapes[name] = shapes
    return Slide(toy)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("scale", [[4, 4], [4, 2], [-4, -4]])
def test_the_length_of_a_unit_is_that_of_the_cells(toy: sd.SpatialData, scale: list[float], first: bool) -> None:
    assert um_per_global(annotated(toy, scale, first=first)) == pytest.approx(0.2125)


@pytest.mark.parametrize("scale", [[4, 4], [4, 2]])
def test_shapes_that_contradict_each_other_are_named(toy: sd.SpatialData, scale: list[float]) -> None:
    slide = annotated(toy, scale, first=True)
    del toy.tables["table"]
    with pytest.raises(
        AlignmentError, match=r"contradict each other .*'drawn': 0.25 along x.*'cell_circles': 0.2125 along x"
    ):
        um_per_global(slide)


@pytest.mark.parametrize("length", [1e9, 1e-9])
def test_a_length_that_no_image_has_is_refused(toy: sd.SpatialData, length: float) -> None:
    toy.attrs["spatialsig"]["um_per_global_px"] = length
    with pytest.raises(
        AlignmentError, match=r"um_per_global_px'\] gives 1(e-09|0+\.0) um per pixel .* wanted 0.001 to 1000"
    ):
        sp.io.mpp(toy)
