from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd

from spatialsig._hashing import json_hash
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.slide.ledger import Ledger, data_hash, run_hash
from spatialsig.slide.slides import Slide

OPTIONS = {"patches_key": "patches", "signatures_key": "signatures", "use_rep": "X_ae", "table_key": "table"}


def play(path: Path, parameters: dict[str, int]) -> list[str]:
    """Run the steps of a pipeline; which of them were done?"""
    ledger, ran, digest = Ledger(path), [], ""
    for step, value in parameters.items():
        digest = json_hash([digest, step, value])
        if not ledger.holds(step, digest):
            ledger.forget(list(parameters)[list(parameters).index(step) :])
            ran.append(step)
            ledger.note(step, digest, warnings=[f"warned in {step}"], seconds=0.1)
    return ran


def test_only_what_changed_and_what_follows_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "steps.json"
    assert play(path, {"a": 1, "b": 2, "c": 3}) == ["a", "b", "c"]
    assert play(path, {"a": 1, "b": 2, "c": 3}) == []
    assert play(path, {"a": 1, "b": 9, "c": 3}) == ["b", "c"]
    assert play(path, {"a": 1, "b": 2, "c": 3}) == ["b", "c"]


def test_a_run_that_stopped_goes_on_at_the_unfinished_step(tmp_path: Path) -> None:
    path = tmp_path / "steps.json"
    play(path, {"a": 1, "b": 2, "c": 3})
    ledger = Ledger(path)
    ledger.forget(["b", "c"])  # killed here
    assert play(path, {"a": 1, "b": 2, "c": 3}) == ["b", "c"]


def test_warnings_of_skipped_steps_are_kept(tmp_path: Path) -> None:
    play(tmp_path / "steps.json", {"a": 1, "b": 2})
    assert Ledger(tmp_path / "steps.json").values("warnings") == {"a": ["warned in a"], "b": ["warned in b"]}


def test_files_of_both_forms_are_read(tmp_path: Path) -> None:
    path = tmp_path / "steps.json"
    path.write_text('{"fold-0": "h0", "train": {"digest": "h1", "warnings": ["w"], "seconds": 2.5}}')
    ledger = Ledger(path)
    assert ledger.holds("fold-0", "h0")
    assert ledger.holds("train", "h1")
    assert not ledger.holds("fold-0", "h1")
    assert not ledger.holds("fold-1", "h0")
    assert ledger.values("seconds") == {"train": 2.5}
    ledger.note("fold-1", "h2")
    assert Ledger(path).holds("fold-1", "h2")
    assert Ledger(path).values("warnings") == {"train": ["w"]}


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text("{")
    with pytest.raises(InputError, match=r"steps\.json is damaged .*Remove it: the run begins again"):
        Ledger(tmp_path / "steps.json")


@pytest.mark.parametrize("name", ["digest", "warnings", "seconds", "left", "failed", "whole"])
@pytest.mark.parametrize("value", [None, True, 5, "x", [1], {"a": 1}, {"a": ["b"]}])
def test_a_value_of_another_kind_is_named_with_its_part(tmp_path: Path, name: str, value: object) -> None:
    right = {"seconds": 5, "digest": "x", "whole": "x"}
    (tmp_path / "steps.json").write_text(
        json.dumps({"train": value if name == "whole" else {"digest": "h", name: value}})
    )
    if right.get(name, "nothing") == value:
        Ledger(tmp_path / "steps.json")
        return
    named = "digest" if name == "whole" else name
    with pytest.raises(InputError, match=rf"steps\.json is damaged: `{named}` of 'train' is .*; wanted .*Remove it"):
        Ledger(tmp_path / "steps.json")


@pytest.fixture
def embedded(patched: sd.SpatialData) -> sd.SpatialData:
    table = patched["signatures"]
    table.obsm["X_ae"] = np.ones((table.n_obs, 2), np.float32)
    table.obsm["X_other"] = np.ones((table.n_obs, 2), np.float32)
    patched["table"].var["highly_variable"] = True
    del patched.attrs["spatialsig"]["lineage"]  # the hash must know every change, also of what carries no record
    return patched


def change_label(sdata: sd.SpatialData) -> None:
    sdata["signatures"].X[0, 0] = 9.0


def change_cells(sdata: sd.SpatialData) -> None:
    sdata["signatures"].obs.iloc[0, sdata["signatures"].obs.columns.get_loc("n_cells")] = 999


def change_embedding(sdata: sd.SpatialData) -> None:
    sdata["signatures"].obsm["X_ae"][3, 1] = 2.0


def change_counts(sdata: sd.SpatialData) -> None:
    sdata["table"].X.data[5] += 1


def move_count(sdata: sd.SpatialData) -> None:
    sdata["table"].X.indices[0] += 1


def change_genes(sdata: sd.SpatialData) -> None:
    sdata["table"].var.iloc[0, sdata["table"].var.columns.get_loc("highly_variable")] = False


def rename_label(sdata: sd.SpatialData) -> None:
    sdata["signatures"].var_names = [f"{name}2" for name in sdata["signatures"].var_names]


def move_patch(sdata: sd.SpatialData) -> None:
    sdata["patches"].iloc[0, sdata["patches"].columns.get_loc("x0")] += 1


def change_fold(sdata: sd.SpatialData) -> None:
    Slide(sdata).attrs["split"] = {"by": "slide", "fold": 1}


@pytest.mark.parametrize(
    "change",
    [
        change_label, change_cells, change_embedding, change_counts, move_count, change_genes, rename_label, move_patch,
        change_fold,
    ],
)  # fmt: skip
def test_what_a_run_reads_counts(embedded: sd.SpatialData, change: Callable[[sd.SpatialData], None]) -> None:
    before = data_hash(embedded, **OPTIONS)
    assert data_hash(sd.deepcopy(embedded), **OPTIONS) == before
    change(embedded)
    assert data_hash(embedded, **OPTIONS) != before


def test_what_a_run_does_not_read_does_not_count(embedded: sd.SpatialData) -> None:
    before = data_hash(embedded, **OPTIONS)
    embedded["signatures"].obsm["X_other"][0, 0] = 5
    embedded["table"].obs["note"] = "seen"
    assert data_hash(embedded, **OPTIONS) == before
    narrow = OPTIONS | {"use_rep": None, "table_key": None}
    before = data_hash(embedded, **narrow)
    change_embedding(embedded)
    change_counts(embedded)
    change_genes(embedded)
    assert data_hash(embedded, **narrow) == before
    change_label(embedded)
    assert data_hash(embedded, **narrow) != before


def test_one_hash_per_slide(embedded: sd.SpatialData) -> None:
    (only,) = data_hash(embedded, **OPTIONS)
    assert len(only) == 64
    del embedded.tables["signatures"]
    with pytest.raises(KeyMissingError, match=r"`signatures_key='signatures'` is not in .*sp.tl.aggregate_patches"):
        data_hash(embedded, **OPTIONS)


def test_parameters_in_any_order_are_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_hash({"a": 1, "b": [2, 3]}) == run_hash({"b": [2, 3], "a": 1})
    assert len({run_hash(p) for p in ({"a": 1}, {"a": 2}, {"a": "1"}, {"a": None}, {})}) == 5
    before = run_hash({"a": 1})
    monkeypatch.setattr("spatialsig.slide.ledger.version", lambda _: "9.9.9")
    assert run_hash({"a": 1}) != before
