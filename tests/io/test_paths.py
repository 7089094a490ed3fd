"""Links, read-only and full disks, old formats and names with dots: nothing lost, nothing without a word."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spatialdata as sd
import tifffile
import zarr

import spatialsig as sp
from spatialsig.errors import FileMissingError, InputError, StoreError
from spatialsig.io.images.open_rgb import image_name
from spatialsig.io.xenium.he import find_he


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "a.zarr"
    sp.io.write(sp.datasets.toy(size_um=100), path)
    return path


def old_store(path: Path) -> Path:
    """A store as spatialdata wrote it before Zarr 3 (container format 0.1)."""
    root = zarr.open_group(path, mode="w", zarr_format=2, attributes={"spatialdata_attrs": {"version": "0.1"}})
    image = root.create_group("images").create_group("he_image")
    image.create_array("0", data=np.zeros((3, 8, 8), np.uint8))
    root.create_group("tables").create_group("table", attributes={"encoding-type": "anndata"})
    return path


def test_a_store_of_the_old_format_is_not_repaired(tmp_path: Path) -> None:
    path = old_store(tmp_path / "old.zarr")
    before = content(tmp_path)
    with pytest.raises(
        StoreError, match=r"is a store of Zarr format 2 .*nothing was changed. Read it with spatialdata"
    ):
        sp.io.repair(path)
    assert content(tmp_path) == before


def test_elements_of_the_old_format_in_a_new_root_are_not_moved(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "mixed.zarr"
    shutil.copytree(store, path)
    shutil.copytree(old_store(tmp_path / "old.zarr") / "images" / "he_image", path / "images" / "theirs")
    before = content(path)
    with pytest.raises(StoreError, match="nothing was changed"):
        sp.io.repair(path)
    assert content(path) == before


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(store: Path, tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real.zarr", tmp_path / "link.zarr"
    shutil.copytree(store, real)
    link.symlink_to(real)
    sp.io.write(sp.datasets.toy(size_um=100, sample="new"), link, overwrite=True)
    assert link.is_symlink()
    assert sd.read_zarr(real).attrs["spatialsig"]["sample"] == "new"
    sp.pp.make_patches(link, patch_px=28, um_per_px=2.0)
    assert "patches" in sd.read_zarr(real).shapes
    assert link.is_symlink()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.EROFS, "cannot be written: Read-only file system in directory .*Copy the store to a place"),
        (errno.EACCES, "cannot be written: Permission denied in directory .*Copy the store to a place"),
        (errno.ENOSPC, "cannot be written: No space left on device in directory .*Free some space"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_named_and_left_clean(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    path = tmp_path / "a.zarr"
    shutil.copytree(store, path)
    real_open = Path.open

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(code, os.strerror(code))

    def fail(self: Path, *args: Any, **options: Any) -> Any:
        if ".lock" not in self.name:
            return real_open(self, *args, **options)
        if code != errno.ENOSPC:
            raise OSError(code, os.strerror(code))
        self.touch()  # the name fits where the content does not
        return Full()

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(StoreError, match=message):
        sp.pp.make_patches(path, patch_px=28, um_per_px=2.0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_a_link_to_an_image_that_is_gone_is_no_bundle_without_an_image(tmp_path: Path) -> None:
    (tmp_path / "slide_he_image.ome.tif").symlink_to(tmp_path / "unmounted" / "slide.ome.tif")
    with pytest.raises(FileMissingError, match=r"slide_he_image\.ome\.tif' is a link to .*which is not there"):
        find_he(tmp_path)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("P1.sectionA.tif", "P1.sectionA"), ("P1.sectionB.ome.tif", "P1.sectionB"), ("a.OME.TIFF", "a"), ("b.svs", "b"),
        ("c.ome.zarr", "c"), ("d", "d"), ("v1.2.ndpi", "v1.2"), (".tif", ".tif"),
    ],
)  # fmt: skip
def test_a_name_loses_its_format_and_nothing_else(file: str, name: str) -> None:
    assert image_name(Path(file)) == name


def test_sections_of_one_patient_stay_two_slides(tmp_path: Path) -> None:
    for section in ("A", "B"):
        tifffile.imwrite(tmp_path / f"P1.section{section}.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
        sp.io.read_he(tmp_path / f"P1.section{section}.tif", um_per_px=0.5, out=tmp_path / "stores" / f"{section}.zarr")
    names = {sd.read_zarr(path).attrs["spatialsig"]["sample"] for path in (tmp_path / "stores").glob("*.zarr")}
    assert names == {"P1.sectionA", "P1.sectionB"}


@pytest.mark.parametrize("read", [sp.io.read_he, sp.io.read_xenium])
def test_the_settings_file_of_a_bundle_is_not_the_bundle(tmp_path: Path, read: object) -> None:
    (tmp_path / "experiment.xenium").write_text("{}")
    with pytest.raises((InputError, FileMissingError), match=rf"give (its|the output) directory.*'{tmp_path}'"):
        read(tmp_path / "experiment.xenium")  # type: ignore[operator]
