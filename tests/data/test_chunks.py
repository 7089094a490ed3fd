import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from spatialsig._settings import settings
from spatialsig.data import chunks
from spatialsig.data.chunks import stored_array
from spatialsig.data.patches import ImageLevel, PatchSource, Request, read_patches, read_slides
from spatialsig.data.resources import batch_memory, page_aligned
from spatialsig.errors import StoreError

SHAPE = (3, 150, 170)  # no multiple of a chunk
CODECS = {
    "zstd": [ZstdCodec(level=1, checksum=True)],
    "raw": None,
    "crc32c": [Crc32cCodec()],
    "both": [ZstdCodec(level=0), Crc32cCodec()],
    "blosc": [BloscCodec()],
}


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture(scope="module")
def arrays(image: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, int], Path]:
    paths = {}
    for name, codecs in CODECS.items():
        for depth, edge in ((3, 32), (1, 64), (2, 48)):
            path = tmp_path_factory.mktemp("arrays") / f"{name}-{depth}-{edge}"
            zarr.create_array(path, data=image, chunks=(depth, edge, edge), compressors=codecs)
            paths[name, depth, edge] = path
    return paths


def source(path: Path, origins: object, px: int = 32) -> PatchSource:
    return PatchSource("S1", (ImageLevel(path, SHAPE[1:]),), np.array(origins, np.int64).reshape(-1, 2), px, px)


@given(
    codec=st.sampled_from(list(CODECS)),
    layout=st.sampled_from([(3, 32), (1, 64), (2, 48)]),
    origins=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 120)), min_size=1, max_size=12),
    px=st.sampled_from([17, 32, 50]),
    local=st.booleans(),
)
@hypothesis_settings(deadline=None, max_examples=80)
def test_windows_are_the_slices(arrays, image, codec: str, layout, origins, px: int, local: bool) -> None:
    slide = source(arrays[codec, *layout], origins, px)
    out = [np.zeros((3, px, px), np.uint8) for _ in origins]
    read_slides([Request(slide, np.arange(len(origins)), out, local=local)])
    for pixels, (y, x) in zip(out, origins, strict=True):
        np.testing.assert_array_equal(pixels, image[:, y : y + px, x : x + px])


def test_whole_chunks_are_decoded_into_the_batch(arrays, image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_decoded", None)  # no chunk in between
    monkeypatch.setattr(chunks, "_kept", None)
    slide = source(arrays["zstd", 3, 32], [(0, 0), (32, 64), (96, 128)])
    for pixels, (y, x) in zip(read_patches(slide, [0, 1, 2]), slide.origins, strict=True):
        np.testing.assert_array_equal(pixels, image[:, y : y + 32, x : x + 32])


@pytest.mark.parametrize("local", [True, False])
def test_a_chunk_that_patches_share_is_decoded_once(arrays, monkeypatch: pytest.MonkeyPatch, local: bool) -> None:
    decoded = []
    decode = chunks.StoredArray.decode
    monkeypatch.setattr(chunks.StoredArray, "decode", lambda a, i, out: (decoded.append(i), decode(a, i, out)))
    chunks._kept.cache_clear()
    slide = source(arrays["zstd", 1, 64], [(0, 0), (16, 20), (5, 30), (30, 31)])
    for rows in ([0, 1], [2, 3]):
        read_slides([Request(slide, np.array(rows), list(np.empty((2, 3, 32, 32), np.uint8)), local=local)])
    assert sorted(decoded) == sorted([(c, 0, 0) for c in range(3)] * (2 if local else 1))


def test_decoded_chunks_stay_within_their_share_of_memory(arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "patch_cache_mb", 8 * 3 * 64 * 64 / 2**20)  # an eighth: three planes
    chunks._kept.cache_clear()
    slide = source(arrays["raw", 1, 64], [(y, x) for y in (0, 20, 80) for x in (0, 20, 80)])
    for row in range(9):
        read_patches(slide, [row])
    assert chunks._kept(os.getpid())._bytes <= 3 * 64 * 64


@pytest.mark.parametrize("codec", ["zstd", "both", "crc32c", "raw"])
@pytest.mark.parametrize("damage", ["flip", "cut", "append"])
def test_damage_is_an_error_that_names_slide_and_file(tmp_path, image, codec: str, damage: str) -> None:
    if codec == "raw" and damage == "flip":
        pytest.skip("nothing tells it")
    zarr.create_array(tmp_path / "a", data=image, chunks=(3, 32, 32), compressors=CODECS[codec])
    file = tmp_path / "a" / "c" / "0" / "1" / "2"
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    file.write_bytes({"flip": data, "cut": data[:-9], "append": data + b"123456789"}[damage])
    slide = source(tmp_path / "a", [(0, 0), (32, 64)])
    read_patches(slide, [0])
    with pytest.raises(StoreError, match="slide 'S1': cannot read .*c/0/1/2"):
        read_patches(slide, [0, 1])


def test_a_chunk_that_was_never_written_is_the_fill_value(tmp_path) -> None:
    zarr.create_array(tmp_path / "a", shape=SHAPE, chunks=(3, 32, 32), dtype="uint8", fill_value=7)
    assert np.unique(read_patches(source(tmp_path / "a", [(0, 0), (40, 40)]), [0, 1])).tolist() == [7]


def test_other_arrays_are_left_to_tensorstore(tmp_path, image, arrays) -> None:
    assert stored_array(arrays["blosc", 3, 32]) is None
    zarr.create_array(tmp_path / "v2", data=image, chunks=(3, 32, 32), zarr_format=2)
    zarr.create_array(tmp_path / "shards", data=image, chunks=(3, 32, 32), shards=(3, 160, 192))
    zarr.create_array(tmp_path / "wide", data=image.astype(np.uint16), chunks=(3, 32, 32))
    for name in ("v2", "shards", "wide"):
        assert stored_array(tmp_path / name) is None
    for name in ("v2", "shards"):
        slide = source(tmp_path / name, [(5, 9)])
        assert slide.level.chunk_px == (32, 32)
        np.testing.assert_array_equal(read_patches(slide, [0])[0], image[:, 5:37, 9:41])


def test_memory_of_a_batch_serves_again_only_when_nothing_holds_it() -> None:
    shape = (5, 3, 33, 31)
    first = batch_memory(shape)
    address = first.ctypes.data
    assert address % 4096 == 0
    part = first[2, 1].T
    del first
    other = batch_memory(shape)
    assert other.ctypes.data != address  # `part` is a view of it
    del part
    assert batch_memory(shape).ctypes.data == address
    assert batch_memory((0, 3, 8, 8)).shape == (0, 3, 8, 8)
    assert not page_aligned((2, 5)).any()
