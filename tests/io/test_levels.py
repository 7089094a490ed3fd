"""A store holds the levels of the object that is written, pixel for pixel; a file gives the same ones in memory and on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
import tifffile
from spatialdata.models import Image2DModel
from spatialdata.transformations import Identity, get_transformation

import spatialsig as sp
from spatialsig.data.patches import read_patches
from spatialsig.errors import InputError
from spatialsig.slide.slides import Slide
from spatialsig.store.commit import commit_elements

if TYPE_CHECKING:
    from pathlib import Path

SIZE = (2100, 2300)
ATTRS = {"spatialsig": {"sample": "S", "um_per_global_px": 0.25}}


def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def _file(folder: Path, *, own: bool) -> Path:
    """A TIFF, with levels of its own that are no means: every second pixel."""
    full = pixels()
    options = {"photometric": "rgb", "tile": (256, 256), "resolution": (40_000, 40_000), "resolutionunit": 3}
    with tifffile.TiffWriter(folder / "a.tif") as tif:
        tif.write(full, subifds=2 if own else 0, metadata=None, **options)
        for level in (1, 2) if own else ():
            step = 2**level
            even = full[: SIZE[0] // step * step, : SIZE[1] // step * step]
            tif.write(even[::step, ::step], subfiletype=1, metadata=None, **options)
    return folder / "a.tif"


def _element(*, factors: list[int] | None, lazy: bool = False) -> sd.SpatialData:
    planes = np.moveaxis(pixels(), 2, 0)
    image = Image2DModel.parse(
        da.from_array(planes, chunks=(3, 512, 512)) if lazy else planes, dims=("c", "y", "x"), c_coords=["r", "g", "b"],
        scale_factors=factors, transformations={"global": Identity()},
    )  # fmt: skip
    return sd.SpatialData.init_from_elements({"he_image": image}, attrs=ATTRS)


OBJECTS = {
    "a file with levels": lambda folder: sp.io.read_he(_file(folder, own=True)),
    "a file without levels": lambda folder: sp.io.read_he(_file(folder, own=False)),
    "a pyramid of another reader": lambda _: _element(factors=[2, 2]),
    "a lazy pyramid": lambda _: _element(factors=[2], lazy=True),
    "a step of four": lambda _: _element(factors=[4]),
}


def levels(sdata: sd.SpatialData) -> list[np.ndarray]:
    return [np.asarray(sdata["he_image"][name]["image"]) for name in sdata["he_image"].children]


def first_patches(sdata: sd.SpatialData) -> np.ndarray:
    sp.pp.make_patches(sdata, patch_px=56, um_per_px=0.5, min_tissue=0)
    return read_patches(Slide(sdata).patches().source(), [0, 7])


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("how", ["write", pytest.param("commit", marks=pytest.mark.slow)])
def test_a_store_has_the_levels_of_the_object(tmp_path: Path, name: str, how: str) -> None:
    sdata, path = OBJECTS[name](tmp_path), tmp_path / "s.zarr"
    if how == "write":
        sp.io.write(sdata, path)
    else:
        sp.io.write(sd.SpatialData(attrs=ATTRS), path)
        commit_elements(path, {"he_image": sdata["he_image"]})
    back = sp.io.read(path)
    for mine, stored in zip(levels(sdata), levels(back), strict=True):
        np.testing.assert_array_equal(stored, mine)
    np.testing.assert_array_equal(first_patches(back), first_patches(sdata))
    assert (sp.io.verify(path)["status"] == "ok").all()


@pytest.mark.parametrize("own", [True, False])
def test_a_file_gives_the_same_levels_in_memory_and_in_a_store(tmp_path: Path, own: bool) -> None:
    file = _file(tmp_path, own=own)
    memory, stored = sp.io.read_he(file), sp.io.read_he(file, out=tmp_path / "s.zarr")
    for mine, there in zip(levels(memory), levels(stored), strict=True):
        np.testing.assert_array_equal(there, mine)


def test_an_image_of_one_level_gets_a_pyramid(tmp_path: Path) -> None:
    sp.io.write(_element(factors=None), tmp_path / "s.zarr")
    assert len(levels(sp.io.read(tmp_path / "s.zarr"))) == 3


WRONG = {
    "mirrored": lambda level: level[:, ::-1],
    "black": lambda level: np.zeros_like(level),
    "of another image": lambda level: np.roll(level, 60, axis=2)[:, :, ::-1],
}


@pytest.mark.parametrize("backed", [False, True])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_level_that_shows_something_else_is_not_written(tmp_path: Path, wrong: str, backed: bool) -> None:
    """Neither over a store that is there; the object stays as it is, and saves once its levels are made anew."""
    slide = sp.datasets.toy(size_um=400)
    sp.io.write(slide, tmp_path / "s.zarr")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    slide = sp.io.read(tmp_path / "s.zarr") if backed else sp.datasets.toy(size_um=400)
    node = slide["he_image"]["scale1"]
    level = np.ascontiguousarray(WRONG[wrong](node["image"].to_numpy()))
    node["image"] = node["image"].copy(data=da.from_array(level))
    with pytest.raises(
        InputError, match=r"nothing was written: image 'he_image': its level 1 of .* does not show what the finer"
    ):
        sp.io.write(slide, tmp_path / "s.zarr", overwrite=True)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    full = slide["he_image"]["scale0"]["image"].to_numpy()
    frames = get_transformation(slide["he_image"], get_all=True)
    names = {"dims": ("c", "y", "x"), "c_coords": ["r", "g", "b"], "transformations": frames}
    slide["he_image"] = Image2DModel.parse(full, scale_factors=[2], **names)
    sp.io.write(slide, tmp_path / "s.zarr", overwrite=True)
