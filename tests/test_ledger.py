from pathlib import Path

import pytest

from spatialsig._hashing import json_hash
from spatialsig._ledger import Ledger
from spatialsig.errors import InputError


def play(path: Path, parameters: dict[str, int]) -> list[str]:
    """Run the steps of a pipeline; which of them were done?"""
    ledger, ran, digest = Ledger(path), [], ""
    for step, value in parameters.items():
        digest = json_hash([digest, step, value])
        if not ledger.holds(step, digest):
            ledger.forget_from(step)
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
    ledger.forget_from("b")  # killed here
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
    with pytest.raises(InputError, match=r"steps\.json is damaged .*; remove it to begin again"):
        Ledger(tmp_path / "steps.json")
