"""Fit of any module by a quiet Lightning trainer that resumes where it was stopped and ends on NaN.

Floor 3, above data, models. Used by 6 modules of inference, train.
"""

from __future__ import annotations

import logging
import random
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from spatialsig.errors import InputError, TrainingError
from spatialsig.nn.device import choose_device, fast_matmul, training_precision
from spatialsig.store.lock import run_lock
from spatialsig.train.checkpoint import CheckpointedBatches, Checkpoints, find_checkpoint, is_finished
from spatialsig.train.checkpoint_file import DIRECTORY
from spatialsig.train.distributed import shared_batches, synchronised_norms
from spatialsig.train.epoch_history import COLUMNS, History, kept_network
from spatialsig.train.processes import others, starts_others
from spatialsig.train.run_fingerprint import batches_fingerprint, module_fingerprint
from spatialsig.train.trainer_config import PRECISIONS, TrainerConfig

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from torch import Tensor

__all__ = ["COLUMNS", "History", "TrainerConfig", "check_finite", "fit", "kept_network", "reproducible", "resumes"]


def check_finite(loss: Tensor, *, epoch: int, step: int, learning_rate: float) -> Tensor:
    """Return ``loss``, or raise :class:`TrainingError` naming epoch and step when it is NaN or infinite."""
    if not bool(torch.isfinite(loss)):
        msg = (
            f"the loss became {float(loss.detach())} in epoch {epoch}, step {step}. Lower "
            f"`learning_rate={learning_rate:g}`, and look for extreme values in the input."
        )
        raise TrainingError(msg)
    return loss


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed the generators of torch, numpy and Python for a block and give them back as they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    before = np.random.get_state(), random.getstate()  # noqa: NPY002 - the global ones, which other packages draw from
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - as above
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before[0])  # noqa: NPY002 - as above
            random.setstate(before[1])


def resumes(run_dir: str | os.PathLike[str] | None, trainer: TrainerConfig | None) -> bool:
    """Whether :func:`fit` will resume from a checkpoint, so that the weights need no start of their own."""
    config = TrainerConfig() if trainer is None else trainer
    return find_checkpoint(_directory(None if run_dir is None else Path(run_dir)), config) is not None


def fit(
    module: LightningModule,
    batches: Any,
    *,
    validation: Any,
    history: History,
    max_epochs: int,
    clip: float | None,
    trainer: TrainerConfig | None = None,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Train ``module`` and leave the best weights in its :func:`kept_network`.

    Checkpoints are kept beside the file of ``history``. A run that was stopped resumes from the newest one exactly
    as it would have; one that has ended is not repeated.

    Parameters
    ----------
    module
        With ``net`` (and ``average``); ``n_steps``, where it has such, becomes the number of steps of the optimiser.
    batches, validation
        Batches of one process; each of several takes its part of ``batches``, and of ``validation`` where ``module`` has
        ``shares_validation`` and gathers what it measures (otherwise each validates on all).
    history
        Records the epochs.
    max_epochs, clip
        Passes over the batches, largest norm of the gradient.
    trainer
        How to run; None takes the default.
    identity
        What else (names of genes, of scores) a checkpoint must agree in.

    Raises
    ------
    TrainingError
        If the loss becomes NaN.
    InputError
        If the checkpoint is of another run.
    SystemExit
        After a checkpoint, when the process is told to stop (SIGTERM: 143, SIGUSR1: 138).
    """
    config = TrainerConfig() if trainer is None else trainer
    job = {
        "module": module, "batches": batches, "validation": validation, "history": history,
        "max_epochs": max_epochs, "clip": clip, "trainer": config, "identity": dict(identity or {}),
    }  # fmt: skip
    with _quiet(), fast_matmul():
        n_local = _n_local(config, history, max_epochs=max_epochs, clip=clip)
        with others(n_local, job) if n_local > 1 else nullcontext():
            _fit(**job)


def _n_local(config: TrainerConfig, history: History, **limits: Any) -> int:
    """Processes of the run on this machine that nobody else starts, this one among them."""
    if config.devices == 1:
        return 1
    trainer = _trainer(config, history, Checkpoints(None, config), **limits)
    return trainer.num_devices if starts_others(trainer) else 1


def _fit(
    module: LightningModule, batches: Any, validation: Any, history: History, max_epochs: int, clip: float | None,
    trainer: TrainerConfig, identity: dict[str, Any],
) -> None:  # fmt: skip
    """Train in this process, alone or as one of several, of which the first holds the directory of the run."""
    checkpoints = Checkpoints(_directory(None if history.csv is None else history.csv.parent), trainer)
    lightning = _trainer(trainer, history, checkpoints, max_epochs=max_epochs, clip=clip)
    place = None if history.csv is None or not lightning.is_global_zero else history.csv.parent
    if trainer.logger is None:
        history.csv = None
    with nullcontext() if place is None else run_lock(place, "training"):
        _train(lightning, checkpoints, module, batches, validation, history, trainer, identity)


def _train(
    lightning: Trainer, checkpoints: Checkpoints, module: LightningModule, batches: Any, validation: Any, history: History,
    trainer: TrainerConfig, identity: dict[str, Any],
) -> None:  # fmt: skip
    """Resume or begin, up to the best weights."""
    place = {"rank": lightning.global_rank, "world_size": lightning.world_size}
    batches = shared_batches(batches, **place)
    if validation is not None and getattr(module, "shares_validation", False):
        validation = shared_batches(validation, **place)
    batches.set_epoch(0)
    if hasattr(module, "n_steps"):
        setattr(module, "n_steps", (lightning.max_epochs or 0) * -(-len(batches) // trainer.accumulate))  # noqa: B010 - no such field here
    checkpoints.identity = _identity(module, batches, validation, lightning, history) | identity
    path, state = checkpoints.resumed() or (None, {})
    if is_finished(state):
        module.load_state_dict(state["state_dict"])
        history.load_state_dict(state["callbacks"]["History"])
        return
    try:
        with synchronised_norms(module, world_size=lightning.world_size):
            steps = CheckpointedBatches(batches, checkpoints, history)
            lightning.fit(module, train_dataloaders=steps, val_dataloaders=validation, ckpt_path=path)
    finally:
        checkpoints.stop_listening()
    if history.best_state is not None:
        kept_network(module).load_state_dict(history.best_state)
    checkpoints.finish(lightning, module, history)


def _directory(run_dir: Path | None) -> Path | None:
    return None if run_dir is None else run_dir / DIRECTORY


def _trainer(
    config: TrainerConfig, history: History, checkpoints: Checkpoints, *, max_epochs: int, clip: float | None
) -> Trainer:
    device = choose_device(None)
    if config.precision == "16" and device.type != "cuda":
        msg = f"`precision='16'` needs a GPU, and the run is on {device.type!r}; choose 'bf16' or '32'."
        raise InputError(msg)
    precision = training_precision(device) if config.precision is None else PRECISIONS[config.precision]
    logger: Any = False
    if config.logger == "tensorboard" and history.csv is not None:
        logger = TensorBoardLogger(history.csv.parent, name="", version="tensorboard")
    return Trainer(
        accelerator="gpu" if device.type == "cuda" else device.type,
        devices=config.devices if device.index is None else [device.index],
        num_nodes=config.num_nodes,
        strategy=config.strategy,
        precision=precision,  # type: ignore[arg-type]
        accumulate_grad_batches=config.accumulate,
        max_epochs=max_epochs,
        gradient_clip_val=clip,
        callbacks=[history, checkpoints],
        plugins=[checkpoints.io],
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _identity(
    module: LightningModule, batches: Any, validation: Any, lightning: Trainer, history: History
) -> dict[str, Any]:
    """Everything that decides the result of a run, besides the names that its caller adds."""
    return {
        **module_fingerprint(module),
        **batches_fingerprint(batches, "training"),
        **batches_fingerprint(validation, "validation"),
        "max_epochs": lightning.max_epochs,
        "clip": lightning.gradient_clip_val,
        "accumulate": lightning.accumulate_grad_batches,
        "precision": lightning.precision,
        "processes": lightning.world_size,
        "best_of": history.best_of,
        "patience": history.patience,
        "seed": torch.initial_seed(),
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what Lightning says about hardware and data loaders: our progress bar and history tell what matters."""
    loggers = [
        logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
