"""What others put into a store, and links in it: refused by name, kept or moved, never deleted."""

from __future__ import annotations

import os
import re
import shutil
import socket
import warnings
from typing import TYPE_CHECKING

import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import StoreError
from spatialsig.store.commit import commit_elements, create_store, write_attrs
from spatialsig.store.metadata import elements_on_disk
from spatialsig.store.parts import commit_table_parts

from .conftest import dead_pid, image, labels, points, squares, table, whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MINE = "mine, and nobody else has it"
NEW = ("images/backup/old", "tables/.mine", ".git", "shapes/a b", "results", "labels/mine.partial", "images/he/masks")
WRITERS: dict[str, Callable[[Path], object]] = {
    "a new store": lambda path: create_store(path, whole(), overwrite=True),
    "new elements": lambda path: commit_elements(
        path, {"he": image(), "cells": labels(), "dots": points(), "squares": squares(), "table": table()}
    ),
    "parts of a table": lambda path: commit_table_parts(path, "table", obs={"n": [1, 2, 3, 4]}),
    "attributes": lambda path: write_attrs(path, {"mine": 1}),
    "another layout": lambda path: sp.io.optimize(path, layout="speed"),
    "a repair": sp.io.repair,
}


def _mine(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.name.startswith("mine.") and file.is_file()]


def _refusal(writer: str, path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            WRITERS[writer](path)
        except StoreError as error:
            return str(error)
    return ""


@pytest.mark.parametrize(("origin", "writer"), [*(("ours", writer) for writer in WRITERS), ("theirs", "a new store")])
def test_no_file_of_others_is_deleted_wherever_it_lies(
    kept_stores: Path, tmp_path: Path, origin: str, writer: str
) -> None:
    kept = kept_stores / f"{origin}.zarr"
    folders = [kept, *(folder for folder in kept.rglob("*") if folder.is_dir()), *(kept / name for name in NEW)]
    assert len(folders) > 30
    for folder in folders:
        copy = shutil.copytree(kept, tmp_path / "copy.zarr")
        file = copy / folder.relative_to(kept) / "mine.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(MINE)
        refused = _refusal(writer, copy)
        assert refused or writer != "a new store", file
        assert not refused or set(file.relative_to(copy).parts) & set(re.findall(r"[\w.]+", refused)), (refused, file)
        assert [each.read_text() for each in _mine(tmp_path)] == [MINE], file
        for place in tmp_path.iterdir():
            shutil.rmtree(place)


@pytest.mark.parametrize("name", ["mine.partial", "zarr.json.partial", "results.12ab34cd.partial"])
@pytest.mark.parametrize("folder", [".", "images", "tables/table"])
def test_only_drafts_that_a_writer_left_go(store: Path, folder: str, name: str) -> None:
    mine, left = store / folder / name, store / "images" / "zarr.json.12ab34cd.partial"
    mine.write_text(MINE)
    left.write_text("{")
    (store / "zarr.0123456789abcdef0123456789abcdef.partial").write_text("{")
    commit_elements(store, {"new": squares()})
    assert mine.read_text() == MINE
    assert not left.exists()
    assert not list(store.glob("zarr.0*"))


def test_an_element_may_be_called_partial(store: Path) -> None:
    commit_elements(store, {"a.partial": squares()})
    commit_elements(store, {"b": squares()})
    assert {"a.partial", "b"} <= set(sd.read_zarr(store).shapes)
    assert not sp.io.verify(store)["status"].isin(["leftover", "altered"]).any()
    assert sp.io.repair(store).empty


@pytest.mark.parametrize("file", ["mine.csv", "images/mine.csv", "images", "figures/mine.csv"])
@pytest.mark.parametrize("token", ["x", "12ab34cd"])
def test_a_folder_of_others_that_is_named_as_a_staging_directory_stays(store: Path, token: str, file: str) -> None:
    mine = store.with_name(f".s.zarr.staging-{socket.gethostname()}-{dead_pid()}-{token}") / file
    mine.parent.mkdir(parents=True)
    mine.write_text(MINE)
    commit_elements(store, {"new": squares()})
    assert mine.read_text() == MINE


@pytest.mark.parametrize("token", ["old", "12ab34cd"])
def test_a_folder_of_others_that_is_named_as_if_taken_away_is_not_given_back(tmp_path: Path, token: str) -> None:
    mine = tmp_path / f"s.zarr.aside-{token}"
    mine.mkdir()
    (mine / "mine.csv").write_text(MINE)
    create_store(tmp_path / "s.zarr", whole())
    assert (mine / "mine.csv").read_text() == MINE
    assert sorted(os.listdir(tmp_path)) == ["s.zarr", mine.name]


def test_a_store_of_any_origin_with_what_systems_leave_is_replaced(store: Path) -> None:
    for folder in (store, store / "images", store / "images" / "he", store / "tables" / "table"):
        (folder / ".DS_Store").write_text("the system's")
        (folder / "._zarr.json").write_text("the system's")
    (store / "images" / "empty").mkdir()
    create_store(store, whole(), overwrite=True)
    assert not list(store.rglob(".DS_Store"))


@pytest.mark.parametrize("element", ["images/he", "tables/table", "shapes/squares"])
def test_an_element_that_is_a_link_is_replaced_where_it_lies(store: Path, element: str) -> None:
    real = store.with_name("real")
    (store / element).rename(real)
    (store / element).symlink_to(real)
    kind, name = element.split("/")
    commit_elements(store, {name: {"he": image(260, 270), "table": table(9), "squares": squares(8)}[name]})
    assert (store / element).is_symlink()
    assert (sp.io.verify(store).set_index("element").loc[name, "status"]) in ("ok", "not checksummed")
    assert (kind, name, True) in elements_on_disk(store)
    assert sorted(os.listdir(store.parent)) == ["real", "s.zarr"]
    before = {file: file.read_bytes() for file in real.rglob("*") if file.is_file()}
    with pytest.raises(StoreError, match=rf"holds {element} \(a link\), which no store does"):
        create_store(store, whole(), overwrite=True)
    assert {file: file.read_bytes() for file in real.rglob("*") if file.is_file()} == before


def test_an_element_on_another_disk_is_not_replaced(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = store.with_name("real")
    (store / "shapes" / "squares").rename(real)
    (store / "shapes" / "squares").symlink_to(real)
    stat = type(real).stat

    class Elsewhere:
        st_dev = -1

    monkeypatch.setattr(type(real), "stat", lambda self, **o: Elsewhere() if self == real else stat(self, **o))
    with pytest.raises(
        StoreError, match="squares' leads to '.*real' on another disk.* put the element in the place of the"
    ):
        commit_elements(store, {"squares": squares(8)})


READERS: dict[str, Callable[[Path], object]] = {
    "read": sp.io.read,
    "status": sp.io.status,
    "optimize": sp.io.optimize,
    "repair": sp.io.repair,
    "write": lambda path: create_store(path, whole(), overwrite=True),
    "commit": lambda path: commit_elements(path, {"new": squares()}),
    "attributes": lambda path: write_attrs(path, {"mine": 1}),
}


@pytest.mark.parametrize("target", ["table", "/not mounted/table"])
@pytest.mark.parametrize("reader", READERS)
def test_an_element_whose_link_leads_nowhere_is_named_and_nothing_is_written(
    store: Path, reader: str, target: str
) -> None:
    shutil.rmtree(store / "tables" / "table")
    (store / "tables" / "table").symlink_to(target)
    before = {file: file.read_bytes() for file in store.rglob("*") if file.is_file()}
    with pytest.raises(StoreError, match=rf"links to what is not there \(tables/table to '{target}'\): mount its disk"):
        READERS[reader](store)
    assert {file: file.read_bytes() for file in store.rglob("*") if file.is_file()} == before
    found = sp.io.verify(store).set_index("element")
    assert "mount its disk" in found.loc["", "detail"]


@pytest.mark.parametrize("call", [sp.io.read, sp.io.verify, sp.io.repair, sp.io.optimize, sp.Cohort])
def test_a_zip_of_a_store_is_called_one(store: Path, call: Callable[[Path], object]) -> None:
    zipped = shutil.make_archive(str(store.with_name("z")), "zip", store)
    with pytest.raises((StoreError, ValueError), match=r"z\.zip' is .* It is a zip \(.*\): unpack it\."):
        call(zipped)
