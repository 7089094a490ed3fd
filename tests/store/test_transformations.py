import os

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.transformations import Affine, Identity, get_transformation

import spatialsig as sp
from spatialsig.errors import KeyMissingError
from spatialsig.store.transformations import commit_transformations

XY = ("x", "y")
MOVED = Affine(np.array([[0.0, 2, 5], [-2, 0, 7], [0, 0, 1]]), XY, XY)


def matrix_of(store) -> np.ndarray:
    return get_transformation(sd.read_zarr(store)["he_image"]).to_affine_matrix(XY, XY)


@pytest.fixture
def store(toy: sd.SpatialData, tmp_path):
    sp.io.write(toy, tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


def test_all_transformations_are_replaced_and_no_pixel_is_written(store) -> None:
    pixels = np.asarray(sd.read_zarr(store)["he_image"]["scale0"]["image"].data)
    chunks = {f: os.stat(f).st_ino for f in store.glob("images/he_image/*/c/**/*") if f.is_file()}
    commit_transformations(store, "he_image", {"global": MOVED, "he": Identity()})
    back = sd.read_zarr(store)
    found = get_transformation(back["he_image"], get_all=True)
    assert set(found) == {"global", "he"}
    np.testing.assert_array_equal(found["global"].to_affine_matrix(XY, XY), MOVED.matrix)
    np.testing.assert_array_equal(back["he_image"]["scale0"]["image"].data, pixels)
    assert len(chunks) > 4
    assert {f: os.stat(f).st_ino for f in chunks} == chunks


def test_other_elements_and_attributes_stay(store, toy) -> None:
    commit_transformations(store, "he_image", {"global": MOVED})
    back = sd.read_zarr(store)
    assert back.attrs["spatialsig"] == toy.attrs["spatialsig"]
    assert (back["table"].X != toy["table"].X).nnz == 0
    assert get_transformation(back["cell_circles"]) == get_transformation(toy["cell_circles"])
    assert not [f.name for f in store.parent.iterdir() if "staging" in f.name]


def test_no_difference_to_an_image_written_whole(store, toy, tmp_path) -> None:
    commit_transformations(store, "he_image", {"global": MOVED})
    sd.transformations.set_transformation(toy["he_image"], MOVED)
    sp.io.write(toy, tmp_path / "whole.zarr")
    for name in ("zarr.json", "images/he_image/zarr.json"):
        assert (store / name).read_text() == (tmp_path / "whole.zarr" / name).read_text()


def test_interrupted_it_leaves_the_old_image(store, monkeypatch) -> None:
    before = matrix_of(store)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk is gone")

    monkeypatch.setattr("spatialsig.store.swap.consolidate", fail)
    with pytest.raises(OSError, match="disk is gone"):
        commit_transformations(store, "he_image", {"global": MOVED})
    monkeypatch.undo()
    np.testing.assert_array_equal(matrix_of(store), before)
    commit_transformations(store, "he_image", {"global": MOVED})
    np.testing.assert_array_equal(matrix_of(store), MOVED.matrix)


def test_unknown_image(store) -> None:
    with pytest.raises(KeyMissingError, match=r"`image_key='HE'` is not in the images of store .*\['he_image'\]"):
        commit_transformations(store, "HE", {"global": MOVED})
