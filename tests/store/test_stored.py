"""Tables of many rows stay in their store: what is read of them, and that everything is as from memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy import sparse
from spatialdata import SpatialData

import spatialsig as sp
from spatialsig.errors import SpatialsigError, StoreError
from spatialsig.slide.fingerprints import Kept, Numbers, of_column
from spatialsig.slide.slides import open_slides
from spatialsig.store import atomic, matrices, snapshot
from spatialsig.store.lazy_tables import for_others
from spatialsig.store.parts import has_rows_of
from spatialsig.store.stored import table as stored_table
from spatialsig.store.stored.table import StoredTable, light

Call = Callable[[Path], object]
PATCHES = {"patch_px": 28, "um_per_px": 2.0}
BLOCKS = {"by": "block", "n_folds": 2, "block_um": 80, "buffer_um": 0}


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_table, "MANY", 0)
    monkeypatch.setattr(matrices, "LARGE", 0)
    monkeypatch.setattr(matrices, "BLOCK", 4_000)
    snapshot._kept.clear()


def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read tables whole, as small ones are."""
    monkeypatch.setattr(stored_table, "MANY", 10**9)
    monkeypatch.setattr(matrices, "LARGE", 10**9)
    snapshot._kept.clear()


@pytest.fixture(scope="module")
def model() -> sp.models.Autoencoder:
    slide = with_controls(sp.datasets.toy(size_um=150))
    sp.pp.filter_cells(slide, min_counts=1)
    return sp.tl.train_autoencoder(slide, signatures="seed", n_latent=4, hidden=(8,), max_epochs=1, test_fold=None)


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(file.relative_to(store)): file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file()}


def with_controls(slide: SpatialData) -> SpatialData:
    """A slide some of whose columns are no genes, with a layer, categories that filtering empties, and a few empty cells."""
    table = slide["table"]
    table.var["feature_types"] = np.where(np.arange(table.n_vars) % 9, "Gene Expression", "Negative Control Probe")
    table.layers["half"] = table.X / 2
    table.obs["depth"] = pd.Categorical(np.where(np.asarray(table.X.sum(axis=1)).ravel() < 40, "thin", "deep"))
    return slide


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "slide.zarr"
    sp.io.write(with_controls(sp.datasets.toy(size_um=250)), path)
    in_chunks(path, "_index")
    in_chunks(path, "cell_id")
    return path


def in_chunks(store: Path, column: str) -> None:
    """Write text as the columns of a long table are: in several chunks."""
    group = zarr.open_group(store / "tables" / "table" / "obs", mode="r+")
    texts, attrs = group[column][:], group[column].attrs.asdict()
    del group[column]
    group.create_array(column, shape=texts.shape, dtype=texts.dtype, chunks=(60,), attributes=attrs)[:] = texts
    zarr.consolidate_metadata(store)


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "slide.zarr"))


def steps(model: sp.models.Autoencoder) -> dict[str, Call]:
    """Functions that read or write tables of cells, in an order in which each finds what it needs."""
    return {
        "filter_cells": lambda p: sp.pp.filter_cells(p, min_counts=40),
        "make_patches": lambda p: sp.pp.make_patches(p, **PATCHES),
        "split": lambda p: sp.pp.split(p, **BLOCKS),
        "assign_cells": sp.pp.assign_cells,
        "normalize": sp.pp.normalize,
        "highly_variable_genes": lambda p: sp.pp.highly_variable_genes(p, n_top_genes=80),
        "score_cells": lambda p: sp.tl.score_cells(p, "seed"),
        "embed_cells": lambda p: sp.tl.embed_cells(p, model),
        "aggregate_patches": lambda p: sp.tl.aggregate_patches(p, min_cells=3, obs=["cell_area", "depth"]),
        "targets": lambda p: sp.tl.aggregate_patches(
            p, min_cells=3, targets={"obs": "depth"}, key_added="depths", use_rep=None
        ),
        "split again": lambda p: sp.pp.split(p, **BLOCKS | {"seed": 1}),
        "score again": lambda p: sp.tl.score_cells(p, "seed"),
        "filter again": lambda p: sp.pp.filter_cells(p, min_counts=60),
        "status": sp.io.status,
        "verify": sp.io.verify,
    }


def test_stores_are_those_of_tables_in_memory_byte_for_byte(
    store: Path, tmp_path: Path, model: sp.models.Autoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path(shutil.copytree(store, tmp_path / "whole" / "slide.zarr"))
    for name, step in steps(model).items():
        found = str(step(store)).replace(str(store.parent), "")
        with monkeypatch.context() as patch:
            in_memory(patch)
            wanted = str(step(whole)).replace(str(whole.parent), "")
        snapshot._kept.clear()
        assert found == wanted, name
        ours, theirs = content(store), content(whole)
        assert ours.keys() == theirs.keys(), name
        assert [file for file in ours if ours[file] != theirs[file]] == [], name


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Arrays of the table of cells of which chunks were read, such as ``obs/cell_area``."""
    seen: set[str] = set()
    get = zarr.storage.LocalStore.get

    async def noted(self: Any, key: str, *args: Any, **kwargs: Any) -> Any:
        place = f"{self.root}/{key}"
        if "/tables/table/" in place and not Path(key).name.startswith((".z", "zarr.json")):
            part = place.partition("/tables/table/")[2].split("/")
            seen.add("/".join(part[: 1 if part[0] in ("X", "uns", "var") else 2]))
        return await get(self, key, *args, **kwargs)

    monkeypatch.setattr(zarr.storage.LocalStore, "get", noted)
    return seen


# of cells, beside names of genes and parameters; the region is looked at whenever a table is opened
OPENED = {"var", "uns", "obs/region", "obs/cell_id"}
PLACES, NAMES, MEMBERS = "obsm/spatial", "obs/_index", "obsm/patch_membership"
NEEDS = {
    "make_patches": None,
    "find_tissue": None,
    "normalize_stain": None,
    "qc_patches": None,
    "split": {PLACES, NAMES},
    "assign_cells": {PLACES, NAMES},
    "highly_variable_genes": {"X", NAMES, PLACES},  # of the training folds
    "score_cells": {"X", NAMES, PLACES},
    "embed_cells": {"X", NAMES},
    "aggregate_patches": {"X", NAMES, MEMBERS, PLACES, "obsm/signatures", "obsm/X_ae", "obs/cell_area"},
}


def test_of_a_table_only_what_a_function_needs_is_read(
    store: Path, model: sp.models.Autoencoder, opened: set[str]
) -> None:
    calls = {
        **steps(model),
        "find_tissue": sp.pp.find_tissue,
        "normalize_stain": sp.pp.normalize_stain,
        "qc_patches": sp.pp.qc_patches,
        "aggregate_patches": lambda p: sp.tl.aggregate_patches(p, min_cells=3, obs=["cell_area"]),
    }
    for name, needs in NEEDS.items():
        snapshot._kept.clear()
        opened.clear()
        calls[name](store)
        allowed = set() if needs is None else OPENED | needs
        assert opened <= allowed, name
        assert opened >= (needs or set()) - {NAMES, PLACES}, name


def stored(store: Path) -> StoredTable:
    (slide,) = open_slides(store)
    found: StoredTable = slide.table("table")
    assert isinstance(found, StoredTable)
    return found


def test_a_table_in_a_store_holds_what_the_table_holds(store: Path) -> None:
    table, whole = stored(store), sp.io.read(store)["table"]
    assert (table.n_obs, table.n_vars, table.shape) == (whole.n_obs, whole.n_vars, whole.shape)
    assert len(list(table.names.blocks())) > 2
    rows = np.array([3, 200, 61, 3])
    assert table.names[rows].equals(whole.obs_names[rows])
    assert list(table.obs) == list(table.obs.columns) == list(whole.obs)
    for name in whole.obs:
        pd.testing.assert_series_equal(table.obs[name], whole.obs[name].reset_index(drop=True))
        assert of_column(table.obs, name, Kept()) == of_column(whole.obs, name, Kept())
    pd.testing.assert_frame_equal(
        table.obs[["cell_area", "region"]], whole.obs[["cell_area", "region"]].reset_index(drop=True)
    )
    assert table.obs.get("nothing") is None
    for part in ("X", "obsm/spatial", "layers/half"):
        ours, theirs = (Numbers.of(each, part, Kept()) for each in (table, whole))
        assert ours.fingerprint == theirs.fingerprint
        assert ours.spots == theirs.spots
    pd.testing.assert_frame_equal(table.obs.frame, whole.obs)
    pd.testing.assert_frame_equal(table.obs.select_dtypes("number"), whole.obs.select_dtypes("number"))
    pd.testing.assert_index_equal(table.obs_names, whole.obs_names)


def test_what_is_set_is_found_and_stays_with_the_caller(store: Path) -> None:
    table = stored(store)
    table.obs["fold"] = np.arange(table.n_obs)
    table.obsm["new"] = np.ones((table.n_obs, 2))
    assert table.obs["fold"].tolist() == table.obs.frame["fold"].tolist() == list(range(table.n_obs))
    assert list(table.obs)[-1] == "fold"
    assert "new" in table.obsm
    del table.obsm["new"]
    assert "new" not in table.obsm
    for again in (table, stored(store)):
        again.obs["half"] = again.obs["cell_area"].iloc[::-1].sort_index() / 2
        assert again.obs["half"].tolist() == (again.obs["cell_area"] / 2).tolist()
        again.obs["others"] = pd.Series([1.0], index=again.obs_names[3:4])  # is aligned as pandas does it
        assert np.flatnonzero(again.obs["others"].notna()).tolist() == [3]
    with pytest.raises(KeyError, match="missing"):
        table.obs["missing"]
    assert not {"fold", "half", "others"} & set(stored(store).obs)


@pytest.mark.parametrize("links", [True, False])
def test_parts_beside_those_that_are_replaced_can_still_be_read(
    store: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:

        def refuse(*_: object) -> None:
            raise OSError

        monkeypatch.setattr(atomic, "link", refuse)
    (slide,) = open_slides(store)
    table, other = slide.table("table"), stored(store)
    before = table.obs["cell_area"]
    table.obs["fold"] = np.zeros(table.n_obs, int)
    slide.commit_table("table", obs=["fold"])
    table.obsm["ones"] = np.ones((table.n_obs, 1))
    slide.commit_table("table", obsm=["ones"])
    for each in (table, other):
        assert each.obs["cell_area"].equals(before)
        assert each.obs_names.is_unique


@pytest.mark.parametrize(
    "use",
    [
        lambda table: table.obs["cell_area"],
        lambda table: table.obsm["spatial"],
        lambda table: table.obs_names,
        lambda table: list(table.names.blocks()),
        lambda table: table.names[np.array([0])],
        lambda table: table.X,
        light,
    ],
)
def test_rows_that_were_replaced_meanwhile_are_never_mixed_with_others(
    store: Path, use: Callable[[StoredTable], object]
) -> None:
    table = stored(store)
    sp.pp.filter_cells(store, min_counts=60)
    with pytest.raises(StoreError, match="was replaced while it was read; call the function again"):
        use(table)


def test_nothing_is_added_to_rows_that_were_replaced_meanwhile(store: Path) -> None:
    (slide,) = open_slides(store)
    table = slide.table("table")
    table.obs["fold"] = np.zeros(table.n_obs, int)
    sp.pp.filter_cells(store, min_counts=60)
    before = content(store)
    replaced = "was replaced while it was read; call the function again"
    with pytest.raises(StoreError, match=replaced):
        slide.commit_table("table", obs=["fold"])
    with pytest.raises(StoreError, match=replaced):
        has_rows_of(store, "table", table)
    assert content(store) == before


def test_a_selection_of_counts_that_were_replaced_is_not_read(store: Path) -> None:
    source = stored(store).X
    kept = matrices.Selection(source, np.ones(source.shape[0], bool), np.ones(source.shape[1], bool))
    sp.pp.filter_cells(store, min_counts=60)
    with pytest.raises(StoreError, match="was replaced while it was read; call the function again"):
        list(kept.blocks())


def test_a_filter_that_is_interrupted_leaves_the_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(store)
    add = matrices._Appended.add
    calls: list[int] = []

    def fails(self: Any, values: np.ndarray) -> None:
        calls.append(len(values))
        if len(calls) > 3:
            raise KeyboardInterrupt
        add(self, values)

    monkeypatch.setattr(matrices._Appended, "add", fails)
    with pytest.raises(KeyboardInterrupt):
        sp.pp.filter_cells(store, min_counts=60)
    assert content(store) == before
    assert [entry.name for entry in store.parent.iterdir()] == [store.name]


def test_of_what_is_written_less_than_a_chunk_waits(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(100,), chunks=(10,), dtype="int32")
    appended, values = matrices._Appended(array), np.arange(1, 101, dtype=np.int32)
    for start in range(0, 100, 7):
        appended.add(values[start : start + 7])
        assert sum(map(len, appended.waiting)) < 10
        assert appended.written % 10 == 0
    appended.flush()
    np.testing.assert_array_equal(array[:], values)


@pytest.mark.parametrize("used_before", [True, False])
def test_other_packages_are_given_whole_tables(store: Path, used_before: bool) -> None:
    (slide,) = open_slides(store)
    if used_before:
        assert isinstance(slide.table("table"), StoredTable)
    given, wanted = for_others(slide.sdata)["table"], sp.io.read(store)["table"]
    assert isinstance(given, ad.AnnData)
    pd.testing.assert_frame_equal(given.obs, wanted.obs)
    assert given.uns.keys() == wanted.uns.keys()
    assert set(given.obsm) == set(wanted.obsm)
    assert (given.X[:] != wanted.X).nnz == (given.layers["half"][:] != wanted.layers["half"]).nnz == 0
    assert slide.table("table") is given


def test_rows_and_an_opened_object_are_used_as_those_of_tables_in_memory(store: Path) -> None:
    (slide,) = open_slides(store)
    (again,) = open_slides(slide.sdata)  # as a report passes it on
    assert again.table("table") is slide.table("table")
    wanted = sp.io.read(store)["table"]
    pd.testing.assert_frame_equal(again.table("table")[[3, 1]].obs, wanted[[3, 1]].obs)


def test_counts_that_end_inside_a_chunk_are_written_whole(store: Path, tmp_path: Path) -> None:
    source = stored(store).X
    kept = matrices.Selection(source, np.ones(source.shape[0], bool), np.arange(source.shape[1]) % 3 > 0)
    group = zarr.create_group(tmp_path / "new").create_group("X")
    for name, dtype in (("data", kept.dtype), ("indices", np.int32)):
        group.create_array(name, shape=(int(kept.indptr[-1]),), chunks=(1_001,), dtype=dtype)
    matrices.StreamedTable(ad.AnnData(), {"X": kept}).fill(tmp_path / "new")
    found = sparse.csr_matrix((group["data"][:], group["indices"][:], kept.indptr), shape=kept.shape)
    assert (found != source[:][:, kept.columns]).nnz == 0


def spoilt(table: ad.AnnData, kind: str) -> None:
    """Make a table what spatialdata refuses, or warns of."""
    if kind == "region":
        table.uns["spatialdata_attrs"]["region"] = "others"
    elif kind == "number":
        table.obs["cell_id"] = np.arange(table.n_obs) / 2
    elif kind == "missing":
        table.obs["cell_id"] = pd.Categorical(np.where(np.arange(table.n_obs) == 7, None, table.obs["cell_id"]))
    elif kind == "text":
        table.obs["region"] = table.obs["region"].astype(str).astype(object)
    elif kind == "column":
        del table.obs["cell_id"]
    elif kind == "key":
        del table.uns["spatialdata_attrs"]["instance_key"]
    elif kind == "names":
        table.obs["a b"] = 1


@pytest.mark.parametrize("kind", ["right", "region", "number", "missing", "text", "column", "key", "names"])
def test_a_table_is_as_valid_as_in_memory(store: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = sp.io.read(store)["table"]
    spoilt(table, kind)
    attrs = zarr.open_group(store / "tables" / "table").attrs.asdict()
    shutil.rmtree(store / "tables" / "table")
    ad.io.write_elem(zarr.open_group(store / "tables", mode="r+"), "table", table)
    zarr.open_group(store / "tables" / "table").attrs.update(attrs)

    def outcome() -> str:
        snapshot._kept.clear()
        try:
            next(open_slides(store)).table("table")
        except (ValueError, TypeError, KeyError, SpatialsigError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    found = outcome()
    in_memory(monkeypatch)
    assert outcome() == found
    assert bool(found) == (kind != "right")


def test_names_that_are_no_text_are_read_whole(store: Path) -> None:
    """Some versions of AnnData write them with a mask."""
    group = zarr.open_group(store / "tables" / "table" / "obs", mode="r+")
    names = np.asarray(group["_index"][:]).astype(object)
    del group["_index"], zarr.open_group(store / "tables" / "table" / "obsm", mode="r+")["true_scores"]  # has names too
    with ad.settings.override(allow_write_nullable_strings=True):
        ad.io.write_elem(group, "_index", pd.array(names, dtype="string"))
    table, whole = stored(store), sp.io.read(store)["table"]
    assert table.n_obs == whole.n_obs
    ours, theirs = (Numbers.of(each, "obsm/spatial", Kept()) for each in (table, whole))
    assert ours.fingerprint == theirs.fingerprint
    assert ours.spots == theirs.spots


def test_names_and_counts_are_looked_at_once_as_long_as_their_files_stay(store: Path) -> None:
    """Checksums are kept of objects, so a table that is opened again gives the same ones; other files give others."""
    place, rows = store / "tables" / "table", np.array([0, 90, 150])
    first = StoredTable.open(place)
    kept = first.names[rows]
    sp.pp.normalize(store, layer="again")  # replaces another part of the table
    second = StoredTable.open(place)
    assert second.names is first.names
    assert second.X is first.X
    pd.testing.assert_index_equal(second.names[rows], kept)
    sp.pp.filter_cells(store, min_counts=60)  # other rows
    third = StoredTable.open(place)
    assert third.names is not first.names
    assert third.X is not first.X
    truth = sp.io.read(store)["table"]
    assert third.names[rows].tolist() == truth.obs_names[rows].tolist() != kept.tolist()
    np.testing.assert_array_equal(matrices.rows_of(third.X, rows).toarray(), truth.X[rows].toarray())
    with pytest.raises(StoreError, match="was replaced"):
        first.names[np.array([1])]


def test_what_is_asked_of_a_part_is_asked_once_as_long_as_its_files_stay(store: Path) -> None:
    """An answer is that of other values once the part is replaced, set, or another file at the same place."""
    asked: list[str] = []
    place = store / "tables" / "table"

    def ask(table: StoredTable, part: str) -> float:
        def find() -> float:
            asked.append(part)
            section, _, name = part.partition("/")
            values = table.X if section == "X" else getattr(table, section)[name]
            return float(matrices.rows_of(values, np.array([0, 5])).sum() if section == "X" else np.sum(values))

        return table.found(part, "sum", find)

    first = StoredTable.open(place)
    answers = {part: ask(first, part) for part in ("X", "obsm/spatial", "obs/cell_area")}
    sp.pp.normalize(store, layer="again")  # replaces another part of the table
    again = StoredTable.open(place)
    assert {part: ask(again, part) for part in answers} == answers
    assert asked == list(answers)
    again.obsm["spatial"] = again.obsm["spatial"] + 1.0  # set in memory
    again.obs["cell_area"] = again.obs["cell_area"] * 2
    again.var.index = again.var.index[::-1]  # columns have other names
    assert ask(again, "obsm/spatial") > answers["obsm/spatial"]
    assert ask(again, "obs/cell_area") == pytest.approx(2 * answers["obs/cell_area"])
    ask(again, "X")
    assert asked == [*answers, "obsm/spatial", "obs/cell_area", "X"]
    values = zarr.open_array(place / "obs" / "cell_area", mode="r+")  # another program writes into a chunk
    values[0] = values[0] + 1000.0
    assert ask(StoredTable.open(place), "obs/cell_area") == pytest.approx(answers["obs/cell_area"] + 1000.0, rel=1e-6)
