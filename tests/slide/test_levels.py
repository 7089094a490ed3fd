"""Every level of the H&E belongs to what patches are made from: one that is overwritten shows, in any form of the slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
import tifffile
import zarr

import spatialsig as sp
from spatialsig.errors import StaleError
from spatialsig.slide.slides import open_slides
from spatialsig.store.layout import levels_of
from spatialsig.store.metadata import read_attrs

PARTS = ["he_image/pixels", "he_image/pixels/1", "he_image/pixels/2"]


@pytest.fixture(scope="module")
def he(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image whose finer two levels are too large to be looked at whole."""
    path = tmp_path_factory.mktemp("levels") / "he.tif"
    pixels = np.kron(np.random.default_rng(0).integers(0, 256, (82, 79, 3), np.uint8), np.ones((32, 32, 1), np.uint8))
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(256, 256))
    return path


@pytest.fixture(scope="module")
def store(he: Path) -> Path:
    path = he.parent / "a.zarr"
    sp.io.read_he(he, um_per_px=1.0, out=path)
    sp.pp.make_patches(path, patch_px=28, um_per_px=4.0, min_tissue=0)
    return path


def prints(data: sd.SpatialData | Path) -> list[str | None]:
    (slide,) = open_slides(data)
    return [slide.lineage.fingerprint(part) for part in PARTS]


def test_every_level_is_recorded_and_listed_as_one_image(store: Path) -> None:
    recorded = read_attrs(store)["spatialsig"]["lineage"]["patches"]["from"]
    assert {part for part in recorded if "pixels" in part} == set(PARTS)
    assert len(levels_of(sd.read_zarr(store)["he_image"])) == len(PARTS)
    assert sp.io.status(store).set_index("part").loc["patches", "made_from"] == "he_image/pixels, he_image/place"


def test_levels_are_the_same_in_every_form(store: Path, he: Path, tmp_path: Path) -> None:
    before = prints(store)
    assert len(set(before)) == len(PARTS)
    sd.read_zarr(store).write(tmp_path / "theirs.zarr")
    sp.io.write(sp.io.read(store), tmp_path / "ours.zarr")
    sp.io.optimize(tmp_path / "ours.zarr", layout="speed")
    for name in ("theirs", "ours"):
        assert prints(tmp_path / f"{name}.zarr") == before
        assert set(sp.io.status(tmp_path / f"{name}.zarr")["state"]) == {"fresh"}
    # levels that are made when they are read are those of the finest, and nothing is known of them before
    assert prints(sp.io.read_he(he, um_per_px=1.0)) == [before[0], None, None]


@pytest.mark.parametrize("level", range(len(PARTS)))
def test_a_level_that_another_program_overwrote_is_seen(store: Path, tmp_path: Path, level: int) -> None:
    path = tmp_path / "a.zarr"
    sd.read_zarr(store).write(path)
    array = zarr.open_array(path / "images" / "he_image" / f"s{level}", mode="r+")
    array[:] = array[:] // 2 + 60
    name = f"level {level} of the pixels" if level else "the pixels"
    with pytest.raises(StaleError, match=f"was made from {name} of image 'he_image', which changed"):
        next(iter(open_slides(path))).patches()
    assert sp.io.status(path).set_index("part").loc["patches", "detail"].count("which changed") == 1


def test_a_change_of_the_whole_image_is_one_reason(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    sd.read_zarr(store).write(path)
    for level in range(len(PARTS)):
        array = zarr.open_array(path / "images" / "he_image" / f"s{level}", mode="r+")
        array[:] = 255 - array[:]
    assert sp.io.status(path).set_index("part").loc["patches", "detail"].count("which changed") == 1
