"""Patches of an image that stays in its file: the pixels that dask gives, each tile decoded once."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import spatialsig as sp
from spatialsig.data import chunks
from spatialsig.data.file_levels import MAX_HALVINGS, FileLevel, file_level
from spatialsig.data.patches import PatchSource, image_levels, read_patches
from spatialsig.errors import InputError
from spatialsig.io.images.rgb import RgbPixels

HEIGHT, WIDTH = 1237, 1510  # no multiples of anything


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (HEIGHT // 16 + 1, WIDTH // 16 + 1, 3), dtype=np.uint8)
    return coarse.repeat(16, 0).repeat(16, 1)[:HEIGHT, :WIDTH] // 2 + rng.integers(0, 99, (HEIGHT, WIDTH, 3), np.uint8)


def write(path: Path, pixels: np.ndarray, form: str) -> Path:
    options = {"photometric": "rgb", "compression": "zlib", "metadata": None}
    if form == "png":
        Image.fromarray(pixels).save(path.with_suffix(".png"))
        return path.with_suffix(".png")
    if form == "zarr":
        sdata = sp.io.read_he(write(path, pixels, "tiles"), um_per_px=0.5)
        sp.io.write(sdata, path.with_suffix(".zarr"))
        return path.with_suffix(".zarr") / "images" / "he_image"
    if form == "pyramid":
        with tifffile.TiffWriter(path) as file:
            half = pixels[: HEIGHT // 2 * 2 : 2, : WIDTH // 2 * 2 : 2]
            file.write(pixels, tile=(128, 256), subifds=1, **options)
            file.write(half, tile=(256, 128), subfiletype=1, **options)
        return path
    cut = {"tiles": {"tile": (256, 256)}, "strips": {"rowsperstrip": 40}, "raw": {"compression": None}}[form]
    tifffile.imwrite(path, pixels, **options | cut)
    return path


@pytest.mark.parametrize("form", ["tiles", "strips", "raw", "png", "pyramid", "zarr"])
def test_patches_are_the_same_as_through_dask(form: str, pixels: np.ndarray, tmp_path: Path) -> None:
    sdata = sp.io.read_he(write(tmp_path / "a.tif", pixels, form), um_per_px=0.5)
    levels = image_levels(sdata, "he_image")
    known = [isinstance(level.pixels, FileLevel) for level in levels]
    own = 2 if form == "pyramid" else len(levels) if form == "zarr" else 1
    assert sum(known) == min(own + MAX_HALVINGS, len(levels))
    assert known[0]
    rng = np.random.default_rng(1)
    for level, of_file in zip(levels, known, strict=True):
        whole = sdata["he_image"][f"scale{levels.index(level)}"]["image"].data.compute()
        if of_file:
            np.testing.assert_array_equal(level.pixels[:, 5:200, 3:], whole[:, 5:200, 3:])
        factor = level.downsample[0]
        size = int(24 * factor)
        corners = rng.integers(0, (HEIGHT - size, WIDTH - size), (40, 2))
        corners[:20] = corners[:20] // int(factor) * int(factor)  # some on the px of the level, some between
        source = PatchSource("s", levels, corners, size, 24)
        assert source.level is level
        through_dask = PatchSource(
            "s", tuple(_in_memory(one, sdata, k) for k, one in enumerate(levels)), corners, size, 24
        )
        np.testing.assert_array_equal(read_patches(source, np.arange(40)), read_patches(through_dask, np.arange(40)))


def _in_memory(level, sdata, number: int):
    return type(level)(sdata["he_image"][f"scale{number}"]["image"].data.compute(), level.shape, level.downsample)


def test_a_tile_is_decoded_once(pixels: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdata = sp.io.read_he(write(tmp_path / "a.tif", pixels, "tiles"), um_per_px=0.5)
    levels, read = image_levels(sdata, "he_image"), Counter()
    chunks._kept.cache_clear()
    whole = RgbPixels.__getitem__

    def counted(self: RgbPixels, window: tuple[slice, ...]) -> np.ndarray:
        read[window[0].start, window[1].start] += 1
        return whole(self, window)

    monkeypatch.setattr(RgbPixels, "__getitem__", counted)
    corners = np.stack(np.meshgrid(np.arange(0, 1100, 60), np.arange(0, 1400, 60), indexing="ij"), -1).reshape(-1, 2)
    source = PatchSource("s", levels, corners, 100, 100)
    for first in range(0, len(corners), 16):
        read_patches(source, np.arange(first, min(first + 16, len(corners))))
    assert set(read.values()) == {1}
    assert len(read) == 5 * 6


def test_what_was_done_to_an_image_is_not_passed_over(pixels: np.ndarray, tmp_path: Path) -> None:
    sdata = sp.io.read_he(write(tmp_path / "a.tif", pixels, "tiles"), um_per_px=0.5)
    array = sdata["he_image"]["scale0"]["image"]
    assert file_level(array.data) is not None
    for changed in (
        array[:, ::-1],
        array[:, :512, :512],
        255 - array,
        array.sel(c=["b", "g", "r"]),
        array.astype(np.uint8) // 2,
    ):
        assert file_level(changed.data) is None
    assert file_level(pixels) is None


def test_a_broken_tile_is_named(pixels: np.ndarray, tmp_path: Path) -> None:
    file = write(tmp_path / "a.tif", pixels, "tiles")
    with tifffile.TiffFile(file) as tif:
        offset = tif.pages[0].dataoffsets[8]
    data = bytearray(file.read_bytes())
    data[offset : offset + 200] = bytes(200)
    file.write_bytes(data)
    sdata = sp.io.read_he(file, um_per_px=0.5)
    source = PatchSource("s", image_levels(sdata, "he_image"), np.array([[300, 600]]), 50, 50)
    with pytest.raises(InputError, match=r"a\.tif' cannot be decoded at y 256-512, x 512-768 px"):
        read_patches(source, [0])
