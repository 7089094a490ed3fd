from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import spatialdata as sd
from spatialdata.models import Image2DModel, Image3DModel
from spatialdata.transformations import Affine, get_transformation

import spatialsig as sp
from spatialsig.errors import FileMissingError, InputError, StoreError
from spatialsig.store import relayout, swap

TURN = Affine(np.array([[0.2, 0.9, 3.0], [-0.9, 0.2, 400.0], [0, 0, 1]]), ("x", "y"), ("x", "y"))


@pytest.fixture(scope="module")
def _plain(tmp_path_factory):
    """A store of spatialdata: RGB, seven stains in 16 bit with one level, and a volume."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (3, 700, 900), dtype=np.uint8)
    stains = rng.integers(0, 60_000, (7, 300, 200), dtype=np.uint16)
    volume = rng.random((2, 3, 40, 50)).astype(np.float32)
    path = tmp_path_factory.mktemp("plain") / "s.zarr"
    sd.SpatialData(
        images={
            "he": Image2DModel.parse(
                rgb, c_coords=["r", "g", "b"], scale_factors=[3], transformations={"global": TURN}
            ),
            "stains": Image2DModel.parse(stains, c_coords=[f"CD{i}" for i in range(7)], dims=("c", "y", "x")),
            "volume": Image3DModel.parse(volume, dims=("c", "z", "y", "x")),
        },
        attrs={"of": "somebody"},
    ).write(path)
    return path


@pytest.fixture
def plain(_plain, tmp_path):
    return shutil.copytree(_plain, tmp_path / "s.zarr")


def pixels(sdata):
    found = {}
    for name, element in sdata.images.items():
        levels = [element] if not hasattr(element, "children") else [element[s]["image"] for s in element.children]
        found[name] = [level.values for level in levels]
    return found


def chunk(path, name, level="s0"):
    return json.loads((path / "images" / name / level / "zarr.json").read_text())["chunk_grid"]["configuration"][
        "chunk_shape"
    ]


@pytest.mark.parametrize(("layout", "chunk_px"), [("default", None), ("speed", 512), ("speed", 64)])
def test_every_level_of_every_image_stays_pixel_for_pixel(plain, layout, chunk_px) -> None:
    before = sd.read_zarr(plain)
    expected = pixels(before)
    metadata = {n: (plain / "images" / n / "zarr.json").read_bytes() for n in expected}
    done = sp.io.optimize(plain, layout=layout, chunk_px=chunk_px)
    assert done["image"].tolist() == ["he", "stains", "volume"]
    assert (done[["bytes_before", "bytes_after"]] > 0).all(axis=None)
    edge = chunk_px or 256
    assert chunk(plain, "he") == chunk(plain, "he", "s1") == [3, edge, edge]
    assert chunk(plain, "stains") == [7, edge, edge]
    assert chunk(plain, "volume") == [2, 1, edge, edge]
    after = sd.read_zarr(plain)
    for name, levels in pixels(after).items():
        assert len(levels) == len(expected[name])
        for a, b in zip(levels, expected[name], strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        assert (plain / "images" / name / "zarr.json").read_bytes() == metadata[name]
    assert sd.models.get_channel_names(after["stains"]) == [f"CD{i}" for i in range(7)]
    assert get_transformation(after["he"]) == get_transformation(before["he"])
    assert after.attrs == {"of": "somebody"}
    assert [p.name for p in plain.parent.iterdir()] == ["s.zarr"]
    consolidated = json.loads((plain / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert consolidated["images/he/s0"]["chunk_grid"]["configuration"]["chunk_shape"] == [3, edge, edge]


def test_a_second_call_finds_nothing_to_do(plain, monkeypatch) -> None:
    sp.io.optimize(plain)
    monkeypatch.setattr(relayout, "swap_in", None)  # would fail if it were called
    assert sp.io.optimize(plain).empty


def test_small_blocks_give_the_same_pixels(plain, monkeypatch) -> None:
    expected = pixels(sd.read_zarr(plain))
    monkeypatch.setattr(relayout, "MAX_BLOCK_BYTES", 3 * 64 * 128)
    sp.io.optimize(plain, layout="speed", chunk_px=64)
    for name, levels in pixels(sd.read_zarr(plain)).items():
        for a, b in zip(levels, expected[name], strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_interruption_leaves_the_old_image(plain, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    before = (plain / "images/he/s0/zarr.json").read_bytes()
    monkeypatch.setattr(swap, "exchange", full)
    with pytest.raises(OSError, match="No space left"):
        sp.io.optimize(plain)
    assert (plain / "images/he/s0/zarr.json").read_bytes() == before
    assert [p.name for p in plain.parent.iterdir()] == ["s.zarr"]


def test_what_cannot_be_used_is_named(plain, tmp_path) -> None:
    with pytest.raises(InputError, match=r"`layout='fast'` is not known"):
        sp.io.optimize(plain, layout="fast")
    with pytest.raises(InputError, match=r"`chunk_px=100` cannot be used"):
        sp.io.optimize(plain, chunk_px=100)
    with pytest.raises(FileMissingError, match=r"nothing\.zarr"):
        sp.io.optimize(tmp_path / "nothing.zarr")
    with pytest.raises(StoreError, match=r"is not a SpatialData Zarr store"):
        sp.io.optimize(tmp_path)
