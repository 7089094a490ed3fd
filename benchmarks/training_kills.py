"""Trainings in children that are killed on the way, and everything by which two trainings can be compared."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import traceback
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch
from scipy import sparse
from torch.optim.optimizer import register_optimizer_step_post_hook

from spatialsig._settings import settings
from spatialsig.data.loader import PatchBatches
from spatialsig.data.patches import ImageLevel, PatchSource
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.nn.vit import ViTConfig
from spatialsig.train import cells, fit_autoencoder, fit_vit
from spatialsig.train.autoencoder import AutoencoderModule
from spatialsig.train.cells import CellBatches
from spatialsig.train.checkpoint import Checkpoints, random_state
from spatialsig.train.vit_module import VitModule

__all__ = ["AutoencoderConfig", "CellBatches"]  # besides what is here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from spatialsig.train.loop import TrainerConfig

N_GENES, PX, SIDE = 20, 16, 10
VIT = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=32, stem=(8, 8), stem_blocks=(0, 0))


class StoredLike:
    """Cells that are read when they are asked for, as from a store."""

    def __init__(self, counts: sparse.csr_matrix) -> None:
        self.counts = counts

    n_cells = property(lambda self: self.counts.shape[0])
    nnz = property(lambda self: self.counts.nnz)

    def nnz_of(self, first: int, last: int) -> int:
        return int(self.counts.indptr[last] - self.counts.indptr[first])

    def read(self, first: int, last: int) -> sparse.csr_matrix:
        return self.counts[first:last]


def counts(seed: int, n_cells: int = 300) -> sparse.csr_matrix:
    """Cells of three types."""
    panel, rng = np.random.default_rng(99), np.random.default_rng(seed)
    rate = panel.gamma(0.5, 4.0, (3, N_GENES))[rng.integers(0, 3, n_cells)]
    return sparse.csr_matrix(rng.poisson(rate).astype(np.float32))


def patches(seed: int, **changes: Any) -> PatchBatches:
    """A slide of random patches whose score is their colour, with expression, some of it missing."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(SIDE, SIDE))
    image = rng.normal(150, 15, (3, SIDE * PX, SIDE * PX))
    image[0] += np.kron(25 * score, np.ones((PX, PX)))
    corner = np.arange(SIDE) * PX
    origins = np.stack(np.meshgrid(corner, corner, indexing="ij"), axis=-1).reshape(-1, 2)
    level = ImageLevel(np.clip(image, 0, 255).astype(np.uint8), image.shape[1:])
    target = np.stack([score.ravel(), rng.normal(size=SIDE**2)], axis=1).astype(np.float32)
    ae = rng.normal(size=(SIDE**2, 3)).astype(np.float32)
    ae[::9] = np.nan
    source = PatchSource(f"S{seed}", (level,), origins, PX, PX)
    return PatchBatches([source], targets=[target], **{"ae": [ae], "batch_size": 16, "seed": 5} | changes)


def train_vit(run_dir: Path | None, trainer: TrainerConfig, **changes: Any) -> Any:
    """Three epochs of 7 steps, with expression dropped out at random and a running average."""
    batches = changes.pop("batches", None) or patches(0)
    validation = changes.pop("validation", None) or patches(1, shuffle=False)
    options = {"signatures": ["a", "b"], "size": VIT, "fusion": "gated", "max_epochs": 3} | changes
    return fit_vit(batches, um_per_px=0.5, validation=validation, run_dir=run_dir, trainer=trainer, **options)


def train_autoencoder(run_dir: Path | None, trainer: TrainerConfig, **changes: Any) -> Any:
    """Three epochs of 9 steps, with genes hidden at random."""
    slides = changes.pop("slides", None) or [counts(0), counts(1)]
    config = AutoencoderConfig(hidden=(16,), n_latent=3, dropout=0.2)
    options = {
        "genes": [f"G{k}" for k in range(N_GENES)],
        "config": config,
        "batch_size": 64,
        "max_epochs": 3,
    } | changes
    scaler = {"mean": np.full(N_GENES, 2.0), "std": np.ones(N_GENES)}
    return fit_autoencoder(slides, **scaler, validation=[counts(2)], run_dir=run_dir, trainer=trainer, **options)


def train_streamed(run_dir: Path | None, trainer: TrainerConfig, **changes: Any) -> Any:
    """The same from sources too large for memory, in about five pools an epoch."""
    slides = [StoredLike(counts(0)), StoredLike(counts(1))]
    nnz = sum(slide.nnz for slide in slides)
    with (
        patch.object(settings, "cells_mb", nnz * cells.BYTES_PER_NNZ / 2**20 / 2.5),
        patch("spatialsig.data.cells.BLOCK_NNZ", nnz / 20),
    ):
        return train_autoencoder(run_dir, trainer, slides=slides, **changes)


TRAININGS = {"vit": train_vit, "autoencoder": train_autoencoder, "streamed": train_streamed}


@dataclass
class Outcome:
    """All of a training that must not depend on whether it was killed."""

    weights: dict[str, torch.Tensor]  # those kept
    module: dict[str, torch.Tensor]  # those trained, and their running average
    optimizer: dict[str, torch.Tensor]
    random: list[Any]
    history: list[dict[str, float]]
    order: dict[str, str]  # epoch and step -> hash of the batch

    def differences(self, other: Outcome) -> list[str]:
        """Names of what differs."""
        found = [
            f"history of epoch {k}" for k, (a, b) in enumerate(zip(self.history, other.history, strict=True)) if a != b
        ]
        found += [
            f"batch {key}"
            for key in self.order.keys() | other.order.keys()
            if self.order.get(key) != other.order.get(key)
        ]
        parts = ("weights", "module", "optimizer") if self.module and other.module else ("weights",)
        for part in parts:
            mine, others = getattr(self, part), getattr(other, part)
            found += [f"{part} {n}" for n in mine.keys() | others.keys() if not torch.equal(mine[n], others[n])]
        both = zip(self.random, other.random, strict=False)
        same = all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in both)
        return found + ["random generators"] * (not same)


def outcome(
    train: Callable[..., Any], run_dir: Path | None, trainer: TrainerConfig, log: Path, **changes: Any
) -> Outcome:
    """Train to the end and tell everything; where a child had come to the end, only what is kept."""
    end: dict[str, Any] = {"module": {}, "optimizer": {}, "random": []}
    stop_listening = Checkpoints.stop_listening  # called when the last step is done, before the best weights come back

    def watched(self: Checkpoints) -> None:
        lightning: Any = self._trainer
        states = lightning.optimizers[0].state_dict()["state"]
        end["optimizer"] = {
            f"{k} {name}": torch.as_tensor(v).clone() for k, s in states.items() for name, v in s.items()
        }
        end["module"] = {name: value.clone() for name, value in lightning.lightning_module.state_dict().items()}
        state = random_state()
        end["random"] = [state["torch"], np.asarray(state["numpy"][1], np.int64), np.array(state["python"][1])]
        stop_listening(self)

    with recorded(log), patch.object(Checkpoints, "stop_listening", watched):
        model, history = train(run_dir, trainer, **changes)
    rows = history.drop(columns=["seconds", "busy"]).fillna(-1).to_dict("records")
    weights = {name: value.clone() for name, value in model.net.state_dict().items()}
    order = dict(json.loads(line) for line in log.read_text().splitlines() if line.endswith("]"))
    return Outcome(weights=weights, history=rows, order=order, **end)


@contextmanager
def recorded(log: Path) -> Iterator[None]:
    """Append the hash of every batch that is trained on; the last word on a step counts."""
    with ExitStack() as stack:
        for kind in (VitModule, AutoencoderModule):
            step = kind.training_step

            def watched(self: Any, batch: Any, batch_idx: int, step: Any = step) -> Any:
                which = batch["id"] if isinstance(batch, dict) else batch.z
                line = [f"{self.current_epoch} {batch_idx}", hashlib.md5(which.numpy().tobytes()).hexdigest()]
                with log.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                return step(self, batch, batch_idx)

            stack.enter_context(patch.object(kind, "training_step", watched))
        yield


def child(work: Callable[[], Any]) -> int:
    """Run something in a forked child; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        if code == 1:
            traceback.print_exc()
        os._exit(code)


def struck(
    train: Callable[..., Any], run_dir: Path, trainer: TrainerConfig, log: Path, *, step: int, number: int
) -> int:
    """Train in a child that sends itself a signal within a step (counted from its start); its wait status."""
    seen = [0]

    def strike(*_: Any) -> None:
        seen[0] += 1
        if seen[0] == step:
            os.kill(os.getpid(), number)

    def work() -> None:
        register_optimizer_step_post_hook(strike)
        with recorded(log):
            train(run_dir, trainer)

    return os.waitpid(child(work), 0)[1]


def killed_after(train: Callable[..., Any], run_dir: Path, trainer: TrainerConfig, log: Path, *, seconds: float) -> int:
    """Train in a child that is killed after some time, whatever it does then; its wait status."""

    def work() -> None:
        with recorded(log):
            train(run_dir, trainer)

    pid = child(work)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]
