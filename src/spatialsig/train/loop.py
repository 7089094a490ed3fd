"""What both trainings share: a quiet Lightning trainer, its history, the best weights, and a stop on NaN."""

from __future__ import annotations

import logging
import time
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from spatialsig._errors import InputError
from spatialsig.nn.precision import fast_matmul, training_precision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from spatialsig._progress import Bar

COLUMNS = ("epoch", "train_loss", "val_loss", "val_pearson", "seconds", "lr")


class History(Callback):
    """Record every epoch, keep the best weights, stop when they stay the best for too long.

    Parameters
    ----------
    bar
        Progress bar, advanced once per batch.
    best_of
        Column to choose the best epoch by, ``"val_loss"`` (smallest) or ``"val_pearson"`` (largest). Without
        validation the last epoch is kept.
    patience
        Epochs without a new best after which training stops; None never stops.
    csv
        File to write the history to after each epoch; None writes none.
    """

    def __init__(self, bar: Bar, *, best_of: str, patience: int | None, csv: Path | None) -> None:
        self.bar, self.best_of, self.patience, self.csv = bar, best_of, patience, csv
        self.rows: list[dict[str, float]] = []
        self.best_state: dict[str, Tensor] | None = None
        self.best, self.best_epoch = -float("inf"), 0
        self._losses: list[Tensor] = []
        self._started = time.monotonic()

    @property
    def frame(self) -> pd.DataFrame:
        """One row per epoch; the columns are :data:`COLUMNS`."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS)).astype({"epoch": int})

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._losses, self._started = [], time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch and its loss."""
        self._losses.append(outputs["loss"].detach())
        self.bar.advance()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch's row and set the order of the next one."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {
            "epoch": float(trainer.current_epoch),
            "train_loss": float(torch.stack(self._losses).mean()),
            "val_loss": metrics.get("val_loss", float("nan")),
            "val_pearson": metrics.get("val_pearson", float("nan")),
            "seconds": time.monotonic() - self._started,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
        }
        self.rows.append(row)
        self.bar.note(" ".join(f"{name} {row[name]:.3f}" for name in COLUMNS[1:4] if row[name] == row[name]))
        if self.csv is not None:
            self.frame.to_csv(self.csv, index=False)
        self._judge(trainer, row, kept_network(pl_module))
        trainer.train_dataloader.set_epoch(trainer.current_epoch + 1)  # type: ignore[union-attr]

    def _judge(self, trainer: Trainer, row: dict[str, float], net: nn.Module) -> None:
        score = row[self.best_of] if self.best_of == "val_pearson" else -row[self.best_of]
        if score > self.best:
            self.best, self.best_epoch = score, len(self.rows)
            self.best_state = {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}
        elif self.best_state is not None and self.patience and len(self.rows) - self.best_epoch >= self.patience:
            trainer.should_stop = True


def kept_network(module: LightningModule) -> nn.Module:
    """The network of a module that is validated and kept: its running average where it has one."""
    name = "average" if hasattr(module, "average") else "net"
    return module.get_submodule(name)


def check_finite(loss: Tensor, *, epoch: int, step: int, learning_rate: float) -> Tensor:
    """Return ``loss``, or raise :class:`InputError` naming epoch and step when it is NaN or infinite."""
    if not bool(torch.isfinite(loss)):
        msg = (
            f"the loss became {float(loss.detach())} in epoch {epoch}, step {step}. Lower "
            f"`learning_rate={learning_rate:g}`, and look for extreme values in the input."
        )
        raise InputError(msg)
    return loss


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed torch for a block and give the generators back as they were."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def fit(
    module: LightningModule,
    batches: Any,
    *,
    validation: Any,
    history: History,
    max_epochs: int,
    clip: float | None,
) -> None:
    """Train ``module`` and leave the best weights in its :func:`kept_network`."""
    with _quiet(), fast_matmul():
        trainer = Trainer(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=1,
            precision=training_precision(),  # type: ignore[arg-type]
            max_epochs=max_epochs,
            gradient_clip_val=clip,
            callbacks=[history],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        batches.set_epoch(0)
        trainer.fit(module, train_dataloaders=batches, val_dataloaders=validation)
    if history.best_state is not None:
        kept_network(module).load_state_dict(history.best_state)


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
