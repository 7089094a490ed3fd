"""Two runs in one directory: the second is refused at once and told who is first; a lock that a dead process left is taken over."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import SpatialsigError, StoreError
from spatialsig.pipeline import RunConfig, report_of, run
from spatialsig.store import lock
from spatialsig.store.lock import file_lock, lock_file, run_lock

from .store.conftest import dead_pid

SIZE = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
FIT = {"size": SIZE, "max_epochs": 1}


def _run(_: sd.SpatialData, place: Path) -> None:
    (place.parent / "b.csv").write_text("sample,patient,he_image,bundle\nS1,P1,,b1\nS2,P2,,b2\n")
    run(RunConfig(bundles=place.parent / "b.csv", out=place, split={"n_folds": 2}))


def _report(_: sd.SpatialData, place: Path) -> None:
    (place / "stores").mkdir(exist_ok=True)
    (place / "evaluation.csv").write_text("sample,method\n")
    report_of(place)


# everything that works in a directory of its own
JOBS: dict[str, Callable[[sd.SpatialData, Path], Any]] = {
    "spatialsig run": _run,
    "spatialsig report": _report,
    "tl.evaluate": lambda study, place: sp.tl.evaluate(study, sp.datasets.toy_model(study), run_dir=place),
    "tl.train_vit": lambda study, place: sp.tl.train_vit(study, run_dir=place, use_rep=None, **FIT),
    "tl.pretrain_vit": lambda study, place: sp.tl.pretrain_vit(study, run_dir=place, **FIT),
    "tl.train_ensemble": lambda study, place: sp.tl.train_ensemble(
        study, n_members=2, run_dir=place, use_rep=None, **FIT
    ),
    "tl.cross_validate": lambda study, place: sp.tl.cross_validate(study, run_dir=place, use_rep=None, **FIT),
    "tl.train_autoencoder": lambda study, place: sp.tl.train_autoencoder(
        study, signatures="seed", run_dir=place, n_latent=4, hidden=(8,), max_epochs=1
    ),
}


@pytest.fixture(scope="module")
def study() -> sd.SpatialData:
    return sp.datasets.toy_study()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def held_by(place: Path, **changes: Any) -> Path:
    """Lock of a directory as another process leaves it."""
    file = lock_file(place / lock._RUN)
    file.write_text(json.dumps(lock._entry("abc", "first") | {"since": "now"} | changes))
    return file


def outcome(job: Callable[[], Any]) -> str:
    """What a job says when it is refused; empty where it is not."""
    try:
        job()
    except SpatialsigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("job", JOBS)
def test_the_second_is_refused_at_once_and_nothing_is_written(job: str, study: sd.SpatialData, place: Path) -> None:
    file = held_by(place, pid=os.getppid(), started=lock.started_at(os.getppid()))
    with pytest.raises(
        StoreError, match=rf"run' is in use by another process: first, pid {os.getppid()} on '.*' since now; .*remove '"
    ):
        JOBS[job](study, place)
    assert {path.name for path in place.iterdir()} <= {file.name, "stores", "evaluation.csv"}


@pytest.mark.parametrize("job", JOBS)
def test_a_lock_of_a_dead_process_is_taken_over(job: str, study: sd.SpatialData, place: Path) -> None:
    file = held_by(place, pid=dead_pid())
    assert "in use" not in outcome(
        lambda: JOBS[job](study, place)
    )  # of a run whose bundles are none, and a report without slides
    assert not file.exists()


def test_of_another_host_it_is_said_how_to_remove_it(place: Path) -> None:
    file = held_by(place, host="node7")
    told = (
        rf"on 'node7'.*if that process no longer exists \(which '{socket.gethostname()}' cannot see\), remove '{file}'"
    )
    with pytest.raises(StoreError, match=told), run_lock(place, "second"):
        pass


@pytest.mark.parametrize("held", [{"pid": "x"}, {"pid": None}, {"boot": "before", "token": None}, {"pid": -1}])
def test_a_damaged_lock_is_held_or_taken_over_and_nothing_else(place: Path, held: dict[str, Any]) -> None:
    held_by(place, **held)

    def second() -> None:
        with run_lock(place, "second"):
            pass

    told = outcome(second)
    assert not told or "remove" in told


def test_a_second_thread_is_refused_and_the_same_one_may_again(place: Path) -> None:
    told: list[str] = []

    def second() -> None:
        try:
            with run_lock(place, "second"):
                told.append("both")
        except StoreError as error:
            told.append(str(error))

    with run_lock(place, "first"), run_lock(place, "again"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        with file_lock(place / "report.html", "beside"):
            pass
    assert len(told) == 1
    assert f"first, pid {os.getpid()}" in told[0]
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_lock_that_does_not_say_whose_it_is_is_called_damaged(
    text: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_FILLED_S", 0.0)
    file = lock_file(place / lock._RUN)
    file.write_text(text)
    with (
        pytest.raises(StoreError, match=r"its lock file does not say by which, as it is damaged.* remove '"),
        lock.run_lock(place, "x"),
    ):
        pass
