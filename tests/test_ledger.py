from pathlib import Path

from spatialsig._hashing import json_hash
from spatialsig._ledger import Ledger


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
