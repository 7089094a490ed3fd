"""`spatialsig status` of a run that was killed: what is done, and what comes next."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from spatialsig.cli import app
from spatialsig.pipeline import RunConfig, progress_of
from spatialsig.pipeline.run_files import RunFiles
from spatialsig.pipeline.run_step import ALWAYS
from spatialsig.pipeline.run_steps import Job
from spatialsig.slide.ledger import Ledger


@pytest.fixture
def out(tmp_path: Path) -> Path:
    RunFiles(tmp_path).stores.mkdir()
    return tmp_path


def note(out: Path, *parts: str) -> None:
    ledger = Ledger(RunFiles(out).ledger)
    for part in parts:
        ledger.note(part, "digest", **({} if part.startswith("slide ") else {"seconds": 1.0}))


def test_the_names_of_steps_are_those_of_a_run(tmp_path: Path) -> None:
    config = RunConfig(bundles=tmp_path / "b.csv", out=tmp_path)
    assert tuple(step.name for step in Job(config, Ledger(tmp_path / "steps.json")).steps()) == ALWAYS


def test_a_run_that_was_killed_in_its_first_step(out: Path) -> None:
    nothing = [
        "begun: import bundles; 0 slides read",
        "next: import bundles; `spatialsig run` with the configuration of this run goes on there",
    ]
    assert progress_of(out) == nothing
    assert CliRunner().invoke(app, ["status", str(out)]).stdout.splitlines() == nothing
    note(out, "slide S1", "slide S2")
    assert progress_of(out)[0] == "begun: import bundles; 2 slides read: S1, S2"
    RunFiles(out).stores.rmdir()
    told = CliRunner().invoke(app, ["status", str(out)])
    assert (told.exit_code, told.stdout.splitlines()[0]) == (0, "begun: import bundles; 2 slides read: S1, S2")


@pytest.mark.parametrize("done", range(1, len(ALWAYS)))
def test_a_run_that_was_killed_later(done: int, out: Path) -> None:
    note(out, "slide S1", *ALWAYS[:done])
    assert progress_of(out) == [f"done: {step} (1 s)" for step in ALWAYS[:done]] + [
        f"next: {ALWAYS[done]}; `spatialsig run` with the configuration of this run goes on there"
    ]


def test_a_run_that_lacks_its_report_or_nothing(out: Path) -> None:
    note(out, *ALWAYS)
    assert progress_of(out)[-1] == "next: the report; `spatialsig report` writes it"
    RunFiles(out).report.write_text("<html>")
    assert len(progress_of(out)) == len(ALWAYS)
