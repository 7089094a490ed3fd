"""Places and names of stores: nothing inside another store, nothing of others deleted, names that any disk can hold."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PIXELS = np.full((64, 96, 3), 200, np.uint8)


@pytest.fixture
def store(toy_store: Path) -> Path:
    return toy_store


def _spots() -> ad.AnnData:
    return ad.AnnData(np.array([[3, 0], [1, 2]], np.float32), obsm={"spatial": np.array([[30, 40], [70, 20]])})


WRITE: dict[str, Callable[..., object]] = {
    "write": sp.io.write,
    "from_anndata": lambda _, out: sp.io.from_anndata(_spots(), PIXELS, um_per_px=0.5, out=out),
}


@pytest.mark.parametrize("inside", ["inner.zarr", "images/he_image/0/inner.zarr", "a/b/inner.zarr"])
@pytest.mark.parametrize("write", WRITE)
def test_a_store_inside_a_store_is_refused(store: Path, toy: sd.SpatialData, inside: str, write: str) -> None:
    with pytest.raises(StoreError, match=r"inner\.zarr' would lie inside .*s\.zarr.* choose a path beside it"):
        WRITE[write](toy, store / inside)
    assert (sp.io.verify(store)["status"] == "ok").all()


@pytest.mark.parametrize("foreign", ["notes.txt", "results/scores.csv", "images/he.tif"])
def test_what_somebody_else_put_into_a_store_is_not_deleted(store: Path, toy: sd.SpatialData, foreign: str) -> None:
    file = store / foreign
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    (store / ".DS_Store").write_text("the system's")
    with pytest.raises(StoreError, match=rf"holds {foreign.split('/scores')[0]}, which no store does"):
        sp.io.write(toy, store, overwrite=True)
    assert file.read_text() == "mine"
    shutil.rmtree(file.parent) if foreign.startswith("results") else file.unlink()
    sp.io.write(toy, store, overwrite=True)


NAMES: dict[str, Callable[..., object]] = {
    "an element in memory": lambda toy, _: sp.pp.make_patches(toy, patch_px=28, um_per_px=2.0, key_added="HE_Image"),
    "an element of a store": lambda _, store: sp.pp.make_patches(
        store, patch_px=28, um_per_px=2.0, key_added="HE_Image"
    ),
    "a slide in memory": lambda *_: sp.io.from_anndata(_spots(), PIXELS, um_per_px=0.5, image_key="Cell_Circles"),
    "a slide in a store": lambda _, store: sp.io.from_anndata(
        _spots(), PIXELS, um_per_px=0.5, image_key="HE", table_key="he", out=store.parent / "n.zarr"
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_differ_only_by_case_are_refused(toy: sd.SpatialData, store: Path, name: str) -> None:
    with pytest.raises(InputError, match="element name '.*' differs from '.*' only in upper and lower case"):
        NAMES[name](toy, store)


@pytest.mark.parametrize("out", [None, "n.zarr"])
def test_names_that_no_store_holds_are_refused_in_memory_too(tmp_path: Path, out: str | None) -> None:
    with pytest.raises(InputError, match="`image_key='a::b'` of `sp.io.from_anndata` must be 1-100 letters"):
        sp.io.from_anndata(_spots(), PIXELS, um_per_px=0.5, image_key="a::b", out=out and tmp_path / out)


@pytest.mark.parametrize("version", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_a_table_that_plain_anndata_wrote_is_named_and_the_fix_works(store: Path, version: int) -> None:
    place = store / "tables" / "table"
    table = ad.read_zarr(place)
    shutil.rmtree(place)
    ad.settings.zarr_write_format = version
    try:
        table.write_zarr(place)
    finally:
        ad.settings.reset("zarr_write_format")
    found = sp.io.verify(store).set_index("element")
    assert found.loc["table", "status"] == "unfinished"
    assert "as anndata alone does" in found.loc["table", "detail"]
    with pytest.raises(StoreError, match="as anndata alone does"):
        sp.io.read(store)
    if version == 2:
        with pytest.raises(
            StoreError, match="table 'table' cannot be repaired, nothing was changed: .*as anndata alone"
        ):
            sp.io.repair(store)
    table = ad.read_zarr(place)  # as the message says
    place.rename(store.parent / "table")
    sp.io.repair(store)
    sdata = sp.io.read(store)
    sdata["table"] = table
    sdata.write_element("table")
    np.testing.assert_array_equal(sp.io.read(store)["table"].obsm["spatial"], table.obsm["spatial"])


def test_a_path_that_libraries_read_as_addresses_is_refused(tmp_path: Path) -> None:
    sdata, place = sp.datasets.toy(size_um=100), tmp_path / "a::b"
    with pytest.raises(StoreError, match="'::' in a path is read as a chain of addresses; rename"):
        sp.io.write(sdata, place / "x.zarr")
    assert not place.exists()
    sp.io.write(sdata, tmp_path / "x.zarr")
    place.mkdir()
    (tmp_path / "x.zarr").rename(place / "x.zarr")
    for function in (sp.io.read, sp.pp.find_tissue, sp.io.optimize, sp.io.repair):
        with pytest.raises(StoreError, match="'::' in a path"):
            function(place / "x.zarr")
