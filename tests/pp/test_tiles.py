"""Tiles of every tool whose columns, geometries and specification do not fit together: refused with slide, row and fix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from spatialdata.models import ShapesModel
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.errors import InputError

if TYPE_CHECKING:
    import spatialdata as sd

SIDE = 80
CORNERS = np.array([[y, x] for y in range(0, 480, 80) for x in range(0, 480, 80)])  # y0, x0
Y, X = CORNERS.astype(float).T
BOXES = shapely.box(X, Y, X + SIDE, Y + SIDE)
N = len(CORNERS)

COLUMNS: dict[str, dict[str, Any]] = {
    "squidpy": {
        "pixel_y0": Y,
        "pixel_x0": X,
        "pixel_y1": Y + SIDE,
        "pixel_x1": X + SIDE,
        "tile_classification": "tissue",
    },
    "sopa": {"bboxes": [[x, y, x + SIDE, y + SIDE] for y, x in CORNERS.tolist()]},
    "lazyslide": {"tile_id": np.arange(N), "x": X, "y": Y, "tissue_id": 0},
    "shapes": {},
}
SPEC = {"height": 40, "width": 40, "mpp": 2.0, "base_downsample": 2.0}


def tile(
    toy: sd.SpatialData, tool: str, *, columns: dict[str, Any] | None = None, geometry: Any = None, spec: Any = None
) -> None:
    frame = gpd.GeoDataFrame({"geometry": BOXES, **COLUMNS[tool], **(columns or {})})
    place = dict(get_transformation(toy["he_image"], get_all=True))
    toy["tiles"] = ShapesModel.parse(frame, transformations=place)
    if geometry is not None:
        toy["tiles"]["geometry"] = geometry
    if tool == "lazyslide":
        toy.attrs["tile_spec"] = {"tiles": SPEC} if spec is None else spec


@pytest.mark.parametrize("tool", COLUMNS)
def test_tiles_that_fit_together_become_patches(toy: sd.SpatialData, tool: str) -> None:
    tile(toy, tool)
    sp.pp.import_patches(toy, "tiles")
    np.testing.assert_array_equal(toy["patches"][["y0", "x0"]], CORNERS)


def _at(values: np.ndarray, row: int, value: object) -> list[object]:
    out = list(values)
    out[row] = value
    return out


def _with(geometry: object, row: int = 3) -> np.ndarray:
    out = BOXES.copy()
    out[row] = geometry
    return out


ANY_TOOL: dict[str, tuple[Any, str]] = {
    "no geometry": (_with(None), r"row 3 \(index 3\) has no geometry: remove the rows"),
    "an empty one": (_with(shapely.Polygon()), r"row 3 \(index 3\) has no geometry"),
    "points": (shapely.points(X, Y), r"row 0 \(index 0\) is a Point, .*36 of 36 rows.*make_patches\(around=table\)"),
    "a triangle": (_with(shapely.Polygon([(240, 0), (320, 0), (240, 80)])), "no rectangles along the axes"),
}


@pytest.mark.parametrize("tool", COLUMNS)
@pytest.mark.parametrize("fault", ANY_TOOL)
def test_geometries_that_are_no_squares_are_named(toy: sd.SpatialData, tool: str, fault: str) -> None:
    geometry, message = ANY_TOOL[fault]
    if fault == "a triangle" and tool == "sopa":
        pytest.skip("sopa cuts its geometries along the tissue")
    tile(toy, tool, geometry=geometry)
    with pytest.raises(InputError, match=f"slide 'toy': .*'tiles'.*{message}"):
        sp.pp.import_patches(toy, "tiles")
    assert "patches" not in toy


CONTRADICTIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "lazyslide shifted": ("lazyslide", {"x": X + 200}, r" lies at \[0.0, 0.0\] .*'x', 'y' say \[200.0, 0.0\]"),
    "lazyslide swapped": ("lazyslide", {"x": Y, "y": X}, "'x', 'y' say"),
    "squidpy shifted": ("squidpy", {"pixel_x0": X + 80}, "'pixel_x0', 'pixel_y0' say"),
    "squidpy of twice the size": (
        "squidpy",
        {"pixel_y1": Y + 160, "pixel_x1": X + 160},
        r"ends at \[80.0, 80.0\] .* say \[160.0",
    ),
    "squidpy, one NaN and one wrong": (
        "squidpy",
        {"pixel_x0": _at(_at(X, 0, np.nan), 5, 99.0)},
        r"row 0 \(index 0\) has nan, 0.0 in its columns \['pixel_x0', 'pixel_y0'\]",
    ),
    "squidpy, text": ("squidpy", {"pixel_x0": ["a"] * N}, r"has a, 0.0 in its columns"),
    "squidpy, None": ("squidpy", {"pixel_x0": _at(X, 7, None)}, r"row 7 \(index 7\) has nan, 80.0"),
    "ours shifted": ("shapes", {"x0": X, "y0": Y + 10}, "'x0', 'y0' say"),
    "sopa shifted": (
        "sopa",
        {"bboxes": [[x + 80, y, x + 160, y + 80] for y, x in CORNERS.tolist()]},
        "beyond its bboxes",
    ),
    "sopa swapped": ("sopa", {"bboxes": [[y, x, y + 80, x + 80] for y, x in CORNERS.tolist()]}, "beyond its bboxes"),
    "sopa of half the size": (
        "sopa",
        {"bboxes": [[x, y, x + 40, y + 40] for y, x in CORNERS.tolist()]},
        "beyond its bboxes",
    ),
    "sopa, None": (
        "sopa",
        {"bboxes": [None, *COLUMNS["sopa"]["bboxes"][1:]]},
        r"row 0 \(index 0\) has bboxes None, which are not four",
    ),
    "sopa, ragged": (
        "sopa",
        {"bboxes": [[1, 2], *COLUMNS["sopa"]["bboxes"][1:]]},
        r"bboxes \[1, 2\], which are not four",
    ),
    "sopa, text": ("sopa", {"bboxes": ["0 0 80 80"] * N}, "bboxes '0 0 80 80'"),
    "sopa, NaN": (
        "sopa",
        {"bboxes": [[np.nan] * 4, *COLUMNS["sopa"]["bboxes"][1:]]},
        "which are not four finite numbers",
    ),
    "sopa, widths": (
        "sopa",
        {"bboxes": [[x, y, 80, 80] for y, x in CORNERS.tolist()]},
        "which are not four finite numbers",
    ),
}


@pytest.mark.parametrize("fault", CONTRADICTIONS)
def test_columns_that_contradict_the_geometries_are_named(toy: sd.SpatialData, fault: str) -> None:
    tool, columns, message = CONTRADICTIONS[fault]
    tile(toy, tool, columns=columns)
    with pytest.raises(InputError, match=f"slide 'toy': .*'tiles'.*{message}"):
        sp.pp.import_patches(toy, "tiles")


SPECS: dict[str, tuple[Any, str]] = {
    "another size": (
        {"tiles": SPEC | {"height": 256}},
        "256 px and 512 level-0 px wide, but those of 'tiles' are 80 level-0 px",
    ),
    "another resolution": ({"tiles": SPEC | {"mpp": 4.0}}, "40 px and 160 um wide, but those of 'tiles' are 80 um"),
    "text": ({"tiles": SPEC | {"mpp": "2.0"}}, r"\['mpp'\] is '2.0'; wanted a finite number above 0"),
    "NaN": ({"tiles": SPEC | {"mpp": np.nan}}, r"\['mpp'\] is nan"),
    "infinite": ({"tiles": SPEC | {"mpp": np.inf}}, r"\['mpp'\] is inf"),
    "negative": ({"tiles": SPEC | {"mpp": -2.0}}, r"\['mpp'\] is -2.0"),
    "a list for a number": ({"tiles": SPEC | {"width": [40], "height": None}}, r"\['width'\] is \[40\]"),
    "a list": ([1], r"holds \[1\]; wanted the specification of 'tiles'"),
    "a word": ({"tiles": "x"}, "holds 'x'; wanted"),
}


@pytest.mark.parametrize("fault", SPECS)
def test_a_specification_of_other_tiles_is_named(toy: sd.SpatialData, fault: str) -> None:
    spec, message = SPECS[fault]
    tile(toy, "lazyslide", spec=spec)
    with pytest.raises(InputError, match=f"slide 'toy': sdata.attrs.*{message}.*`um_per_px=`"):
        sp.pp.import_patches(toy, "tiles")
    sp.pp.import_patches(toy, "tiles", um_per_px=2.0)  # as the message says
    assert toy.attrs["spatialsig"]["patches"]["patches"]["patch_px"] == 40


def test_tiles_at_one_place_are_named(toy: sd.SpatialData) -> None:
    tile(toy, "shapes", geometry=_with(BOXES[9]))
    with pytest.raises(
        InputError, match=r"2 tiles lie where another one does, as rows 3 and 9 at \[240, 80\] px .*count twice"
    ):
        sp.pp.import_patches(toy, "tiles")


def test_tiles_of_less_than_a_pixel_are_named(toy: sd.SpatialData) -> None:
    tile(toy, "shapes", geometry=shapely.box(X, Y, X + 0.4, Y + 0.4))
    with pytest.raises(InputError, match=r"slide 'toy': tiles of 'tiles' are 0.4 px of image 'he_image' wide"):
        sp.pp.import_patches(toy, "tiles")
