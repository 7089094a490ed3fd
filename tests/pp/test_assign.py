"""Cells in patches against a brute-force computation through the alignment, whatever way the slide lies."""

import re

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.transformations import Affine, set_transformation

import spatialsig as sp
from spatialsig.errors import AlignmentError, KeyMissingError, SpatialsigWarning

PIXEL = 0.2125
PLACEMENTS = {
    "upright": [[3.0, 0, 100], [0, 3.0, 50]],
    "turned 90": [[0, -3.0, 2000], [3.0, 0, 50]],
    "turned 180": [[-3.0, 0, 2000], [0, -3.0, 2000]],
    "mirrored": [[-3.0, 0, 2000], [0, 3.0, 50]],
    "mirrored and turned 37": [[2.4, 1.8, 100], [1.8, -2.4, 900]],
    "turned by 2": [[2.99817, -0.1047, 200], [0.1047, 2.99817, 100]],
}


@pytest.fixture(params=PLACEMENTS.values(), ids=PLACEMENTS)
def placed(request: pytest.FixtureRequest, toy: sd.SpatialData) -> tuple[sd.SpatialData, np.ndarray]:
    """The toy slide with its H&E in another frame; cells lie anywhere on it. Also their planted H&E px."""
    matrix = np.vstack([request.param, [0, 0, 1]])
    set_transformation(toy["he_image"], Affine(matrix, ("x", "y"), ("x", "y")), "global")
    size = toy["he_image"]["scale0"]["image"].sizes["x"]
    rng = np.random.default_rng(0)
    he_px = rng.uniform(0, size, (toy["table"].n_obs, 2))
    toy["table"].obsm["spatial"] = (he_px @ matrix[:2, :2].T + matrix[:2, 2]) * PIXEL
    return toy, he_px


@pytest.mark.parametrize("stride_um", [None, 20.0])
def test_assignment_equals_brute_force(placed: tuple[sd.SpatialData, np.ndarray], stride_um: float | None) -> None:
    sdata, he_px = placed
    sp.pp.make_patches(sdata, patch_px=40, um_per_px=1.0, stride_um=stride_um, min_tissue=0)
    sp.pp.assign_cells(sdata)
    expected = np.zeros((len(he_px), len(sdata["patches"])), bool)
    for column, square in enumerate(sdata["patches"].geometry):
        x0, y0, x1, y1 = square.bounds
        expected[:, column] = (he_px[:, 0] >= x0) & (he_px[:, 0] < x1) & (he_px[:, 1] >= y0) & (he_px[:, 1] < y1)
    np.testing.assert_array_equal(sdata["table"].obsm["patch_membership"].toarray().astype(bool), expected)
    assert expected.any()


def test_pixels_taken_for_micrometres_are_refused(toy: sd.SpatialData) -> None:
    sp.pp.make_patches(toy, patch_px=56, um_per_px=2.0)
    toy["table"].obsm["spatial"] = toy["table"].obsm["spatial"] / 0.02
    with pytest.raises(AlignmentError, match=r"of the cells lie on image 'he_image'; check the alignment file"):
        sp.pp.assign_cells(toy)
    assert "patch_membership" not in toy["table"].obsm


@pytest.mark.parametrize(
    ("he_um", "px_um", "what"), [(0.5, 0.5, "px of the image (0.5 µm)"), (1.0, 0.4, "px of the platform (0.4 µm)")]
)
def test_positions_in_px_are_refused_with_the_factor(he_um: float, px_um: float, what: str) -> None:
    sdata = sp.datasets.toy(size_um=250.0, he_um_per_px=he_um, pixel_size_um=px_um)
    sp.pp.make_patches(sdata, patch_px=56, um_per_px=1.0)
    sdata["table"].obsm["spatial"] = sdata["table"].obsm["spatial"] / px_um
    with pytest.raises(
        AlignmentError, match=rf"% do if obsm\['spatial'\] holds {re.escape(what)}, not µm: multiply it by {px_um}"
    ):
        sp.pp.assign_cells(sdata)
    assert "patch_membership" not in sdata["table"].obsm
    sdata.attrs["spatialsig"]["qc_alignment"] = {"verdict": "good"}  # an image of a part of the section
    with pytest.warns(SpatialsigWarning, match="fewer than 80%"):
        sp.pp.assign_cells(sdata)


def test_half_a_slide_off_the_image_is_said(toy: sd.SpatialData) -> None:
    sp.pp.make_patches(toy, patch_px=56, um_per_px=2.0)
    xy = toy["table"].obsm["spatial"]
    toy["table"].obsm["spatial"] = xy + np.array([0.5, 0]) * np.ptp(xy, axis=0)
    with pytest.warns(SpatialsigWarning, match="fewer than 80%"):
        sp.pp.assign_cells(toy)


def test_patches_come_first(toy: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match="Call `sp.pp.make_patches` first"):
        sp.pp.assign_cells(toy)
