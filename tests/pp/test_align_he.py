"""Matrices, landmarks and files place the image where the truth has it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from spatialdata.transformations import Identity, get_transformation, remove_transformation, set_transformation

import spatialsig as sp
from spatialsig.errors import AlignmentError, InputError, KeyMissingError, SpatialsigWarning

XY = ("x", "y")
PIXEL = 0.2125


def matrix_of(sdata: sd.SpatialData) -> np.ndarray:
    return np.asarray(get_transformation(sdata["he_image"]).to_affine_matrix(XY, XY))


@pytest.fixture
def lost(toy: sd.SpatialData) -> sd.SpatialData:
    """The toy slide after its alignment was lost: the image lies at the identity, as some readers leave it."""
    toy.attrs["truth"] = matrix_of(toy).tolist()
    set_transformation(toy["he_image"], Identity(), "global")
    return toy


def truth(sdata: sd.SpatialData) -> np.ndarray:
    return np.array(sdata.attrs["truth"])


def pairs(sdata: sd.SpatialData, n: int = 12, noise_um: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Cells that were marked on the H&E (px) and in the cells' frame (µm)."""
    rng = np.random.default_rng(0)
    rows = rng.choice(sdata["table"].n_obs, n, replace=False)
    he, um = sdata["table"].obsm["he_px"][rows], sdata["table"].obsm["spatial"][rows]
    return he, um + rng.normal(scale=noise_um, size=um.shape) if noise_um else um


def test_matrix_is_set_and_recorded(lost) -> None:
    done = sp.pp.align_he(lost, matrix=truth(lost))
    np.testing.assert_array_equal(matrix_of(lost), truth(lost))
    assert done.loc["toy", ["kind", "n_points"]].tolist() == ["matrix", 0]
    assert np.isnan(done["rmse_um"].item())
    assert done["he_um_per_px"].item() == pytest.approx(1.0)
    assert done["share_in_image"].item() > 0.99
    kept = lost.attrs["spatialsig"]["align_he"]
    assert kept["matrix_before"] == np.eye(3).tolist()
    assert kept["matrix"] == truth(lost).tolist()
    assert kept["rmse_um"] is None
    assert sp.pp.qc_alignment(lost)["shift_um"].item() < 0.5


def test_matrix_in_um(lost) -> None:
    sp.pp.align_he(lost, matrix=np.diag([PIXEL, PIXEL, 1]) @ truth(lost), target="um")
    np.testing.assert_allclose(matrix_of(lost), truth(lost), atol=1e-9)


@pytest.mark.parametrize("target", ["um", "global"])
@pytest.mark.parametrize("table", [False, True])
def test_landmarks(lost, target, table) -> None:
    he, um = pairs(lost)
    goal = um if target == "um" else um / PIXEL
    given = (he, goal)
    if table:
        given = pd.DataFrame(np.hstack([goal, he]), columns=["target_x", "target_y", "he_x", "he_y"])
    done = sp.pp.align_he(lost, landmarks=given, target=target)
    np.testing.assert_allclose(matrix_of(lost), truth(lost), atol=0.02)
    assert done.loc["toy", ["kind", "n_points"]].tolist() == ["keypoints", 12]
    assert done["rmse_um"].item() < 0.01


@pytest.mark.parametrize("target", ["um", "global"])
def test_rmse_is_in_um_whatever_the_target(lost, target) -> None:
    he, um = pairs(lost, n=200, noise_um=4.0)
    done = sp.pp.align_he(lost, landmarks=(he, um if target == "um" else um / PIXEL), target=target)
    assert done["rmse_um"].item() == pytest.approx(4 * np.sqrt(2), rel=0.1)
    assert lost.attrs["spatialsig"]["align_he"]["rmse_um"] == done["rmse_um"].item()


def test_bad_landmarks_warn(lost) -> None:
    he, um = pairs(lost)
    um = um.copy()
    um[4] += [120, 0]
    with pytest.warns(SpatialsigWarning, match=r"landmarks of slide toy': 12 points miss .*the worst is point 5"):
        sp.pp.align_he(lost, landmarks=(he, um), target="um")


@pytest.mark.parametrize("kind", ["matrix", "keypoints"])
def test_file(lost, tmp_path, kind) -> None:
    file = tmp_path / "a.csv"
    if kind == "matrix":
        np.savetxt(file, truth(lost), delimiter=",")
    else:
        he, um = pairs(lost)
        pd.DataFrame(np.hstack([um / PIXEL, he]), columns=["fixedX", "fixedY", "alignmentX", "alignmentY"]).to_csv(file)
    done = sp.pp.align_he(lost, file=file)
    assert done["kind"].item() == kind
    np.testing.assert_allclose(matrix_of(lost), truth(lost), atol=0.02)
    assert lost.attrs["spatialsig"]["align_he"]["source"] == str(file)


def test_image_without_a_place_in_global(lost) -> None:
    set_transformation(lost["he_image"], Identity(), "he")
    remove_transformation(lost["he_image"], "global")
    sp.pp.align_he(lost, matrix=truth(lost))
    assert set(get_transformation(lost["he_image"], get_all=True)) == {"he", "global"}
    assert lost.attrs["spatialsig"]["align_he"]["matrix_before"] is None


def test_cohort_of_stores(lost, tmp_path) -> None:
    class Stores:
        @property
        def stores(self) -> dict:
            return {name: tmp_path / f"{name}.zarr" for name in ("A", "B")}

    for name, path in Stores().stores.items():
        lost.attrs["spatialsig"]["sample"] = name
        sp.io.write(lost, path)
    other = truth(lost) + np.array([[0, 0, 3.0], [0, 0, 0], [0, 0, 0]])
    with pytest.raises(InputError, match="one `matrix` for 2 slides; give a mapping"):
        sp.pp.align_he(Stores(), matrix=other)
    with pytest.raises(InputError, match=r"`matrix` has no entry for slide 'B'; it has \['A'\]"):
        sp.pp.align_he(Stores(), matrix={"A": other})
    np.testing.assert_array_equal(matrix_of(sd.read_zarr(Stores().stores["A"])), np.eye(3))
    done = sp.pp.align_he(Stores(), matrix={"A": truth(lost), "B": other})
    assert done.index.tolist() == ["A", "B"]
    np.testing.assert_allclose(matrix_of(sd.read_zarr(Stores().stores["A"])), truth(lost))
    back = sd.read_zarr(Stores().stores["B"])
    np.testing.assert_allclose(matrix_of(back), other)
    assert back.attrs["spatialsig"]["align_he"]["matrix"] == other.tolist()


def test_an_old_result_of_the_check_goes(toy) -> None:
    sp.pp.qc_alignment(toy, n_regions=1)
    sp.pp.align_he(toy, matrix=matrix_of(toy))
    assert "qc_alignment" not in toy.attrs["spatialsig"]


def test_refused_after_patches_were_cut(toy) -> None:
    before = matrix_of(toy)
    sp.pp.make_patches(toy, patch_px=56, um_per_px=1.0)
    with pytest.raises(
        AlignmentError, match=r"slide 'toy': patches \['patches'\] were cut .*del sdata\['patches'\].*make_patches"
    ):
        sp.pp.align_he(toy, matrix=before)
    del toy["patches"]
    sp.pp.align_he(toy, matrix=before)


def test_identity_only_when_asked_for(toy) -> None:
    with pytest.raises(
        InputError, match=r"exactly one of `matrix`, `landmarks` and `file`; got \[\].*matrix='identity'"
    ):
        sp.pp.align_he(toy)
    with pytest.raises(AlignmentError, match=r"puts \d+% of \d+ cells outside image 'he_image'"):
        sp.pp.align_he(toy, matrix="identity")
    del toy.tables["table"]
    done = sp.pp.align_he(toy, matrix="identity")
    np.testing.assert_array_equal(matrix_of(toy), np.eye(3))
    assert np.isnan(done["share_in_image"].item())


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"matrix": np.eye(3), "file": "a.csv"}, InputError, r"got \['matrix', 'file'\]"),
        ({"matrix": "same"}, InputError, "`matrix='same'` is not known"),
        ({"matrix": np.eye(3), "image_key": "HE"}, KeyMissingError, "`image_key='HE'` is not in the images"),
        ({"matrix": np.eye(3), "target": "px"}, InputError, "`target='px'` .* 'global' or 'um'"),
        ({"matrix": np.eye(2)}, AlignmentError, r"'matrix of slide toy' has shape \(2, 2\)"),
        ({"matrix": np.diag([4.7, 4.7, 1]), "target": "um"}, AlignmentError, "implies an H&E pixel of 4.7 um"),
        ({"landmarks": (np.eye(2), np.eye(2))}, AlignmentError, r"slide toy' has 2 point\(s\)"),
        ({"landmarks": 3}, InputError, "`landmarks=3` .* a valid tuple or an instance of DataFrame"),
        ({"landmarks": pd.DataFrame({"x": [1]})}, InputError, r"has columns \['x'\]; wanted one of"),
    ],
)
def test_errors_change_nothing(toy: sd.SpatialData, kwargs: dict, error: type[Exception], message: str) -> None:
    before = matrix_of(toy)
    with pytest.raises(error, match=message):
        sp.pp.align_he(toy, **kwargs)
    np.testing.assert_array_equal(matrix_of(toy), before)
    assert "align_he" not in toy.attrs["spatialsig"]
