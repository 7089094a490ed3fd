import matplotlib.pyplot as plt
import numpy as np
import pytest
import spatialdata as sd
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from spatialdata.transformations import Affine, get_transformation, set_transformation

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.pl._alignment import _windows

XY = ("x", "y")


def moved(sdata: sd.SpatialData, dx_um: float) -> None:
    matrix = np.asarray(get_transformation(sdata["he_image"]).to_affine_matrix(XY, XY))
    matrix[0, 2] += dx_um / 0.2125
    set_transformation(sdata["he_image"], Affine(matrix, XY, XY))


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_circles_are_the_cells_in_image_pixels(toy) -> None:
    axes = sp.pl.alignment(toy)
    assert axes.shape == (1, 5)
    planted = toy["table"].obsm["he_px"]
    for window in axes[0, 1:]:
        (x0, x1), (y1, y0) = window.get_xlim(), window.get_ylim()
        assert y1 > y0  # y runs down
        inside = ((planted > (x0, y0)) & (planted < (x1, y1))).all(axis=1)
        assert inside.sum() >= 3
        circles = next(c for c in window.collections if isinstance(c, EllipseCollection))
        drawn = circles.get_offsets()
        nearest = np.abs(planted[inside][:, None] - drawn[None]).max(axis=-1).min(axis=1)
        assert nearest.max() < 0.01
        image = window.images[0]
        np.testing.assert_allclose(image.get_extent(), [x0, x1, y1, y0])
        pixels = np.asarray(toy["he_image"]["scale0"]["image"].data)[:, int(y0) : int(y1), int(x0) : int(x1)]
        np.testing.assert_array_equal(image.get_array(), np.moveaxis(pixels, 0, -1))


def test_windows_lie_on_the_image_apart_from_each_other(toy) -> None:
    xy = toy["table"].obsm["he_px"]
    width = toy["he_image"]["scale0"]["image"].sizes["x"]
    for n in (1, 2, 3, 4):
        boxes = np.array(_windows(xy, (0, 0, width, width), n, 100.0))
        assert len(boxes) == n
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= width).all()
        np.testing.assert_array_equal(boxes[:, 2:] - boxes[:, :2], 100)
        middles = boxes[:, :2] + 50
        apart = np.hypot(*(middles[:, None] - middles[None]).transpose(2, 0, 1))
        assert apart[~np.eye(n, dtype=bool)].min(initial=np.inf) > 60


def test_map_of_shifts_points_to_the_nuclei(toy) -> None:
    moved(toy, 8.0)
    assert not [c for c in sp.pl.alignment(toy)[0, 0].collections if isinstance(c, Quiver)]
    sp.pp.qc_alignment(toy, n_regions=2)
    axes = sp.pl.alignment(toy)
    (arrows,) = [c for c in axes[0, 0].collections if isinstance(c, Quiver)]
    to_um = np.asarray(get_transformation(toy["he_image"]).to_affine_matrix(XY, XY))[:2, :2] * 0.2125
    shifts = np.stack([arrows.U, arrows.V], axis=1) @ to_um.T
    np.testing.assert_allclose(np.arctan2(*shifts.T[::-1]), 0, atol=0.05)  # x of the cells' frame
    assert len(shifts) == 4
    assert "8.0 µm off the cells (x +8.0, y +0.0)" in axes[0, 0].figure._suptitle.get_text()


def test_title_without_a_result_and_for_a_mistake(toy) -> None:
    figure = sp.pl.alignment(toy)[0, 0].figure
    assert "not measured (sp.pp.qc_alignment)" in figure._suptitle.get_text()
    toy.attrs["spatialsig"]["qc_alignment"] = {
        "image_key": "he_image", "shift_um": None, "dx_um": None, "dy_um": None, "verdict": "wrong", "n_regions": 1,
        "mistake": "x and y are swapped", "regions": [{"x_um": 100.0, "y_um": 100.0, "dx_um": None, "dy_um": None}],
    }  # fmt: skip
    figure = sp.pl.alignment(toy)[0, 0].figure
    assert figure._suptitle.get_text() == "toy: wrong, x and y are swapped"


def test_one_row_per_slide_on_a_given_figure(toy, tmp_path) -> None:
    class Stores:
        @property
        def stores(self) -> dict:
            return {"A": tmp_path / "a.zarr", "B": tmp_path / "b.zarr"}

    for path in Stores().stores.values():
        sp.io.write(toy, path)
    figure = Figure()
    axes = sp.pl.alignment(Stores(), n_windows=2, figure=figure, save=tmp_path / "a.png")
    assert axes.shape == (2, 3)
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert axes[0, 0].get_figure(root=True) is figure


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"image_key": "HE"}, KeyMissingError, "`image_key='HE'` is not in the images of slide 'toy'"),
        ({"table_key": "cells"}, KeyMissingError, "`table_key='cells'` is not in the tables"),
        ({"n_windows": 7}, InputError, "`n_windows=7` is not known; choose one of"),
        ({"window_um": 0}, InputError, "`window_um=0` .* must be greater than 0"),
    ],
)
def test_errors(toy, kwargs, error, message) -> None:
    with pytest.raises(error, match=message):
        sp.pl.alignment(toy, **kwargs)


def test_cells_beside_the_image(toy) -> None:
    moved(toy, 5000)
    with pytest.raises(InputError, match=r"none of \d+ cells lies on image 'he_image'; `sp.pp.qc_alignment` tries"):
        sp.pl.alignment(toy)
