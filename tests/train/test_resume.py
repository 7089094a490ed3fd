"""A training that is killed goes on as if nothing had happened."""

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from spatialsig.train.checkpoint_file import checkpoint_files, read_checkpoint, write_checkpoint
from spatialsig.train.loop import TrainerConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import training_kills as kills

EVERY_STEP = TrainerConfig(checkpoint_minutes=1e-9)
EPOCHS_ONLY = TrainerConfig()
# batches trained on by all children together: those of one training, and what the kills made them repeat
STEPS = {"vit": 21 + 1 + 4 + 1, "autoencoder": 27 + 1 + 2 + 1, "streamed": 27 + 1 + 2 + 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Uninterrupted trainings."""
    log = tmp_path_factory.mktemp("whole")
    return {name: kills.outcome(train, None, EPOCHS_ONLY, log / name) for name, train in kills.TRAININGS.items()}


@pytest.mark.parametrize("name", kills.TRAININGS)
def test_three_kills_leave_no_trace(name: str, whole: dict, tmp_path: Path) -> None:
    """In the first step, in the second epoch after checkpoints at its start and at the start only, and after each step."""
    train, log = kills.TRAININGS[name], tmp_path / "log"
    for step, config in ((1, EPOCHS_ONLY), (11, EPOCHS_ONLY), (4, EVERY_STEP)):
        status = kills.struck(train, tmp_path / "run", config, log, step=step, number=signal.SIGKILL)
        assert os.WTERMSIG(status) == signal.SIGKILL
    found = kills.outcome(train, tmp_path / "run", EPOCHS_ONLY, log)
    assert whole[name].differences(found) == []
    assert len(log.read_text().splitlines()) == STEPS[name]  # it went on, it did not begin again


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of which 10 of 21 steps are done, in the middle of the second epoch."""
    directory = tmp_path_factory.mktemp("stopped")
    kills.struck(kills.train_vit, directory, EPOCHS_ONLY, directory / "log", step=10, number=signal.SIGTERM)
    return directory


def without_random(state: dict) -> None:
    state["callbacks"]["Checkpoints"]["random"] = [kills.random_state()]


def without_average(state: dict) -> None:
    weights = state["state_dict"]
    weights.update({n: weights[n.replace("average.", "net.")] for n in weights if n.startswith("average.")})


def without_losses(state: dict) -> None:
    state["callbacks"]["History"]["losses"] = [None]


def without_moments(state: dict) -> None:
    for moments in state["optimizer_states"][0]["state"].values():
        moments["exp_avg"] *= 0


def without_schedule(state: dict) -> None:
    state["lr_schedulers"][0]["last_epoch"] -= 1


def without_best(state: dict) -> None:
    state["callbacks"]["History"]["rows"][0]["val_pearson"] = 0.5


@pytest.mark.parametrize(
    ("left_out", "seen_in"),
    [
        (without_random, "weights"),
        (without_moments, "optimizer"),
        pytest.param(without_average, "module average", marks=pytest.mark.slow),
        pytest.param(without_losses, "history of epoch 1", marks=pytest.mark.slow),
        pytest.param(without_schedule, "module net", marks=pytest.mark.slow),
        pytest.param(without_best, "history of epoch 0", marks=pytest.mark.slow),
    ],
)
def test_the_comparison_sees_what_a_checkpoint_lacks(
    left_out, seen_in: str, whole: dict, stopped: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    (path,) = checkpoint_files(tmp_path / "run" / "checkpoints")[:1]
    state = read_checkpoint(path)
    left_out(state)
    write_checkpoint(path, state)
    found = kills.outcome(kills.train_vit, tmp_path / "run", EPOCHS_ONLY, tmp_path / "run" / "log")
    assert any(name.startswith(seen_in) for name in whole["vit"].differences(found))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_warning_of_the_cluster_stops_after_the_step_with_a_checkpoint(
    number: int, whole: dict, tmp_path: Path
) -> None:
    train, log = kills.train_vit, tmp_path / "log"
    status = kills.struck(train, tmp_path / "run", EPOCHS_ONLY, log, step=10, number=number)
    assert os.WEXITSTATUS(status) == 128 + number
    newest = checkpoint_files(tmp_path / "run" / "checkpoints")[0]
    assert newest.stem == "step-000000010"
    found = kills.outcome(train, tmp_path / "run", EPOCHS_ONLY, log)
    assert whole["vit"].differences(found) == []
