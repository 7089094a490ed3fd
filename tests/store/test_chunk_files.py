"""A chunk that is gone is named by everything that would read it, and never becomes black pixels."""

from __future__ import annotations

import itertools
import shutil
import warnings
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pytest
import shapely
import spatialdata as sd
import zarr
from spatialdata.models import Labels2DModel, ShapesModel
from spatialdata.transformations import get_transformation

import spatialsig as sp
from spatialsig.data.patches import read_patches
from spatialsig.errors import SpatialsigWarning, StoreError
from spatialsig.slide.slides import Slide
from spatialsig.store.chunk_files import check_whole, chunks_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOST = "images/he_image/{level}/c/0/1/1"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "s.zarr"
    slide = sp.datasets.toy()
    tiles = gpd.GeoDataFrame(geometry=[shapely.box(x, 200, x + 56, 256) for x in (200, 256, 312)])
    slide["tiles"] = ShapesModel.parse(tiles, transformations=get_transformation(slide["he_image"], get_all=True))
    sp.pp.make_patches(slide, patch_px=28, um_per_px=1.0)
    sp.io.write(slide, path)
    return path


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "s.zarr")


def pixels_of_patches(path: Path) -> None:
    slide = Slide(sp.io.read(path))
    read_patches(slide.patches().source(), range(len(slide.patches())))


READERS: dict[str, Callable[[Path], object]] = {
    "find_tissue": lambda path: sp.pp.find_tissue(path, um_per_px=1.0),
    "make_patches": lambda path: sp.pp.make_patches(path, patch_px=28, um_per_px=1.0, key_added="new"),
    "import_patches": lambda path: sp.pp.import_patches(path, "tiles", key_added="new"),
    "qc_alignment": sp.pp.qc_alignment,
    "qc_patches": sp.pp.qc_patches,
    "normalize_stain": sp.pp.normalize_stain,
    "pl.patches": sp.pl.patches,
    "pixels of patches": pixels_of_patches,
    "a copy": lambda path: sp.io.write(sp.io.read(path), path.parent / "copy.zarr"),
    "a copy of a part": lambda path: sp.io.write(sp.io.read(path).subset(["he_image"]), path.parent / "copy.zarr"),
}


@pytest.mark.parametrize("link", [False, True], ids=["gone", "a link to nowhere"])
@pytest.mark.parametrize("reader", READERS)
def test_a_chunk_that_was_written_and_is_gone_is_named(store: Path, reader: str, link: bool) -> None:
    chunk = store / LOST.format(level="s0")
    chunk.unlink()
    if link:
        chunk.symlink_to("/nowhere/chunk")
    with pytest.raises(StoreError, match=r"he_image.* lost 1 of the 9 chunks of level 's0' \(c/0/1/1\)"):
        READERS[reader](store)
    assert not (store.parent / "copy.zarr").exists()


def test_a_chunk_that_is_lost_while_patches_are_read_is_named(store: Path) -> None:
    source = Slide(sp.io.read(store)).patches().source()
    (store / LOST.format(level="s0")).unlink()
    with pytest.raises(StoreError, match=r"slide 'toy': cannot read .*c/0/1/1 is not there, though it was written"):
        read_patches(source, range(len(source)))


def test_a_store_of_others_may_lack_chunks_and_says_how_many(tmp_path: Path) -> None:
    sp.datasets.toy(size_um=700).write(tmp_path / "s.zarr")
    image = next((tmp_path / "s.zarr/images/he_image").glob("*/zarr.json")).parent
    chunk = next(file for file in sorted((image / "c").rglob("*")) if file.is_file())
    chunk.unlink()
    with pytest.warns(
        SpatialsigWarning, match=r"has no file for 1 of the \d+ chunks \(\d+\.\d%\) of level .* as 0 \(black\)"
    ):
        check_whole(sd.read_zarr(tmp_path / "s.zarr")["he_image"])


def test_an_ome_zarr_that_lacks_chunks_says_so(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array = group.create_array("0", data=np.full((3, 300, 300), 200, np.uint8), chunks=(3, 100, 100), fill_value=255)
    axes = [{"name": axis, "type": "space"} for axis in "cyx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}
    for chunk in ("0/1/1", "0/2/2", "0/0/1"):
        (tmp_path / "a.zarr/0/c" / chunk).unlink()
    assert array.shape == (3, 300, 300)
    with pytest.warns(
        SpatialsigWarning, match=r"a\.zarr' has no file for 3 of the 9 chunks \(33\.3%\) .* as 255 \(white\)"
    ):
        sp.io.read_he(tmp_path / "a.zarr", um_per_px=0.5)


def test_what_was_never_written_is_not_missed(tmp_path: Path) -> None:
    """Spatialdata leaves out chunks that hold zeros alone, as of labels, in stores of ours too."""
    slide = sp.datasets.toy(size_um=150)
    slide["mask"] = Labels2DModel.parse(np.zeros((600, 600), np.uint8), dims=("y", "x"))
    sp.io.write(slide, tmp_path / "s.zarr")
    back = sp.io.read(tmp_path / "s.zarr")
    assert chunks_of(next((tmp_path / "s.zarr/labels/mask").glob("*/zarr.json")).parent).missing
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpatialsigWarning)
        sp.io.write(back, tmp_path / "copy.zarr")


ENCODINGS = {
    "zarr 3": {"zarr_format": 3},
    "zarr 3, dots": {"zarr_format": 3, "chunk_key_encoding": {"name": "default", "separator": "."}},
    "zarr 3, keys of 2": {"zarr_format": 3, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "zarr 2": {"zarr_format": 2},
    "zarr 2, folders": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "shards": {"zarr_format": 3, "shards": (3, 64, 64)},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_names_are_those_that_zarr_writes(tmp_path: Path, encoding: str) -> None:
    options = ENCODINGS[encoding]
    zarr.create_array(tmp_path / "a", data=np.ones((3, 100, 130), np.uint8), chunks=(3, 32, 32), **options)
    edge = 64 if "shards" in options else 32
    assert chunks_of(tmp_path / "a") == (-(-100 // edge) * -(-130 // edge), (), 0)
    files = [
        file for file in (tmp_path / "a").rglob("*") if file.is_file() and file.name not in {"zarr.json", ".zarray"}
    ]
    files = [file for file in files if file.name != ".zattrs"]
    for count, file in itertools.islice(enumerate(files, start=1), 3):
        file.unlink()
        missing = chunks_of(tmp_path / "a").missing
        assert len(missing) == count
        assert str(file.relative_to(tmp_path / "a")) in missing
