"""A metadata file that is lost: nothing is written to the store, and the error names the file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import spatialsig as sp
from spatialsig.errors import StoreError
from spatialsig.store.commit import commit_elements, write_attrs
from spatialsig.store.parts import commit_table_parts

from .conftest import squares


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "s.zarr"
    sp.io.write(sp.datasets.toy(size_um=200), store)
    return store


def _obs(store: Path) -> None:
    n = json.loads((store / "tables/table/obs/_index/zarr.json").read_text())["shape"][0]
    commit_table_parts(store, "table", obsm={"x": np.zeros((n, 2))})


COMMITS: dict[str, Callable[[Path], None]] = {
    "attributes": lambda store: write_attrs(store, {"a": 1}),
    "an element": lambda store: commit_elements(store, {"squares": squares(3)}),
    "part of a table": _obs,
}


def documents(store: Path) -> dict[str, str]:
    return {str(file.relative_to(store)): file.read_text() for file in sorted(store.rglob("zarr.json"))}


@pytest.mark.parametrize("commit", COMMITS)
def test_every_lost_group_is_named_before_anything_is_written(commit: str, whole: Path, tmp_path: Path) -> None:
    groups = [name for name, text in documents(whole).items() if json.loads(text)["node_type"] == "group"]
    assert len(groups) > 15
    for name in groups:
        store = tmp_path / "s.zarr"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(whole, store)
        (store / name).unlink()
        before = documents(store)
        if not any(each.is_dir() for each in (store / name).parent.iterdir()):
            continue  # an empty group is made again
        told = f"s.zarr/{name}' is missing" if name != "zarr.json" else "no zarr.json"
        with pytest.raises(StoreError, match=re.escape(told)):
            COMMITS[commit](store)
        assert documents(store) == before


READERS: dict[str, Callable[[Path], object]] = {
    "read": sp.io.read,
    "a function": lambda store: sp.pp.normalize(store),
    "a cohort": lambda store: sp.Cohort({"A": store})["A"]["table"].X,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_lost_group_and_array_is_named_when_a_store_is_read(reader: str, whole: Path, tmp_path: Path) -> None:
    """Zarr passes over a part without its metadata: an embedding would be gone, counts would be none."""
    tables = [name for name in documents(whole) if name.startswith("tables/table/")]
    assert len(tables) > 30
    for name in tables if reader == "read" else ["tables/table/X/zarr.json", "tables/table/obsm/spatial/zarr.json"]:
        store = tmp_path / "s.zarr"
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(whole, store)
        (store / name).unlink()
        if any(each.is_dir() for each in (store / name).parent.iterdir()):
            with pytest.raises(StoreError, match=re.escape(f"s.zarr/{name}' is missing")):
                READERS[reader](store)


def test_the_error_says_what_to_do(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "tables" / "zarr.json").unlink()
    with pytest.raises(
        StoreError, match=r"tables/zarr.json' is missing; wanted the JSON .* Restore the store from a copy"
    ):
        write_attrs(tmp_path / "s.zarr", {"a": 1})
