from __future__ import annotations

import json

import numpy as np
import pytest
import spatialdata as sd
import tensorstore
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import compress

from spatialsig.errors import InputError
from spatialsig.store.chunk_writer import ChunkWriter
from spatialsig.store.commit import create_store
from spatialsig.store.layout import FAST_LEVEL, MAX_GROWTH, ZSTD_LEVEL, Layout, as_layout
from spatialsig.store.metadata import replace_root, root_document, without_consolidated
from spatialsig.store.relayout import relayout
from spatialsig.store.stream import StreamedImage, halve

from .conftest import TO_GLOBAL, image, picture


@pytest.mark.parametrize("name", ["default", "speed"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, ">i4"])
def test_chunks_are_what_zarr_and_tensorstore_expect(tmp_path, name, dtype) -> None:
    """Our encoder against two decoders that know nothing of it."""
    layout = as_layout(name, chunk_px=64)
    pixels = np.random.default_rng(0).integers(0, 200, (4, 150, 70)).astype(dtype)
    pixels[:, :64, :64] = 7  # a chunk at the faster level
    zarr.create_array(tmp_path / "a", **layout.array_spec(pixels.shape, dtype=pixels.dtype))
    ChunkWriter(tmp_path / "a", pixels.shape, ("c", "y", "x"), layout).write(pixels, (0, 0, 0))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], pixels)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "a")}}
    np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), pixels)
    files = [f for f in (tmp_path / "a" / "c").rglob("*") if f.is_file()]
    assert len(files) == 3 * 2
    if name == "speed":
        assert {f.stat().st_size for f in files} == {4 * 64 * 64 * pixels.itemsize + 4}


@pytest.mark.parametrize("name", ["default", "speed"])
def test_a_flipped_bit_is_an_error_of_every_reader(tmp_path, name, flip_bit) -> None:
    layout = as_layout(name, chunk_px=64)
    array = zarr.create_array(tmp_path / "a", **layout.array_spec((3, 64, 64)))
    ChunkWriter(tmp_path / "a", array.shape, ("c", "y", "x"), layout).write(
        np.moveaxis(picture(64, 64), 2, 0), (0, 0, 0)
    )
    flip_bit(tmp_path / "a/c/0/0/0")
    with pytest.raises(Exception, match=r"(?i)checksum|corrupt|decompress"):
        zarr.open_array(tmp_path / "a", mode="r")[:]
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path / "a")}}
    with pytest.raises(ValueError, match=r"(?i)checksum|crc32c|decoding|digest"):
        tensorstore.open(spec).result().read().result()


def scanned(px: int, *, background: bool) -> np.ndarray:
    """A chunk ``(3, px, px)``: a scanner's background, which repeats itself, or the noise of a camera."""
    rng = np.random.default_rng(0)
    if background:
        return np.repeat(rng.integers(0, 255, (3, px, px // 16), np.uint8), 16, axis=2)
    return np.clip(rng.normal(150, 12, (3, px, px)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("background", [True, False])
def test_chunks_that_hardly_grow_are_stored_at_the_faster_level(background) -> None:
    """Each frame is told apart by what the two levels make of the whole chunk."""
    chunk = scanned(256, background=background)
    fast, small = compress(chunk, FAST_LEVEL, True), compress(chunk, ZSTD_LEVEL, True)
    assert (len(fast) <= MAX_GROWTH * len(small)) == background, "the planted truth"
    assert Layout().encode(chunk) == (fast if background else small)


@pytest.mark.parametrize("chunk_px", [64, 128, 512])
def test_an_image_may_be_created_in_the_speed_layout(tmp_path, chunk_px) -> None:
    pixels = picture(1100, 1300)
    layout = Layout("speed", chunk_px)
    streamed = {"he": StreamedImage(pixels, {"global": TO_GLOBAL}, layout=layout)}
    create_store(
        tmp_path / "s.zarr", sd.SpatialData(images={"in_memory": image()}), images=streamed, image_layout="speed"
    )
    back = sd.read_zarr(tmp_path / "s.zarr")
    expected = np.moveaxis(pixels, 2, 0)
    for scale in back["he"].children:
        np.testing.assert_array_equal(back["he"][scale]["image"].values, expected)
        expected = halve(expected)
    for name, edge in (("he", chunk_px), ("in_memory", 256)):
        meta = json.loads((tmp_path / "s.zarr/images" / name / "s0/zarr.json").read_text())
        assert meta["chunk_grid"]["configuration"]["chunk_shape"] == [3, edge, edge]
        assert [codec["name"] for codec in meta["codecs"]] == ["bytes", "crc32c"]


@given(st.integers(-10, 5000))
def test_only_powers_of_two_are_chunks(edge) -> None:
    if edge in {64, 128, 256, 512, 1024}:
        assert as_layout("default", chunk_px=edge).chunk_px == edge
    else:
        with pytest.raises(
            InputError, match=rf"`chunk_px={edge}` cannot be used; wanted a power of two from 64 to 1024"
        ):
            as_layout("default", chunk_px=edge)


def test_an_unknown_layout_is_named_before_anything_is_written(tmp_path) -> None:
    with pytest.raises(InputError, match=r"`layout='fast'` is not known; choose one of \['default', 'speed'\]"):
        create_store(tmp_path / "s.zarr", sd.SpatialData(), image_layout="fast")
    assert not list(tmp_path.iterdir())


def test_a_rewrite_that_was_cut_before_its_last_step_is_finished_by_the_next(tmp_path) -> None:
    store = tmp_path / "s.zarr"
    create_store(store, sd.SpatialData(images={"he": image()}))
    document = root_document(store)
    replace_root(store, without_consolidated(document))
    assert list(relayout(store, Layout())) == []
    assert root_document(store) == document
