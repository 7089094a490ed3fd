"""Checkpoints of a training run while it runs, from which it resumes exactly.

Floor 3, above data, models. Used by train/loop, train/processes, train/rank.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback

from spatialsig.errors import FileMissingError
from spatialsig.nn.device import Trim
from spatialsig.train.checkpoint_file import (
    DIRECTORY,
    PlainCheckpointIO,
    checkpoint_files,
    checkpoint_path,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from spatialsig.train.distributed import gathered, largest_over_ranks, own
from spatialsig.train.run_fingerprint import check_same_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightning.pytorch import LightningModule, Trainer

    from spatialsig.train.epoch_history import History
    from spatialsig.train.trainer_config import TrainerConfig

STOPPING = (signal.SIGTERM, signal.SIGUSR1)  # what a cluster sends before it takes the machine away
_SAVE = 1  # below every signal's number
_FINISHED = "finished"


class Checkpoints(Callback):
    """Checkpoints of one run.

    Parameters
    ----------
    directory
        Where they are kept: the newest whole one, and the one before until a new one is whole. None keeps none.
    config
        How often, and from where to resume.
    """

    def __init__(self, directory: Path | None, config: TrainerConfig) -> None:
        self.directory, self.config = directory, config
        self.identity: dict[str, Any] = {}  # what the run is; a checkpoint with another one is refused
        self.io = PlainCheckpointIO(self._keep)
        self._kept: list[Path] = []
        self._random: dict[str, Any] | None = None
        self._trainer: Trainer | None = None
        self._written_at = time.monotonic()
        self._signal = 0
        self._handlers = {number: signal.getsignal(number) for number in STOPPING}

    def resumed(self) -> tuple[Path, dict[str, Any]] | None:
        """The checkpoint to resume from.

        Raises
        ------
        FileMissingError, InputError
            If the one asked for is not there or damaged, or the one found is that of another run.
        """
        found = find_checkpoint(self.directory, self.config)
        if found is not None:
            check_same_run(found[1]["callbacks"]["Checkpoints"]["identity"], self.identity, path=found[0])
            self._kept = [found[0]]
        return found

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to the cluster, in place of the handlers that Lightning has set just before."""
        self._trainer, self._written_at = trainer, time.monotonic()
        if self._random is None and trainer.global_rank:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)  # each process drops out something else
        if self.directory is None:
            return
        if self.config.resume == "never" and trainer.is_global_zero:
            self._clear(keep=[])
        if _may_listen():
            for number in STOPPING:
                signal.signal(number, self._note)

    def stop_listening(self) -> None:
        """Restore the handlers of signals that were set before the run."""
        for number, handler in self._handlers.items():
            if handler is not None and _may_listen():
                signal.signal(number, handler)

    def state_dict(self) -> dict[str, Any]:
        """Identity, and the random generators of all processes."""
        return {"identity": self.identity, "random": gathered(random_state())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the generators' states until the first batch is asked for."""
        self._random = own(state_dict["random"])

    def between_steps(self, position: int) -> None:
        """Save if it is time to; end the process if it was told to.

        Raises
        ------
        SystemExit
            128 plus the number of the signal, after a checkpoint.
        """
        if self._random is not None:
            set_random_state(self._random)
            self._random = None
            return
        trainer = self._trainer
        if trainer is None or self.directory is None or position % self.config.accumulate:
            return
        due = position == 0 or time.monotonic() - self._written_at >= 60 * self.config.checkpoint_minutes
        wanted = largest_over_ranks(self._signal or _SAVE * due, trainer.strategy.root_device)
        if wanted:
            trainer.save_checkpoint(checkpoint_path(self.directory, trainer.global_step))
            self._written_at = time.monotonic()
        if wanted > _SAVE:
            raise SystemExit(128 + wanted)

    def finish(self, trainer: Trainer, module: LightningModule, history: History) -> None:
        """Replace the checkpoints by one of the finished run."""
        if self.directory is None:
            return
        state = {"identity": self.identity, "random": []}
        seen = history.state_dict() | {"best_state": None}
        if not trainer.is_global_zero:
            return
        tree = {
            _FINISHED: True,
            "state_dict": module.state_dict(),
            "callbacks": {"Checkpoints": state, "History": seen},
        }
        path = checkpoint_path(self.directory, trainer.global_step)
        write_checkpoint(path, tree)
        self._clear(keep=[path])

    def _note(self, number: int, _: Any) -> None:
        self._signal = number

    def _keep(self, path: Path) -> None:
        self._kept = [*(kept for kept in self._kept[-1:] if kept != path), path]
        self._clear(keep=self._kept)

    def _clear(self, *, keep: list[Path]) -> None:
        if self.directory is None:
            return
        halves = [
            *self.directory.glob("step-*.partial"),
            *self.directory.glob(".step-*"),
        ]  # the latter of early versions
        for path in (*checkpoint_files(self.directory), *halves):
            if path not in keep:
                path.unlink(missing_ok=True)


class CheckpointedBatches:
    """Batches as Lightning asks for them: between two of them nothing is half done, and a checkpoint can be written.

    Parameters
    ----------
    batches
        What to hand out; with ``set_epoch``, and ``state_dict`` and ``load_state_dict`` of a dict with ``epoch`` and
        ``position`` (batches of the epoch that were handed out).
    checkpoints
        Called before each batch.
    history
        Told how long the batches were waited for, and on resuming how many have been seen.
    """

    def __init__(self, batches: Any, checkpoints: Checkpoints, history: History) -> None:
        self.batches, self.checkpoints, self.history = batches, checkpoints, history
        self.epoch = self.position = 0

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, which begins at its first batch."""
        self.epoch, self.position = epoch, 0
        self.batches.set_epoch(epoch)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of one epoch, from where the run stands."""
        batches, trim = iter(self.batches), Trim()
        while True:
            self.checkpoints.between_steps(self.position)
            trim.now_and_then()
            asked = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.history.waited += time.monotonic() - asked
            self.position += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Where this pass stands; counted here, since others may have iterated over the batches before the run."""
        return {**self.batches.state_dict(), "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass begin there."""
        self.batches.load_state_dict(state)
        self.epoch, self.position = state["epoch"], state["position"]
        self.history.bar.advance(len(self.history.rows) * len(self) + self.position)


def _may_listen() -> bool:
    """Whether this is the thread in which Python takes signals."""
    return threading.current_thread() is threading.main_thread()


def find_checkpoint(directory: Path | None, config: TrainerConfig) -> tuple[Path, dict[str, Any]] | None:
    """Path and content of the checkpoint that a run in ``directory`` resumes from; None where it starts."""
    if config.resume == "never":
        return None
    if config.resume == "auto":
        return None if directory is None else newest_checkpoint(directory)
    path = Path(config.resume)
    if not path.is_dir():
        return path, read_checkpoint(path)
    found = newest_checkpoint(path / DIRECTORY) or newest_checkpoint(path)
    if found is None:
        msg = f"`resume={str(path)!r}` holds no whole checkpoint; choose a file, a `run_dir`, 'auto' or 'never'."
        raise FileMissingError(msg)
    return found


def is_finished(checkpoint: dict[str, Any]) -> bool:
    """Whether a checkpoint is the end of its run."""
    return bool(checkpoint.get(_FINISHED))


def random_state() -> dict[str, Any]:
    """State of every random generator of this process."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": np.random.get_state(),  # noqa: NPY002 - the global generator that other packages may draw from
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Give every generator a state of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, key, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(key), *rest))  # noqa: NPY002 - as above
    random.setstate(state["python"])
