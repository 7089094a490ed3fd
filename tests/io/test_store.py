from __future__ import annotations

import inspect
import subprocess
import sys

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.datasets import blobs

import spatialsig as sp
from spatialsig.errors import FileMissingError, InputError, StoreError


def test_what_is_written_is_read(bundle, tmp_path) -> None:
    sdata = sp.io.read_xenium(bundle.path)
    sp.io.write(sdata, tmp_path / "s.zarr")
    assert sdata.path == tmp_path / "s.zarr"
    for back in (sp.io.read(tmp_path / "s.zarr"), sd.read_zarr(tmp_path / "s.zarr")):
        assert back.attrs == sdata.attrs
        for scale in sdata["he_image"].children:
            a, b = sdata["he_image"][scale]["image"], back["he_image"][scale]["image"]
            np.testing.assert_array_equal(a.values, b.values)
            for axis in "cyx":
                np.testing.assert_array_equal(a[axis].values, b[axis].values)
        axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
        one, two = (
            sd.transformations.get_transformation(s["he_image"]).to_affine_matrix(**axes) for s in (sdata, back)
        )
        np.testing.assert_allclose(one, two, rtol=1e-12)
        assert (back["table"].X != sdata["table"].X).nnz == 0
        assert back["table"].obs["cell_id"].tolist() == sdata["table"].obs["cell_id"].tolist()
        np.testing.assert_array_equal(back["table"].obsm["spatial"], sdata["table"].obsm["spatial"])


def test_a_store_may_be_written_over_itself(bundle, tmp_path) -> None:
    path = tmp_path / "s.zarr"
    sdata = sp.io.read_xenium(bundle.path, out=path)
    with pytest.raises(StoreError, match=r"already exists"):
        sp.io.write(sdata, path)
    sdata["table"].obs["new"] = 1
    sp.io.write(sdata, path, overwrite=True)  # its image is lazy and lies in the store that is replaced
    back = sp.io.read(path)
    assert (back["table"].obs["new"] == 1).all()
    np.testing.assert_array_equal(back["he_image"]["scale0"]["image"].transpose("y", "x", "c").values, bundle.pixels)


def test_objects_of_others_are_written(tmp_path) -> None:
    sdata = blobs(length=40)
    sp.io.write(sdata, tmp_path / "s.zarr")
    back = sd.read_zarr(tmp_path / "s.zarr")
    assert {name for _, name, _ in back.gen_elements()} == {name for _, name, _ in sdata.gen_elements()}


def test_a_failed_write_leaves_nothing(tmp_path) -> None:
    sdata = blobs(length=40)
    sdata.attrs["x"] = object()
    with pytest.raises(InputError, match=r"attribute 'x' cannot be stored as JSON"):
        sp.io.write(sdata, tmp_path / "s.zarr")
    assert sdata.path is None
    assert not list(tmp_path.iterdir())


def test_what_is_no_store_is_named(tmp_path) -> None:
    with pytest.raises(FileMissingError, match=r"SpatialData store: missing .*a.zarr"):
        sp.io.read(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"is not a SpatialData Zarr store"):
        sp.io.read(tmp_path)


def test_a_damaged_store_says_what_is_wrong(tmp_path) -> None:
    path = tmp_path / "s.zarr"
    blobs(length=40).write(path)
    (path / "shapes/blobs_circles/shapes.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"cannot be read: .*Restore it from a copy"):
        sp.io.read(path)


def test_the_front_door_is_light() -> None:
    probe = (
        "import spatialsig.io, sys;"
        "sys.exit(any(m in sys.modules for m in ('torch', 'spatialdata_io', 'tifffile', 'spatialdata', 'zarr')))"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", probe], check=False).returncode == 0


def test_names_are_exported_and_keyword_only() -> None:
    assert dir(sp.io) == sorted(sp.io.__all__)
    for name in {"read_xenium", "read_he", "write"} & set(sp.io.__all__):
        kinds = [p.kind for p in inspect.signature(getattr(sp.io, name)).parameters.values()]
        assert all(kind == inspect.Parameter.KEYWORD_ONLY for kind in kinds[2:])
    with pytest.raises(AttributeError, match="attribute nothing"):
        sp.io.nothing  # noqa: B018
