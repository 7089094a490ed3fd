"""One row per epoch of a training run, and the weights of the best one.

Floor 3, above data, models. Used by train/checkpoint, train/loop.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from lightning.pytorch import Callback

from spatialsig._files import write_csv
from spatialsig.train.distributed import gathered, mean_over_ranks, own

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.pytorch import LightningModule, Trainer
    from torch import Tensor, nn

    from spatialsig._progress import Bar

COLUMNS = ("epoch", "train_loss", "val_loss", "val_pearson", "seconds", "lr", "busy")


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
        self.waited = 0.0  # seconds of this epoch in which the loader was waited for
        self._losses: list[Tensor] = []
        self._started = time.monotonic()

    @property
    def frame(self) -> pd.DataFrame:
        """One row per epoch; the columns are :data:`COLUMNS`."""
        return pd.DataFrame(self.rows, columns=list(COLUMNS)).astype({"epoch": int})

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the epoch."""
        self._losses, self._started, self.waited = [], time.monotonic(), 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch and its loss."""
        self._losses.append(outputs["loss"].detach())
        self.bar.advance()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch's row and set the order of the next one."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seconds = time.monotonic() - self._started
        row = {
            "epoch": float(trainer.current_epoch),
            "train_loss": mean_over_ranks(self._seen().mean()),
            "val_loss": metrics.get("val_loss", float("nan")),
            "val_pearson": metrics.get("val_pearson", float("nan")),
            "seconds": seconds,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "busy": 1 - min(self.waited / max(seconds, 1e-9), 1.0),
        }
        self.rows.append(row)
        self.bar.note(" ".join(f"{name} {row[name]:.3f}" for name in COLUMNS[1:4] if row[name] == row[name]))
        self._write(trainer, row)
        self._judge(trainer, row, kept_network(pl_module))
        trainer.train_dataloader.set_epoch(trainer.current_epoch + 1)  # type: ignore[union-attr]

    def state_dict(self) -> dict[str, Any]:
        """Rows, best weights, and what the running epoch has summed up so far; to be called by all processes."""
        return {
            "rows": self.rows,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_state": self.best_state,
            "losses": gathered(self._seen().cpu() if self._losses else None),
            "seconds": time.monotonic() - self._started,
            "waited": self.waited,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken; the bar moves there."""
        self.rows, self.best_state = state_dict["rows"], state_dict["best_state"]
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        losses = own(state_dict["losses"])
        self._losses = [] if losses is None else list(losses)
        self._started, self.waited = time.monotonic() - state_dict["seconds"], state_dict["waited"]

    def _seen(self) -> Tensor:
        """Losses of the running epoch, those of before a restart among them."""
        return torch.stack([loss.to(self._losses[-1].device) for loss in self._losses])

    def _write(self, trainer: Trainer, row: dict[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        if self.csv is not None:
            write_csv(self.csv, self.frame)
        for logger in trainer.loggers:
            known = {name: value for name, value in row.items() if value == value and name != "epoch"}
            logger.log_metrics(known, step=int(row["epoch"]))

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
