from __future__ import annotations

import json
import os
import shutil
import warnings

import numpy as np
import pytest
import spatialdata as sd
import zarr

from spatialsig.errors import FileMissingError, InputError, SpatialsigWarning, StoreError
from spatialsig.store import atomic, commit, snapshot, swap
from spatialsig.store.commit import commit_elements, create_store, read_attrs, write_attrs

from .conftest import dead_pid, image, labels, picture, points, squares, table


def state(path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def consolidated(path) -> set[str]:
    return set(json.loads((path / "zarr.json").read_text())["consolidated_metadata"]["metadata"])


def test_a_new_store_holds_everything(sdata, tmp_path) -> None:
    path = tmp_path / "deep" / "s.zarr"
    create_store(path, sdata)
    back = sd.read_zarr(path)
    assert {name for _, name, _ in back.gen_elements()} == {"he", "cells", "dots", "squares", "table"}
    assert back.attrs == sdata.attrs
    assert back["squares"].equals(sdata["squares"])
    assert (back["table"].X != sdata["table"].X).nnz == 0
    np.testing.assert_array_equal(back["he"]["scale0"]["image"].values, sdata["he"].values)
    np.testing.assert_array_equal(back["cells"].values, sdata["cells"].values)
    assert back["dots"].compute()["x"].tolist() == sdata["dots"].compute()["x"].tolist()
    assert sdata.path is None
    assert [p.name for p in path.parent.iterdir()] == ["s.zarr"]
    assert {"images/he/s1", "tables/table/X"} <= consolidated(path)


def test_an_existing_path_is_kept_unless_overwritten(sdata, tmp_path) -> None:
    path = tmp_path / "s.zarr"
    create_store(path, sdata)
    before = state(path)
    with pytest.raises(StoreError, match=r"already exists; pass `overwrite=True`"):
        create_store(path, sd.SpatialData())
    assert state(path) == before
    create_store(path, sd.SpatialData(shapes={"squares": squares(7)}), overwrite=True)
    assert len(sd.read_zarr(path)["squares"]) == 7
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_a_directory_that_is_no_store_is_never_replaced(sdata, tmp_path) -> None:
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(StoreError, match=r"is not a SpatialData Zarr store"):
        create_store(tmp_path, sdata, overwrite=True)
    assert (tmp_path / "precious.txt").exists()


def test_elements_of_every_kind_are_added(store) -> None:
    new = {
        "he2": image(300, 280, seed=4),
        "cells2": labels(),
        "dots2": points(8),
        "squares2": squares(9),
        "table2": table(6),
    }
    commit_elements(store, new)
    back = sd.read_zarr(store)
    assert set(new) <= {name for _, name, _ in back.gen_elements()}
    assert {name for _, name, _ in back.gen_elements()} >= {"he", "cells", "dots", "squares", "table"}
    assert len(back["squares2"]) == 9
    assert len(back["dots2"].compute()) == 8
    np.testing.assert_array_equal(back["he2"]["scale0"]["image"].values, np.moveaxis(picture(300, 280, 4), 2, 0))
    assert back["table2"].uns["spatialsig"]["a"]["b"] == 1
    listed = json.loads((store / "labels" / "zarr.json").read_text())["attributes"]["ome"]["labels"]
    assert sorted(listed) == ["cells", "cells2"]
    assert {"tables/table2/X", "images/he2/s0", "squares2"} & consolidated(store) >= {
        "tables/table2/X",
        "images/he2/s0",
    }


def test_elements_are_replaced(store) -> None:
    commit_elements(store, {"table": table(9, value=3.0), "squares": squares(9), "he": image(260, 270, seed=9)})
    back = sd.read_zarr(store)
    assert back["table"].shape == (9, 2)
    assert back["table"].X.max() == 3.0
    assert len(back["squares"]) == 9
    assert back["he"]["scale0"]["image"].shape == (3, 260, 270)
    assert back.attrs == {"spatialsig": {"sample": "S1"}}
    assert [p.name for p in store.parent.iterdir()] == ["s.zarr"]
    # the consolidated copy is the new one
    root = zarr.open_group(store, mode="r", use_consolidated=True)
    assert root["images/he/s0"].shape == (3, 260, 270)


def test_a_store_without_tables_gets_its_first(tmp_path) -> None:
    sd.SpatialData(shapes={"squares": squares()}).write(tmp_path / "s.zarr")
    commit_elements(tmp_path / "s.zarr", {"table": table(3)})
    assert sd.read_zarr(tmp_path / "s.zarr")["table"].n_obs == 3


def test_an_element_may_read_lazily_what_it_replaces(store) -> None:
    back = sd.read_zarr(store)
    before = back["dots"].compute()
    commit_elements(store, {"dots": back["dots"], "he": back["he"]})
    again = sd.read_zarr(store)
    assert again["dots"].compute().equals(before)
    pixels = again["he"]["scale0"]["image"].values
    np.testing.assert_array_equal(pixels, np.moveaxis(picture(600, 500), 2, 0))


def test_spatialdata_can_go_on_writing(store) -> None:
    commit_elements(store, {"table": table(9)})
    sdata = sd.read_zarr(store)
    sdata["later"] = squares(2)
    sdata.write_element("later")
    assert {"later", "table"} <= {name for _, name, _ in sd.read_zarr(store).gen_elements()}


def test_nothing_to_commit_changes_nothing(store) -> None:
    before = state(store)
    commit_elements(store, {})
    assert state(store) == before


FULL = OSError(28, "No space left on device")
STEPS = [
    (commit, "_write", 1, FULL),
    (commit, "consolidate", 1, FULL),
    (swap, "flush_tree", 1, FULL),
    (swap, "replace_root", 1, FULL),
    (swap, "_require_kind", 1, FULL),
    (swap, "_require_kind", 2, FULL),
    (swap, "exchange", 1, FULL),
    (swap, "exchange", 2, KeyboardInterrupt()),
    (swap, "list_labels", 1, FULL),
    (swap, "consolidate", 1, KeyboardInterrupt()),
]


@pytest.mark.parametrize(("where", "step", "call", "error"), STEPS, ids=[f"{s} {c}" for _, s, c, _ in STEPS])
def test_an_exception_at_any_step_leaves_the_old_state(
    kept_stores, tmp_path, monkeypatch, where, step, call, error
) -> None:
    store = shutil.copytree(kept_stores / "ours.zarr", tmp_path / "s.zarr")
    before, calls = state(store), []
    original = getattr(where, step)

    def failing(*args, **kwargs):
        calls.append(step)
        if len(calls) == call:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(where, step, failing)
    with pytest.raises(type(error)):
        commit_elements(store, {"new": squares(2), "squares": squares(8), "table": table(8), "cells": labels()})
    monkeypatch.setattr(where, step, original)
    assert state(store) == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
    commit_elements(store, {"squares": squares(8)})
    assert len(sd.read_zarr(store)["squares"]) == 8


def test_a_reader_in_the_middle_of_a_commit_sees_whole_elements(store, monkeypatch) -> None:
    """Each swap is seen at once and with metadata that fit: stale consolidated ones would give the old shapes."""
    seen = []

    def watching(first, second):
        atomic.exchange(first, second)
        back = sd.read_zarr(store)
        group = zarr.open_group(store, mode="r")
        seen.append((back["table"].n_obs, len(back["squares"]), group["images/he/s0"].shape[1:]))

    monkeypatch.setattr(swap, "exchange", watching)
    commit_elements(store, {"he": image(260, 270), "table": table(9), "squares": squares(8)})
    assert seen == [(4, 3, (260, 270)), (9, 3, (260, 270)), (9, 8, (260, 270))]


def test_without_the_system_call_two_renames_do(store, monkeypatch) -> None:
    monkeypatch.setattr(atomic, "_exchange_at_once", lambda first, second: False)
    commit_elements(store, {"squares": squares(8)})
    assert len(sd.read_zarr(store)["squares"]) == 8
    assert [p.name for p in store.parent.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("at_once", [True, False])
def test_exchange_swaps_directories(tmp_path, monkeypatch, at_once) -> None:
    if not at_once:
        monkeypatch.setattr(atomic, "_exchange_at_once", lambda first, second: False)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    atomic.exchange(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path / "a") == ["b"]
    assert os.listdir(tmp_path / "b") == ["a"]
    with pytest.raises(FileNotFoundError):
        atomic.exchange(tmp_path / "a", tmp_path / "c")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_leftovers_of_a_dead_writer_go_with_the_next_commit(store) -> None:
    host = swap.socket.gethostname()
    left = store.with_name(f".s.zarr.staging-{host}-{dead_pid()}-abcd")
    alive = store.with_name(f".s.zarr.staging-{host}-{os.getpid()}-abcd")
    elsewhere = store.with_name(".s.zarr.staging-other-host-1-abcd")
    for directory in (left, alive, elsewhere):
        (directory / "tables").mkdir(parents=True)
    commit_elements(store, {"squares": squares(8)})
    assert not left.exists()
    assert alive.exists()
    assert elsewhere.exists()


def test_what_an_interrupted_swap_took_away_comes_back(kept_stores, tmp_path) -> None:
    store = shutil.copytree(kept_stores / "ours.zarr", tmp_path / "s.zarr")
    left = tmp_path / f".s.zarr.staging-{swap.socket.gethostname()}-{dead_pid()}-abcd"
    (left / "tables").mkdir(parents=True)
    (store / "tables/table").rename(left / "tables/table.aside-1234")
    commit_elements(store, {"squares": squares(8)})
    assert sd.read_zarr(store)["table"].n_obs == 4


def test_an_unfinished_element_is_put_aside(store) -> None:
    """What a killed `write_element` leaves: a group without its last attributes."""
    half = store / "shapes" / "half"
    half.mkdir()
    (half / "zarr.json").write_text(json.dumps({"attributes": {}, "zarr_format": 3, "node_type": "group"}))
    (store / "tables" / "empty").mkdir()
    with pytest.warns(SpatialsigWarning, match=r"moved unfinished \['shapes/half', 'tables/empty'\] to"):
        commit_elements(store, {"squares": squares(8)})
    assert len(sd.read_zarr(store)["squares"]) == 8
    assert not half.exists()
    (shelter,) = store.parent.glob(".s.zarr.quarantine-*")
    assert (shelter / "shapes" / "half" / "zarr.json").exists()


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", "a b", "__x", "x" * 101, "é"])
def test_names_that_make_no_directory_are_refused(store, name) -> None:
    before = state(store)
    with pytest.raises(InputError, match=r"element name .* cannot be stored"):
        commit_elements(store, {name: squares()})
    assert state(store) == before


def test_a_name_of_another_kind_is_refused(store) -> None:
    with pytest.raises(InputError, match=r"`squares` is already one of shapes in .*store these tables under another"):
        commit_elements(store, {"squares": table()})


def test_things_that_are_no_elements_are_refused(store) -> None:
    with pytest.raises(InputError, match=r"`x` is a list; wanted a SpatialData element"):
        commit_elements(store, {"x": [1, 2]})


def test_attributes_are_merged_by_name(store) -> None:
    write_attrs(store, {"new": {"a": [1, 2.5, None]}, "spatialdata_attrs": {"version": "evil"}})
    assert read_attrs(store) == {"spatialsig": {"sample": "S1"}, "new": {"a": [1, 2.5, None]}}
    back = sd.read_zarr(store)
    assert back.attrs == read_attrs(store)
    assert zarr.open_group(store, mode="r", use_consolidated=True).attrs["new"] == {"a": [1, 2.5, None]}
    assert "tables/table" in consolidated(store)
    write_attrs(store, {"new": 1})
    assert read_attrs(store)["new"] == 1


@pytest.mark.parametrize("value", [np.arange(3), float("nan"), {1, 2}, object()])
def test_attributes_that_are_no_json_are_refused(store, value) -> None:
    before = state(store)
    with pytest.raises(InputError, match=r"attribute 'bad' cannot be stored as JSON"):
        write_attrs(store, {"good": 1, "bad": value})
    assert state(store) == before


def test_what_is_no_store_is_named(tmp_path) -> None:
    with pytest.raises(FileMissingError, match=r"SpatialData store: missing .*nowhere"):
        read_attrs(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"no zarr.json in it"):
        commit_elements(tmp_path, {"squares": squares()})
    zarr.open_group(tmp_path / "g.zarr", mode="w")
    with pytest.raises(StoreError, match=r"attribute 'spatialdata_attrs' is missing"):
        write_attrs(tmp_path / "g.zarr", {})
    (tmp_path / "old.zarr").mkdir()
    (tmp_path / "old.zarr/.zgroup").touch()
    with pytest.raises(StoreError, match=r"Zarr format 2; read it with spatialdata and write it again"):
        read_attrs(tmp_path / "old.zarr")
    (tmp_path / "g.zarr/zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"is damaged"):
        read_attrs(tmp_path / "g.zarr")


def test_committing_says_nothing(store) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        commit_elements(store, {"table": table(9), "he": image(260, 270)})


def test_a_reader_sees_that_a_commit_took_itself_back(store, monkeypatch) -> None:
    """The root is the very file that it was, but what was read meanwhile may be of the other state."""
    before, root = snapshot._identity_of_root(store), (store / "zarr.json").stat()
    monkeypatch.setattr(swap, "consolidate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        commit_elements(store, {"squares": squares(8)})
    after = (store / "zarr.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (root.st_ino, root.st_mtime_ns)
    assert snapshot._identity_of_root(store) != before
