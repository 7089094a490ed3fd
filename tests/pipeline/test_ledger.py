from pathlib import Path

from spatialsig.pipeline.ledger import Ledger


def play(path: Path, parameters: dict[str, int]) -> list[str]:
    """Run the steps of a pipeline; which of them were done?"""
    ledger, ran = Ledger(path), []
    for step, value in parameters.items():
        digest = ledger.digest(step, value)
        if not ledger.is_done(step, digest):
            ledger.start(step)
            ran.append(step)
            ledger.finish(step, digest, [f"warned in {step}"], 0.1)
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
    ledger.digest("a", 1)
    ledger.start("b")  # killed here
    assert play(path, {"a": 1, "b": 2, "c": 3}) == ["b", "c"]


def test_warnings_of_skipped_steps_are_kept(tmp_path: Path) -> None:
    play(tmp_path / "steps.json", {"a": 1, "b": 2})
    assert Ledger(tmp_path / "steps.json").warnings() == ["warned in a", "warned in b"]
