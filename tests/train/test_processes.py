"""A run on several devices repeats nothing but the training, and ends as one process with the double batch does."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import distributed

from spatialsig.errors import TrainingError
from spatialsig.train import processes
from spatialsig.train.loop import TrainerConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import training_kills as kills

OPTIONS = {"config": kills.AutoencoderConfig(hidden=(16,), n_latent=3, dropout=0.0)}
PLACE = ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


@pytest.mark.timeout(200)
@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_with_the_double_batch(tmp_path: Path) -> None:
    before = {name: os.environ.get(name) for name in PLACE}
    two = TrainerConfig(precision="32", devices=2)
    _, of_two = kills.train_autoencoder(tmp_path / "two", two, batch_size=32, **OPTIONS)
    assert {name: os.environ.get(name) for name in PLACE} == before
    assert not distributed.is_initialized()
    one = TrainerConfig(precision="32")
    _, of_one = kills.train_autoencoder(tmp_path / "one", one, batch_size=64, **OPTIONS)
    for column in ("train_loss", "val_loss", "lr"):
        np.testing.assert_allclose(of_two[column], of_one[column], atol=1e-4, err_msg=column)
    _, rows = kills.train_autoencoder(tmp_path / "two", two, batch_size=32, **OPTIONS)  # the run has ended
    assert rows.equals(of_two)


def test_a_process_that_cannot_start_ends_the_run_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_start", started(processes._start, "-c", "import sys; sys.exit('no such library')"))
    with pytest.raises(TrainingError, match=r"process 1 of the run failed, .* it said last:\nno such library"):
        kills.train_autoencoder(None, TrainerConfig(precision="32", devices=2), batch_size=32, **OPTIONS)
    assert "LOCAL_RANK" not in os.environ


def started(start, *words: str):
    def instead(job: Path, rank: int, environment):
        with pytest.MonkeyPatch.context() as patch:
            plain = processes.subprocess.Popen
            patch.setattr(
                processes.subprocess, "Popen", lambda _, **options: plain([sys.executable, *words], **options)
            )
            return start(job, rank, environment)

    return instead
