"""The other processes of a run on one machine, which do nothing but train: the script that asked for them runs once.

Floor 3, above data, models. Used by train/loop, train/rank.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch import distributed

from spatialsig._settings import settings
from spatialsig.errors import TrainingError
from spatialsig.train.checkpoint import random_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lightning.pytorch import Trainer

CHILD = "spatialsig.train.rank"  # module that is run
START_S, END_S = 600.0, 120.0  # for the others to be ready, and to end once this one has
LOOK_S = 0.1
LINES = 12  # of what a process said before it failed


def starts_others(trainer: Trainer) -> bool:
    """Whether a run needs more processes on this machine, which neither torchrun nor a cluster has started."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return trainer.world_size > 1 and environment is not None and not environment.creates_processes_externally


@contextmanager
def others(n_local: int, job: Mapping[str, Any]) -> Iterator[None]:
    """Let ``n_local - 1`` further processes run ``fit(**job)`` while a block does so in this one, which is the first.

    Raises
    ------
    TrainingError
        If one of them fails; with what it said last.
    """
    place = {
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", "127.0.0.1"),
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(find_free_network_port())),
        "NODE_RANK": os.environ.get("NODE_RANK", "0"),
    }
    before = {name: os.environ.get(name) for name in (*place, "LOCAL_RANK")}
    with tempfile.TemporaryDirectory(prefix="spatialsig-processes-") as folder:
        file = Path(folder, "job")
        with file.open("wb") as stream:
            torch.save(
                {
                    "job": dict(job),
                    "seed": torch.initial_seed(),
                    "random": random_state(),
                    "settings": asdict(settings),
                },
                stream,
            )
        started: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(1, n_local):
                started.append(_start(file, rank, os.environ | place))
            os.environ.update(place, LOCAL_RANK="0")
            _await(started, file)
            yield
            _end(started, file)
        except RuntimeError as error:  # a connection that was closed
            _end(started, file, error)
            raise
        finally:
            for process in started:
                process.kill()
                process.wait()
            if distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()
            for name, value in before.items():
                os.environ.pop(name, None)
                os.environ.update({} if value is None else {name: value})


def _start(job: Path, rank: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with _said(job, rank).open("wb") as said:
        command = [sys.executable, "-m", CHILD, str(job)]
        return subprocess.Popen(command, env={**environment, "LOCAL_RANK": str(rank)}, stdout=said, stderr=said)


def _await(started: list[subprocess.Popen[bytes]], job: Path) -> None:
    """Wait until all are about to train: to wait for each other is no longer possible to interrupt."""
    until = time.monotonic() + START_S
    for rank, process in enumerate(started, 1):
        while not ready_file(job, rank).exists():
            if process.poll() is not None or time.monotonic() > until:
                raise TrainingError(_failure(job, rank))
            time.sleep(LOOK_S)


def _end(started: list[subprocess.Popen[bytes]], job: Path, error: Exception | None = None) -> None:
    """Wait until all have ended, and raise where one of them failed."""
    for rank, process in enumerate(started, 1):
        try:
            failed = process.wait(END_S if error is None else LOOK_S * 50) != 0
        except subprocess.TimeoutExpired:
            failed = error is None
        if failed:
            raise TrainingError(_failure(job, rank)) from error


def ready_file(job: Path, rank: int) -> Path:
    """File that a process makes when it is about to train."""
    return job.with_name(f"ready-{rank}")


def _said(job: Path, rank: int) -> Path:
    return job.with_name(f"said-{rank}")


def _failure(job: Path, rank: int) -> str:
    last = _said(job, rank).read_text(errors="replace").splitlines()[-LINES:]
    return f"process {rank} of the run failed, which ended the others; it said last:\n" + "\n".join(last)
