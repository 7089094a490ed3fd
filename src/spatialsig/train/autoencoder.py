"""Fit an autoencoder to the cells of several slides at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningModule

from spatialsig._checks import check_positive
from spatialsig._progress import progress_bar
from spatialsig.models.autoencoder import Autoencoder, check_scaler
from spatialsig.nn.autoencoder import AutoencoderConfig, AutoencoderNet
from spatialsig.train.cells import CellBatches
from spatialsig.train.components import principal_components
from spatialsig.train.loop import History, check_finite, fit, reproducible

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray
    from scipy import sparse


class AutoencoderModule(LightningModule):
    """Mean squared error of the z-scores; Adam under a one-cycle learning rate."""

    def __init__(self, net: AutoencoderNet, *, learning_rate: float, weight_decay: float, n_steps: int) -> None:
        super().__init__()
        self.net, self.learning_rate, self.weight_decay, self.n_steps = net, learning_rate, weight_decay, n_steps

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Loss of one batch of z-scores."""
        loss = torch.nn.functional.mse_loss(self.net(batch), batch)
        return check_finite(loss, epoch=self.current_epoch, step=batch_idx, learning_rate=self.learning_rate)

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        """Log the loss of one batch as ``val_loss``, weighed by its cells."""
        loss = torch.nn.functional.mse_loss(self.net(batch), batch)
        self.log("val_loss", loss, batch_size=len(batch), on_epoch=True)

    def configure_optimizers(self) -> Any:
        """Adam with decoupled weight decay; the learning rate rises over 30 % of the steps and falls to 0."""
        optimizer = torch.optim.AdamW(
            self.net.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=self.n_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_autoencoder(
    slides: Sequence[sparse.csr_matrix],
    *,
    genes: Sequence[str],
    mean: NDArray[Any],
    std: NDArray[Any],
    validation: Sequence[sparse.csr_matrix] | None = None,
    config: AutoencoderConfig | None = None,
    max_epochs: int = 12,
    batch_size: int = 512,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    patience: int | None = 4,
    seed: int = 0,
    run_dir: str | os.PathLike[str] | None = None,
    run: dict[str, Any] | None = None,
) -> tuple[Autoencoder, pd.DataFrame]:
    """Train an autoencoder on the cells of all slides, shuffled together.

    A network with a linear path starts as the principal components of the training cells, so that it begins where a
    PCA ends.

    Parameters
    ----------
    slides
        Raw counts ``(n_cells, n_genes)`` CSR per training slide, columns as ``genes``.
    genes
        Gene names.
    mean, std
        Scaler of the training cells, ``(n_genes,)``.
    validation
        Raw counts of slides to choose the best epoch by; None keeps the last.
    config
        Shape of the network; None takes the default.
    max_epochs, batch_size, learning_rate, weight_decay
        Training settings; the learning rate is the peak of its cycle.
    patience
        Epochs without a better validation loss after which training stops; None never stops.
    seed
        Seed of weights, order and dropout.
    run_dir
        Directory for ``history.csv``, written after every epoch; None writes nothing.
    run
        Provenance to keep in the model.

    Returns
    -------
    The model, and a frame with one row per epoch: ``epoch``, ``train_loss``, ``val_loss``, ``val_pearson`` (NaN),
    ``seconds``, ``lr``.

    Raises
    ------
    InputError
        If shapes do not match, or the loss becomes NaN.
    """
    config = AutoencoderConfig() if config is None else config
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    check_scaler(genes, mean, std)
    check_positive(max_epochs=max_epochs, learning_rate=learning_rate)
    batches = CellBatches(slides, mean=mean, std=std, batch_size=batch_size, seed=seed)
    held_out = None
    if validation is not None:
        held_out = CellBatches(validation, mean=mean, std=std, batch_size=4096, shuffle=False)
    with reproducible(seed), progress_bar("Training autoencoder", total=max_epochs * len(batches), unit="batch") as bar:
        net = AutoencoderNet(len(genes), config)
        if config.linear_path:
            net.start_from_components(*principal_components(batches, config.n_latent))
        module = AutoencoderModule(
            net, learning_rate=learning_rate, weight_decay=weight_decay, n_steps=max_epochs * len(batches)
        )
        history = History(bar, best_of="val_loss", patience=patience, csv=history_file(run_dir))
        fit(module, batches, validation=held_out, history=history, max_epochs=max_epochs, clip=None)
    return Autoencoder(config, genes, mean=mean, std=std, run=run, net=net), history.frame


def history_file(run_dir: str | os.PathLike[str] | None) -> Path | None:
    """``history.csv`` in ``run_dir``, which is made; None without one."""
    if run_dir is None:
        return None
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    return Path(run_dir) / "history.csv"
