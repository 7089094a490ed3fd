from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from scipy import sparse
from spatialdata.transformations import Affine, Identity, get_transformation

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.slide.slides import open_slides
from spatialsig.store import atomic, swap
from spatialsig.store.commit import commit_elements
from spatialsig.store.parts import commit_table_parts, commit_transformations

from .conftest import table
from .test_commit import state

N = 4
XY = ("x", "y")
MOVED = Affine(np.array([[0.0, 2, 5], [-2, 0, 7], [0, 0, 1]]), XY, XY)


def everything() -> dict:
    rng = np.random.default_rng(0)
    return {
        "obsm": {
            "dense": rng.random((N, 3)).astype(np.float32),
            "sparse": sparse.random(N, 5, 0.5, format="csr", dtype=np.float32, random_state=1),
            "frame": pd.DataFrame({"a": np.arange(N)}, index=[str(i) for i in range(N)]),
        },
        "layers": {"twice": np.full((N, 2), 2.0, np.float32)},
        "obs": {
            "fold": pd.Series(np.arange(N), index=[str(i) for i in range(N)]),
            "kind": pd.Categorical(["a", "b", "a", None]),
            "label": np.array(["x", "y", "z", "x"], object),
        },
        "var": {"good": np.array([True, False])},
        "uns": {"spatialsig": {"step": {"n": 3, "names": ["p", "q"]}}},
    }


def test_parts_are_found_by_every_reader(store) -> None:
    """Against the whole table, written by anndata itself."""
    new = everything()
    commit_table_parts(store, "table", **new)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        direct = ad.read_zarr(store / "tables" / "table")
    back = sd.read_zarr(store)["table"]
    for adata in (back, direct):
        np.testing.assert_array_equal(adata.obsm["dense"], new["obsm"]["dense"])
        np.testing.assert_array_equal(adata.obsm["sparse"].toarray(), new["obsm"]["sparse"].toarray())
        assert adata.obsm["frame"]["a"].tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(adata.layers["twice"], new["layers"]["twice"])
        assert list(adata.obs.columns) == ["region", "patch_id", "fold", "kind", "label"]
        assert adata.obs["fold"].tolist() == [0, 1, 2, 3]
        assert adata.obs["kind"].isna().tolist() == [False, False, False, True]
        assert adata.obs["label"].tolist() == ["x", "y", "z", "x"]
        assert adata.var["good"].tolist() == [True, False]
        assert adata.uns["spatialsig"]["step"]["n"] == 3
        assert "a" not in adata.uns["spatialsig"]  # the key is replaced, as in memory
        assert (adata.X != table().X).nnz == 0
    assert back.uns["spatialdata_attrs"]["region"] == "squares"
    metadata = json.loads((store / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    assert metadata["tables/table/obs"]["attributes"]["column-order"][-1] == "label"
    assert {"tables/table/obsm/dense", "tables/table/uns/spatialsig/step/n"} <= set(metadata)
    assert [p.name for p in store.parent.iterdir()] == ["s.zarr"]


def test_a_part_is_replaced_by_one_of_another_shape_and_kind(store) -> None:
    commit_table_parts(store, "table", obsm={"x": np.zeros((N, 3))}, obs={"a": np.arange(N)})
    commit_table_parts(store, "table", obsm={"x": sparse.eye(N, 7, format="csr")}, obs={"a": np.array(list("abcd"))})
    back = sd.read_zarr(store)["table"]
    assert back.obsm["x"].shape == (N, 7)
    assert sparse.issparse(back.obsm["x"])
    assert list(back.obs.columns) == ["region", "patch_id", "a"]
    assert back.obs["a"].tolist() == list("abcd")


def test_the_counts_are_neither_read_nor_written(store) -> None:
    files = [f for f in (store / "tables/table/X").rglob("*") if f.is_file() and f.name != "zarr.json"]
    inodes = {f: f.stat().st_ino for f in files}
    commit_table_parts(store, "table", obsm={"x": np.zeros((N, 3))})
    assert files
    assert {f: f.stat().st_ino for f in files} == inodes


def test_a_file_system_without_links_gets_copies(store, monkeypatch) -> None:
    def refuse(old, new):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(atomic, "link", refuse)
    commit_table_parts(store, "table", **everything())
    assert sd.read_zarr(store)["table"].obs["fold"].tolist() == [0, 1, 2, 3]


def test_an_interruption_leaves_the_old_table(store, monkeypatch) -> None:
    commit_table_parts(store, "table", obsm={"x": np.zeros((N, 3))})
    before = state(store)

    def full(*_):
        raise OSError(28, "No space left on device")

    for step in ("record", "flush_tree", "exchange", "consolidate"):
        with monkeypatch.context() as patch:
            patch.setattr(swap, step, full)
            with pytest.raises(OSError, match="No space"):
                commit_table_parts(store, "table", **everything())
        assert state(store) == before


def test_parts_of_another_length_are_refused(store) -> None:
    before = state(store)
    with pytest.raises(InputError, match=r"`obsm\['x'\]` has shape \(9, 3\), but table 'table' .* has 4 observations"):
        commit_table_parts(store, "table", obsm={"x": np.zeros((9, 3))})
    with pytest.raises(InputError, match=r"`var\['x'\]` has shape \(4,\), but .* has 2 variables"):
        commit_table_parts(store, "table", var={"x": np.zeros(4)})
    with pytest.raises(InputError, match=r"`obs\['_index'\]` is the index|is the index of table"):
        commit_table_parts(store, "table", obs={"_index": np.zeros(4)})
    with pytest.raises(
        KeyMissingError, match=r"`table='cells'` is not in the tables of store .*available: \['table'\]"
    ):
        commit_table_parts(store, "cells", obs={"x": np.zeros(4)})
    assert state(store) == before


def test_a_slide_commits_parts_and_the_whole_table_when_its_rows_changed(store) -> None:
    (slide,) = open_slides(store)
    adata = slide.table("table")
    adata.obsm["x"] = np.ones((N, 2))
    adata.obs["later"] = 5
    adata.obs["fold"] = np.arange(N)
    slide.commit_table("table", obsm=["x"], obs=["fold"])
    back = sd.read_zarr(store)["table"]
    assert "later" not in back.obs
    assert back.obs["fold"].tolist() == [0, 1, 2, 3]
    slide.sdata.tables["table"] = adata[[2, 0]].copy()
    slide.commit_table("table", obs=["fold"])
    back = sd.read_zarr(store)["table"]
    assert back.obs["fold"].tolist() == [2, 0]
    assert back.obs["later"].tolist() == [5, 5]


def test_a_slide_in_memory_writes_nothing(sdata) -> None:
    (slide,) = open_slides(sdata)
    slide.commit_table("table", obs=["region"])


def test_nothing_changes_without_parts(store) -> None:
    before = state(store)
    commit_table_parts(store, "table", obsm={})
    assert state(store) == before


def test_a_table_of_a_first_commit_takes_parts(store) -> None:
    commit_elements(store, {"second": table(6)})
    commit_table_parts(store, "second", layers={"sem": np.zeros((6, 2), np.float32)})
    assert sd.read_zarr(store)["second"].layers["sem"].shape == (6, 2)


def test_one_entry_of_a_mapping_is_replaced_and_its_neighbours_stay(store) -> None:
    commit_table_parts(store, "table", uns={"spatialsig": {"first": {"n": 1}, "second": {"n": 2, "old": True}}})
    commit_table_parts(store, "table", uns={"spatialsig/second": {"n": 3}, "new/outer/inner": [1, 2]})
    uns = sd.read_zarr(store)["table"].uns
    assert uns["spatialsig"] == {"first": {"n": 1}, "second": {"n": 3}}
    assert list(uns["new"]["outer"]["inner"]) == [1, 2]


def matrix_of(image_store) -> np.ndarray:
    return get_transformation(sd.read_zarr(image_store)["he_image"]).to_affine_matrix(XY, XY)


@pytest.fixture
def image_store(toy_store: Path) -> Path:
    return toy_store


def test_all_transformations_are_replaced_and_no_pixel_is_written(image_store) -> None:
    pixels = np.asarray(sd.read_zarr(image_store)["he_image"]["scale0"]["image"].data)
    chunks = {f: os.stat(f).st_ino for f in image_store.glob("images/he_image/*/c/**/*") if f.is_file()}
    commit_transformations(image_store, "he_image", {"global": MOVED, "he": Identity()})
    back = sd.read_zarr(image_store)
    found = get_transformation(back["he_image"], get_all=True)
    assert set(found) == {"global", "he"}
    np.testing.assert_array_equal(found["global"].to_affine_matrix(XY, XY), MOVED.matrix)
    np.testing.assert_array_equal(back["he_image"]["scale0"]["image"].data, pixels)
    assert len(chunks) > 4
    assert {f: os.stat(f).st_ino for f in chunks} == chunks


def test_other_elements_and_attributes_stay(image_store, toy) -> None:
    commit_transformations(image_store, "he_image", {"global": MOVED})
    back = sd.read_zarr(image_store)
    assert back.attrs["spatialsig"] == toy.attrs["spatialsig"]
    assert (back["table"].X != toy["table"].X).nnz == 0
    assert get_transformation(back["cell_circles"]) == get_transformation(toy["cell_circles"])
    assert not [f.name for f in image_store.parent.iterdir() if "staging" in f.name]


def test_no_difference_to_an_image_written_whole(image_store, toy, tmp_path) -> None:
    commit_transformations(image_store, "he_image", {"global": MOVED})
    sd.transformations.set_transformation(toy["he_image"], MOVED)
    sp.io.write(toy, tmp_path / "whole.zarr")
    for name in ("zarr.json", "images/he_image/zarr.json"):
        assert (image_store / name).read_text() == (tmp_path / "whole.zarr" / name).read_text()


def test_interrupted_it_leaves_the_old_image(image_store, monkeypatch) -> None:
    before = matrix_of(image_store)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk is gone")

    monkeypatch.setattr("spatialsig.store.swap.consolidate", fail)
    with pytest.raises(OSError, match="disk is gone"):
        commit_transformations(image_store, "he_image", {"global": MOVED})
    monkeypatch.undo()
    np.testing.assert_array_equal(matrix_of(image_store), before)
    commit_transformations(image_store, "he_image", {"global": MOVED})
    np.testing.assert_array_equal(matrix_of(image_store), MOVED.matrix)


def test_unknown_image(image_store) -> None:
    with pytest.raises(KeyMissingError, match=r"`image_key='HE'` is not in the images of store .*\['he_image'\]"):
        commit_transformations(image_store, "HE", {"global": MOVED})
