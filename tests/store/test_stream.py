from __future__ import annotations

import itertools
import json

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import tensorstore
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

from spatialsig._settings import settings
from spatialsig.errors import InputError
from spatialsig.store import stream as images
from spatialsig.store.commit import create_store
from spatialsig.store.layout import level_shapes
from spatialsig.store.stream import StreamedImage, halve

from .conftest import TO_GLOBAL, image, picture


def stream(path, pixels, **kwargs) -> sd.SpatialData:
    create_store(path, sd.SpatialData(), images={"he": StreamedImage(pixels, {"global": TO_GLOBAL}, **kwargs)})
    return sd.read_zarr(path)


def brute_force_half(pixels: np.ndarray) -> np.ndarray:
    c, h, w = pixels.shape
    out = np.empty((c, h // 2, w // 2), np.uint8)
    for k in range(c):
        for y in range(h // 2):
            for x in range(w // 2):
                four = [int(pixels[k, 2 * y + i, 2 * x + j]) for i in (0, 1) for j in (0, 1)]
                out[k, y, x] = int(sum(four) / 4 + 0.5)
    return out


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))))
def test_halve_is_the_rounded_mean_of_four(pixels) -> None:
    np.testing.assert_array_equal(halve(pixels), brute_force_half(pixels))


@given(st.integers(1, 200_000), st.integers(1, 200_000))
def test_levels_halve_until_one_fits_a_screen(height, width) -> None:
    shapes = level_shapes(height, width)
    assert shapes[0] == (height, width)
    assert all(b == (a[0] // 2, a[1] // 2) for a, b in itertools.pairwise(shapes))
    assert max(shapes[-1]) <= 1024 or min(shapes[-1]) == 1
    assert all(max(shape) > 1024 for shape in shapes[1:-1])
    assert len(shapes) > 1 or min(height, width) == 1


@pytest.mark.parametrize("size", [(1100, 2100), (517, 300), (256, 2)], ids=str)
def test_metadata_equal_what_spatialdata_writes(tmp_path, size) -> None:
    pixels = picture(*size)
    ours = stream(tmp_path / "ours.zarr", pixels)
    n_levels = len(level_shapes(*size))
    peer = Image2DModel.parse(
        np.moveaxis(pixels, 2, 0),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"],
        scale_factors=[2] * (n_levels - 1),
        transformations={"global": TO_GLOBAL},
    )
    sd.SpatialData(images={"he": peer}).write(tmp_path / "peer.zarr")
    theirs = sd.read_zarr(tmp_path / "peer.zarr")
    own, other = (json.loads((tmp_path / n / "images/he/zarr.json").read_text()) for n in ("ours.zarr", "peer.zarr"))
    assert own == other
    assert list(ours["he"].children) == list(theirs["he"].children)
    for scale in ours["he"].children:
        a, b = ours["he"][scale]["image"], theirs["he"][scale]["image"]
        assert a.shape == b.shape
        for axis in "cyx":
            np.testing.assert_array_equal(a[axis].values, b[axis].values)
        assert get_transformation(a) == get_transformation(b)


@given(st.integers(1, 40).map(lambda n: n * 512), st.integers(2, 60_000), st.integers(1, 8))
def test_blocks_never_share_a_chunk(block, size, wanted) -> None:
    """Two threads that wrote parts of one chunk would lose one of the parts."""
    for level in range(images._levels_per_pass((size, size), (block, block), wanted)):
        chunks = [
            {row // 256 for row in (start >> level, min(start + block, size) - 1 >> level)}
            for start in range(0, size, block)
        ]
        assert all(max(a) < min(b) for a, b in itertools.pairwise(chunks))


@pytest.mark.parametrize(("threads", "block_chunks"), [(1, 8), (3, 2)])
def test_every_reader_finds_the_same_pixels_at_every_level(tmp_path, monkeypatch, threads, block_chunks) -> None:
    monkeypatch.setattr(settings, "threads", threads)
    monkeypatch.setattr(images, "BLOCK_CHUNKS", block_chunks)
    pixels = picture(2200, 4200)
    sdata = stream(tmp_path / "s.zarr", pixels)
    expected = np.moveaxis(pixels, 2, 0)
    for level in range(len(level_shapes(*pixels.shape[:2]))):
        path = tmp_path / "s.zarr" / "images" / "he" / f"s{level}"
        np.testing.assert_array_equal(sdata["he"][f"scale{level}"]["image"].values, expected)
        np.testing.assert_array_equal(zarr.open_array(path, mode="r")[:], expected)
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
        np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), expected)
        expected = halve(expected)


def test_chunks_hold_all_channels_and_a_checksum(tmp_path) -> None:
    stream(tmp_path / "s.zarr", np.zeros((300, 600, 3), np.uint8))
    for level in ("s0", "s1"):
        meta = json.loads((tmp_path / "s.zarr/images/he" / level / "zarr.json").read_text())
        assert meta["chunk_grid"]["configuration"]["chunk_shape"] == [3, 256, 256]
        assert meta["codecs"][-1] == {"name": "zstd", "configuration": {"level": 1, "checksum": True}}
    # black chunks are stored too: a chunk that is not there is always a fault
    assert len([f for f in (tmp_path / "s.zarr/images/he/s0/c").rglob("*") if f.is_file()]) == 6


def test_a_flipped_bit_is_an_error_not_a_wrong_pixel(tmp_path, flip_bit) -> None:
    stream(tmp_path / "s.zarr", picture(300, 300))
    flip_bit(tmp_path / "s.zarr/images/he/s0/c/0/0/0")
    with pytest.raises(Exception, match=r"(?i)checksum|corrupt|decompress"):
        zarr.open_array(tmp_path / "s.zarr/images/he/s0", mode="r")[:]


class Counting:
    """Pixels that remember which windows were asked for."""

    def __init__(self, pixels: np.ndarray, chunks=None) -> None:
        self.pixels, self.shape, self.dtype, self.chunks = pixels, pixels.shape, pixels.dtype, chunks
        self.windows: list[tuple[int, int]] = []

    def __getitem__(self, window):
        found = self.pixels[window]
        self.windows.append(found.shape[:2])
        return found


def test_the_image_is_read_once_and_never_whole(tmp_path) -> None:
    source = Counting(picture(2500, 4200))
    sdata = stream(tmp_path / "s.zarr", source)
    assert max(h * w for h, w in source.windows) <= (images.BLOCK_CHUNKS * 256) ** 2
    assert sum(h * w for h, w in source.windows) == 2500 * 4200
    np.testing.assert_array_equal(sdata["he"]["scale0"]["image"].values, np.moveaxis(source.pixels, 2, 0))


def test_strips_are_decoded_once_each(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(images, "MAX_BLOCK_AREA_PX", 2_000_000)
    source = Counting(picture(2300, 3000), chunks=(64, 3000, 3))
    sdata = stream(tmp_path / "s.zarr", source)
    assert {w for _, w in source.windows} == {3000}
    assert max(h for h, _ in source.windows) < 2300
    expected = np.moveaxis(source.pixels, 2, 0)
    for scale in sdata["he"].children:
        np.testing.assert_array_equal(sdata["he"][scale]["image"].values, expected)
        expected = halve(expected)


def test_dask_and_zarr_sources(tmp_path) -> None:
    pixels = picture(700, 900)
    dask = stream(tmp_path / "d.zarr", da.from_array(pixels, chunks=(200, 300, 3)))
    array = zarr.create_array({}, data=pixels, chunks=(100, 100, 3))
    plain = stream(tmp_path / "z.zarr", array)
    for sdata in (dask, plain):
        np.testing.assert_array_equal(sdata["he"]["scale0"]["image"].values, np.moveaxis(pixels, 2, 0))


def test_a_single_scale_element_gets_levels_and_a_multi_scale_one_keeps_its_own(tmp_path) -> None:
    for name, factors in (("a", None), ("b", [4])):
        create_store(tmp_path / f"{name}.zarr", sd.SpatialData(images={"he": image(scale_factors=factors)}))
    a, b = (sd.read_zarr(tmp_path / f"{n}.zarr")["he"] for n in "ab")
    assert list(a.children) == list(b.children) == ["scale0", "scale1"]
    np.testing.assert_array_equal(a["scale1"]["image"].values, halve(a["scale0"]["image"].values))
    np.testing.assert_array_equal(b["scale1"]["image"].values, image(scale_factors=[4])["scale1"]["image"].values)
    written = get_transformation(image(), get_all=True)
    for system, transformation in get_transformation(a, get_all=True).items():
        axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
        expected = written.pop(system).to_affine_matrix(**axes)
        np.testing.assert_allclose(transformation.to_affine_matrix(**axes), expected)
    assert not written


def test_images_that_are_no_he_are_left_to_spatialdata(tmp_path) -> None:
    stain = Image2DModel.parse(np.zeros((3, 40, 40), np.uint8), dims=("c", "y", "x"), c_coords=["DAPI", "CD3", "CD8"])
    wide = Image2DModel.parse(np.zeros((3, 40, 40), np.uint16), dims=("c", "y", "x"), c_coords=["r", "g", "b"])
    create_store(tmp_path / "s.zarr", sd.SpatialData(images={"stain": stain, "wide": wide}))
    back = sd.read_zarr(tmp_path / "s.zarr")
    assert back["stain"].coords["c"].values.tolist() == ["DAPI", "CD3", "CD8"]
    assert back["wide"].dtype == np.uint16


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((9, 9), np.uint8), r"is uint8 of shape \(9, 9\); wanted uint8 RGB"),
        (np.zeros((9, 9, 4), np.uint8), r"shape \(9, 9, 4\)"),
        (np.zeros((9, 9, 3), np.uint16), "is uint16"),
        (np.zeros((1, 9, 3), np.uint8), "at least 2 x 2 px"),
    ],
)
def test_other_pixels_are_refused(tmp_path, pixels, message) -> None:
    with pytest.raises(InputError, match=rf"image 'he' .*{message}"):
        stream(tmp_path / "s.zarr", pixels)
    assert not list(tmp_path.iterdir())


def test_an_error_in_the_source_leaves_nothing(tmp_path) -> None:
    class Broken(Counting):
        def __getitem__(self, window):
            if window[0].start > 0:
                msg = "tile 7 is corrupt"
                raise InputError(msg)
            return super().__getitem__(window)

    with pytest.raises(InputError, match=r"tile 7 is corrupt"):
        stream(tmp_path / "s.zarr", Broken(picture(2500, 300)))
    assert not list(tmp_path.iterdir())


def test_tiles_that_do_not_divide_a_block_are_rarely_decoded_twice(monkeypatch) -> None:
    monkeypatch.setattr(settings, "threads", 2)

    def decoded(edge: int, tile: int) -> float:
        """Brute force: tiles that every block touches."""
        source = Counting(np.broadcast_to(np.uint8(0), (edge, edge, 3)), chunks=(tile, tile, 3))
        height, width = images._block_shape(source, 256)
        assert height % 256 == width % 256 == 0
        touched = sum(
            len(range(y // tile, -(-min(y + height, edge) // tile)))
            * len(range(x // tile, -(-min(x + width, edge) // tile)))
            for y in range(0, edge, height)
            for x in range(0, edge, width)
        )
        return touched / (-(-edge // tile)) ** 2

    assert decoded(10_000, 512) == decoded(10_000, 1024) == 1.0
    assert decoded(10_000, 240) < 1.15  # blocks of 2,048 x 2,048: 1.25


def test_threads_never_take_more_memory_than_they_may(monkeypatch) -> None:
    monkeypatch.setattr(settings, "threads", 16)
    assert images._workers((2048, 2048), (10_000, 10_000)) == 16
    assert images._workers((4096, 8192), (10_000, 10_000)) == 5
    assert images._workers((4096, 8192), (500, 500)) == 16
    monkeypatch.setattr(images, "MAX_WORKING_BYTES", 1)
    assert images._workers((2048, 2048), (10_000, 10_000)) == 1


def test_what_is_hashed_in_memory_is_what_lies_on_the_disk(tmp_path) -> None:
    from spatialsig.store.manifest import read_manifest
    from spatialsig.store.verify import verify_store

    stream(tmp_path / "s.zarr", picture(700, 900))
    recorded = read_manifest(tmp_path / "s.zarr/images/he/.spatialsig-manifest")
    assert {"s0/c/0/2/3", "s1/c/0/1/1", "s0/zarr.json", "zarr.json"} <= set(recorded)
    assert {found.status for found in verify_store(tmp_path / "s.zarr")} == {"ok"}


@pytest.mark.parametrize("levels", [["scale0"], ["scale1"], ["scale2"], ["scale0", "scale1", "scale2"]])
def test_levels_that_are_arrays_in_memory_are_refused_by_name(tmp_path, levels) -> None:
    import spatialsig as sp

    tree = Image2DModel.parse(picture(120, 90), dims=("y", "x", "c"), c_coords=list("rgb"), scale_factors=[2, 2])
    for level in levels:
        tree[level]["image"] = tree[level]["image"].copy(data=np.asarray(tree[level]["image"].data))
    sdata = sd.SpatialData()
    sdata.images.data["he"] = tree  # past the check of spatialdata
    with pytest.raises(InputError, match="'he' cannot be stored: Expected array type .*Parse it again"):
        sp.io.write(sdata, tmp_path / "s.zarr")
