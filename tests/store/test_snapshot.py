"""Tables that stay in memory between steps: never older than their files, never shared where callers write."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import spatialdata as sd
import zarr

import spatialsig as sp
from spatialsig.slide.slides import open_slides
from spatialsig.store import snapshot as tables
from spatialsig.store.snapshot import read_table


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "a.zarr"
    sp.io.write(sp.datasets.toy(seed=0, size_um=200.0), path)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Tables that were read from their files."""
    seen: list[Path] = []

    def counted(path: Path) -> ad.AnnData:
        seen.append(path)
        return read(path)

    read = tables._read
    monkeypatch.setattr(tables, "_read", counted)
    return seen


def test_a_table_is_that_of_spatialdata(store: Path) -> None:
    for _ in range(2):
        ours, plain = next(open_slides(store)).sdata["table"], sd.read_zarr(store)["table"]
        assert ours.uns["spatialdata_attrs"] == plain.uns["spatialdata_attrs"]
        assert (ours.X != plain.X).nnz == 0
        assert ours.obs.equals(plain.obs)
        assert ours.var.equals(plain.var)
        assert set(ours.obsm) == set(plain.obsm)


def test_unchanged_files_are_read_once(store: Path, reads: list[Path]) -> None:
    for _ in range(3):
        read_table(store / "tables" / "table")
    assert len(reads) == 1


def test_a_commit_is_seen_and_the_other_tables_stay(store: Path, reads: list[Path]) -> None:
    sp.pp.make_patches(store, patch_px=56, um_per_px=1.0)
    sp.pp.assign_cells(store)
    sp.tl.score_cells(store, "seed", test_fold=None)
    sp.tl.aggregate_patches(store, use_rep=None)
    slide = next(open_slides(store))
    reads.clear()
    table = slide.sdata.tables["table"]
    table.obsm["X_new"] = np.ones((table.n_obs, 2), np.float32)
    slide.commit_table("table", obsm=["X_new"])
    assert "X_new" in next(open_slides(store)).sdata.tables["table"].obsm
    assert [path.name for path in reads] == ["table"]


def test_functions_read_the_tables_they_need(store: Path, reads: list[Path]) -> None:
    """A slide has a table of a million cells, and tables of patches; most functions need one of them or none."""
    sp.pp.split(store, by="block", n_folds=2, block_um=100, buffer_um=0)
    sp.tl.score_cells(store, "seed")
    needs = {
        "find_tissue": (lambda: sp.pp.find_tissue(store), set()),
        "make_patches": (lambda: sp.pp.make_patches(store, patch_px=28, um_per_px=2.0), set()),
        "normalize_stain": (lambda: sp.pp.normalize_stain(store), set()),
        "assign_cells": (lambda: sp.pp.assign_cells(store), {"table"}),
        "aggregate_patches": (lambda: sp.tl.aggregate_patches(store, use_rep=None, min_cells=3), {"table"}),
        # labels are compared with the cells that they were made from
        "train_vit": (lambda: sp.tl.train_vit(store, use_rep=None, max_epochs=1), {"signatures", "table"}),
    }
    for name, (call, wanted) in needs.items():
        tables._kept.clear()
        reads.clear()
        call()
        assert {path.name for path in reads} == wanted, name


def test_a_chunk_changed_by_another_program_is_seen(store: Path) -> None:
    before = read_table(store / "tables" / "table").obsm["spatial"].copy()
    array = zarr.open_array(store / "tables" / "table" / "obsm" / "spatial", mode="r+")
    array[0, 0] = before[0, 0] + 1.0
    assert read_table(store / "tables" / "table").obsm["spatial"][0, 0] == before[0, 0] + 1.0


def test_changes_in_memory_stay_with_the_caller(store: Path) -> None:
    table = read_table(store / "tables" / "table")
    table.obsm["X_mine"] = np.zeros((table.n_obs, 1))
    table.obs["mine"] = 1
    table.obs.iloc[0, table.obs.columns.get_loc("mine")] = 2
    table.uns["mine"] = {"deep": [1]}
    again = read_table(store / "tables" / "table")
    assert "X_mine" not in again.obsm
    assert "mine" not in again.obs
    assert "mine" not in again.uns


def test_memory_is_bounded(store: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "table_cache_mb", 0)
    for _ in range(2):
        read_table(store / "tables" / "table")
    assert len(reads) == 2
    assert not tables._kept


@pytest.mark.parametrize("opened", ["read", "cohort"])
def test_what_was_opened_by_a_relative_path_stays_that_slide(
    opened: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, place in enumerate(("here", "there")):
        sp.io.write(sp.datasets.toy(seed=seed, size_um=200.0), tmp_path / place / "s.zarr")
    monkeypatch.chdir(tmp_path / "here")
    expected = np.asarray(sp.io.read(tmp_path / "here" / "s.zarr")["he_image"]["scale0"]["image"])
    slide = sp.io.read("s.zarr") if opened == "read" else sp.Cohort({"s": "s.zarr"})["s"]
    monkeypatch.chdir(tmp_path / "there")
    np.testing.assert_array_equal(np.asarray(slide["he_image"]["scale0"]["image"]), expected)
