from __future__ import annotations

import numpy as np
import pytest
import spatialdata as sd
import zarr

import spatialsig as sp
from spatialsig.errors import InputError
from spatialsig.io.images.open_rgb import open_rgb

from .conftest import whole


def write_ngff(
    path, pixels, version: str, *, axes: str = "cyx", um: float = 0.25, unit="micrometer", omero=None
) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for level in range(2):
        array = np.moveaxis(pixels[:: 2**level, :: 2**level], 2, 0)
        order = [("cyx").index(a) for a in axes if a in "cyx"]
        array = np.transpose(array, order)
        array = array[tuple(slice(None) if a in "cyx" else None for a in axes)]
        options = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if version == "0.4" else {}
        chunks = tuple(min(128, n) for n in array.shape)
        group.create_array(str(level), data=np.ascontiguousarray(array), chunks=chunks, **options)
        scale = [um * 2**level if a in "xy" else 1.0 for a in axes]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    kinds = {"c": "channel", "t": "time"}
    described = [
        {"name": a, "type": kinds.get(a, "space")} | ({"unit": unit} if a in "xy" and unit else {}) for a in axes
    ]
    metadata = {"multiscales": [{"version": version, "axes": described, "datasets": datasets}]}
    if omero:
        metadata["omero"] = {"channels": omero}
    group.attrs.update(metadata if version == "0.4" else {"ome": metadata | {"version": version}})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "tczyx", "yxc"])
def test_ome_zarr_is_read_with_its_levels_and_pixel_size(tmp_path, pixels, version, axes) -> None:
    write_ngff(tmp_path / "a.ome.zarr", pixels, version, axes=axes)
    file = open_rgb(tmp_path / "a.ome.zarr")
    np.testing.assert_array_equal(file.pixels[:, :], pixels)
    np.testing.assert_array_equal(file.levels[1][:, :], pixels[::2, ::2])
    assert file.um_per_px == 0.25
    if axes == "tczyx":
        sdata = sp.io.read_he(tmp_path / "a.ome.zarr", out=tmp_path / "s.zarr")
        np.testing.assert_array_equal(sdata["he_image"]["scale0"]["image"].transpose("y", "x", "c").values, pixels)
        assert sp.io.mpp(sdata) == 0.25


@pytest.mark.parametrize("left", [[], [{"type": "translation", "translation": [0.0, 3.0, 3.0]}], None])
def test_an_image_without_a_scale_does_not_say_how_large_its_pixels_are(tmp_path, pixels, left) -> None:
    write_ngff(tmp_path / "a.zarr", pixels, "0.4")
    group = zarr.open_group(tmp_path / "a.zarr")
    (image,) = group.attrs["multiscales"]
    for dataset in image["datasets"]:
        del dataset["coordinateTransformations"]
        if left is not None:
            dataset["coordinateTransformations"] = left
    group.attrs["multiscales"] = [image]
    assert open_rgb(tmp_path / "a.zarr").um_per_px is None
    with pytest.raises(InputError, match="um_per_px"):
        sp.io.read_he(tmp_path / "a.zarr")
    assert sp.io.mpp(sp.io.read_he(tmp_path / "a.zarr", um_per_px=0.5)) == 0.5


def test_ome_zarr_in_nanometres_with_channels_the_other_way_round(tmp_path, pixels) -> None:
    omero = [{"color": "0000FF"}, {"color": "00FF00"}, {"color": "FF0000"}]
    write_ngff(tmp_path / "a.zarr", pixels[..., ::-1], "0.4", um=500, unit="nanometer", omero=omero)
    file = open_rgb(tmp_path / "a.zarr")
    np.testing.assert_array_equal(file.pixels[:, :], pixels)
    assert file.um_per_px == 0.5


def test_zarr_that_is_no_rgb_image_is_refused(tmp_path, pixels) -> None:
    write_ngff(tmp_path / "a.zarr", pixels, "0.5", unit=None)
    with pytest.raises(InputError, match=r"does not say how large its pixels are"):
        sp.io.read_he(tmp_path / "a.zarr")
    write_ngff(tmp_path / "c.zarr", pixels, "0.5", omero=[{"label": n} for n in ("DAPI", "CD3", "CD8")])
    with pytest.raises(InputError, match=r"channels \['dapi', 'cd3', 'cd8'\]; wanted red, green and blue"):
        sp.io.read_he(tmp_path / "c.zarr")
    sd.SpatialData().write(tmp_path / "s.zarr")
    with pytest.raises(InputError, match=r"is a SpatialData store, no image; read it with spatialsig.io.read"):
        sp.io.read_he(tmp_path / "s.zarr")
    zarr.open_group(tmp_path / "e.zarr", mode="w")
    with pytest.raises(InputError, match=r"without `multiscales`"):
        sp.io.read_he(tmp_path / "e.zarr")
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError, match=r"is a directory but no OME-Zarr"):
        sp.io.read_he(tmp_path / "d")


def test_a_missing_chunk_metadata_is_an_error(tmp_path, pixels) -> None:
    write_ngff(tmp_path / "a.zarr", pixels, "0.5")
    (tmp_path / "a.zarr" / "1" / "zarr.json").unlink()
    with pytest.raises(InputError, match=r"a.zarr' is not a whole OME-Zarr"):
        open_rgb(tmp_path / "a.zarr")
    write_ngff(tmp_path / "b.zarr", pixels, "0.5")
    chunk = next(p for p in (tmp_path / "b.zarr" / "0" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(b"\x00" * 50)
    with pytest.raises(InputError, match=r"b.zarr' cannot be decoded at y 0-530"):
        whole(tmp_path / "b.zarr")
