"""Fit an autoencoder to the cells of several slides at once.

Floor 3, above data, models. Used by 6 modules of cli, expression, pipeline, train.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse

from spatialsig._arguments import AnyPath, Count, Fraction, NotNegative, Positive, Seed, checked
from spatialsig._files import writing
from spatialsig._progress import progress_bar
from spatialsig.data.cells import CellSource, MemoryCells, hold_out, read_some
from spatialsig.models.autoencoder import Autoencoder
from spatialsig.models.scalers import check_scaler
from spatialsig.nn.autoencoder import AutoencoderConfig, AutoencoderNet
from spatialsig.nn.device import own_threads
from spatialsig.train.cells import CellBatches
from spatialsig.train.latent_axes import principal_components, scale_by_signal
from spatialsig.train.loop import History, TrainerConfig, check_finite, fit, reproducible, resumes
from spatialsig.train.module import TrainedModule

if TYPE_CHECKING:
    import os

    from spatialsig.train.cells import CellBatch


MOST_HELD_OUT, FEWEST_TO_SPLIT = 20_000, 1_000  # cells
_RAREST = 1e-3  # mean log-expression below which a gene's rate is not told from 0
_STEEPEST = 3.0  # largest change of a log rate per z-score at the start


class AutoencoderModule(TrainedModule):
    """Loss of the configuration, over the genes that are measured; Adam under a one-cycle learning rate."""

    measured: torch.Tensor | None
    shares_validation = True  # each of several processes validates on its part

    def __init__(
        self,
        net: AutoencoderNet,
        *,
        learning_rate: float,
        weight_decay: float,
        n_steps: int,
        measured: NDArray[np.bool_] | None = None,
        same_slides: bool = False,
    ) -> None:
        super().__init__()
        self.same_slides = same_slides
        self.net, self.learning_rate, self.weight_decay, self.n_steps = net, learning_rate, weight_decay, n_steps
        self.register_buffer("measured", None if measured is None else torch.from_numpy(measured), persistent=False)

    def training_step(self, batch: CellBatch, batch_idx: int) -> torch.Tensor:
        """Loss of one batch."""
        loss = self._loss(batch, batch.slide if self.net.config.n_batches else None)
        return check_finite(loss, epoch=self.current_epoch, step=batch_idx, learning_rate=self.learning_rate)

    def validation_step(self, batch: CellBatch, batch_idx: int) -> None:
        """Log the loss of one batch as ``val_loss``, weighed by its cells; a held-out slide has no offset of its own."""
        slide = batch.slide if self.same_slides and self.net.config.n_batches else None
        self.log("val_loss", self._loss(batch, slide), batch_size=len(batch.z), on_epoch=True, sync_dist=True)

    def _loss(self, batch: CellBatch, slide: torch.Tensor | None) -> torch.Tensor:
        measured = None if self.measured is None else self.measured[batch.slide]
        return self.net.loss(batch.z, counts=batch.counts, library=batch.library, batch=slide, measured=measured)

    def configure_optimizers(self) -> Any:
        """Adam with decoupled weight decay; the learning rate rises over 30 % of the steps and falls to 0."""
        optimizer = self.adamw(self.net.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=self.n_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@checked
def fit_autoencoder(
    slides: Sequence[sparse.csr_matrix | CellSource],
    *,
    genes: Sequence[str],
    mean: NDArray[Any],
    std: NDArray[Any],
    validation: Sequence[sparse.csr_matrix | CellSource] | None = None,
    measured: NDArray[np.bool_] | None = None,
    validation_measured: NDArray[np.bool_] | None = None,
    held_out: Fraction = 0.1,
    config: AutoencoderConfig | None = None,
    max_epochs: Count = 12,
    batch_size: Count = 512,
    learning_rate: Positive = 1e-3,
    weight_decay: NotNegative = 0.0,
    patience: Count | None = 4,
    seed: Seed = 0,
    run_dir: AnyPath | None = None,
    run: dict[str, Any] | None = None,
    trainer: TrainerConfig | None = None,
) -> tuple[Autoencoder, pd.DataFrame]:
    """Train an autoencoder on the cells of all slides, shuffled together.

    A network with a linear path starts as the principal components of the training cells, so that it begins where a
    PCA ends. After the fit the axes of its embedding are scaled to the signal in them, as far as cells that did not
    train tell (:func:`spatialsig.train.latent_axes.scale_by_signal`; ``run["signal_share"]``).

    Parameters
    ----------
    slides
        Per training slide raw counts ``(n_cells, n_genes)`` CSR, columns as ``genes``, or a source that reads them.
    genes
        Gene names.
    mean, std
        Scaler of the training cells, ``(n_genes,)``.
    validation
        Slides to choose the best epoch by; None holds out cells of the training slides.
    measured, validation_measured
        ``(n_slides, n_genes)`` bool, False where a slide does not measure a gene; None where all do.
    held_out
        Without ``validation``, the share of the cells of every slide that choose the best epoch instead of being
        trained on, at most :data:`MOST_HELD_OUT` of the cohort; 0 trains on all cells and keeps the last epoch, as do
        cohorts of fewer than :data:`FEWEST_TO_SPLIT` cells.
    config
        Shape of the network; None takes the default.
    max_epochs, batch_size, learning_rate, weight_decay
        Training settings; the learning rate is the peak of its cycle.
    patience
        Epochs without a better validation loss after which training stops; None never stops.
    seed
        Seed of weights, order and dropout.
    run_dir, run, trainer
        As of :func:`spatialsig.train.fit_vit`.

    Returns
    -------
    The model, and a frame with one row per epoch: ``epoch``, ``train_loss``, ``val_loss``, ``val_pearson`` (NaN),
    ``seconds``, ``lr``, ``busy`` (share of the epoch not spent waiting for cells).

    Raises
    ------
    TrainingError
        If the loss becomes NaN.
    InputError
        If shapes do not match, or ``run_dir`` holds a checkpoint of another run.
    """
    config = AutoencoderConfig() if config is None else config
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    check_scaler(genes, mean, std)
    config = replace(config, masked=config.masked or measured is not None)
    with_counts = config.loss != "mse"
    shared: dict[str, Any] = {"mean": mean, "std": std, "with_counts": with_counts}
    slides, parts = (slides, []) if validation is not None else _parted(slides, held_out, seed)
    batches = CellBatches(slides, batch_size=batch_size, seed=seed, measured=measured, **shared)
    judged = None
    if validation is not None:
        judged = CellBatches(validation, batch_size=4096, shuffle=False, measured=validation_measured, **shared)
        # the module finds the genes of a held-out slide after those of the training slides
        judged.first_slide = len(batches.sources)
        measured = _stacked(measured, validation_measured, len(validation), len(genes))
    elif parts:
        judged = CellBatches(parts, batch_size=4096, shuffle=False, measured=measured, **shared)
    with (
        reproducible(seed),
        own_threads(),
        progress_bar("Training autoencoder", total=max_epochs * len(batches), unit="batch") as bar,
    ):
        net = AutoencoderNet(len(genes), config)
        if config.linear_path and not resumes(run_dir, trainer):
            _start(net, batches, mean, std)
        module = AutoencoderModule(
            net,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            n_steps=max_epochs * len(batches),
            measured=measured,
            same_slides=bool(parts),
        )
        history = History(bar, best_of="val_loss", patience=patience, csv=history_file(run_dir))
        options: dict[str, Any] = {"trainer": trainer, "identity": {"genes": list(genes)}}
        fit(module, batches, validation=judged, history=history, max_epochs=max_epochs, clip=None, **options)
    run = dict(run or {})
    if judged is not None and config.linear_path:  # without the linear path it is the plain network of the prototype
        whole = [read_some(source, MOST_HELD_OUT // len(judged.sources)) for source in judged.sources]
        shares = scale_by_signal(net, whole, mean=mean, std=std, measured=judged.measured, seed=seed)
        run["signal_share"] = None if shares is None else shares.round(4).tolist()
    return Autoencoder(config, genes, mean=mean, std=std, run=run, net=net), history.frame


def _parted(
    slides: Sequence[sparse.csr_matrix | CellSource], share: float, seed: int
) -> tuple[Sequence[sparse.csr_matrix | CellSource], list[CellSource]]:
    """Training cells and cells to choose the epoch by, of every slide."""
    sources = [MemoryCells(sparse.csr_matrix(s)) if sparse.issparse(s) else s for s in slides]
    n_cells = sum(source.n_cells for source in sources)
    if share == 0 or n_cells < FEWEST_TO_SPLIT:
        return slides, []
    rng, share = np.random.default_rng(seed), min(share, MOST_HELD_OUT / n_cells)
    pairs = [hold_out(source, share=share, rng=rng) for source in sources]
    return [kept for kept, _ in pairs], [part for _, part in pairs]


def _start(net: AutoencoderNet, batches: CellBatches, mean: NDArray[Any], std: NDArray[Any]) -> None:
    """Begin where a PCA ends; for a count loss, with the rates that its z-scores stand for near the mean."""
    components, offset = principal_components((batch.z for batch in batches), net.config.n_latent)
    if net.config.loss == "mse":
        net.start_from_components(components, offset)
        return
    mean = np.maximum(mean, _RAREST)
    # expression is log1p(rate): d log(rate) / d expression = e^x / (e^x - 1)
    scale = np.minimum(np.asarray(std) / -np.expm1(-mean), _STEEPEST)
    net.start_from_components(
        components,
        offset,
        scale=torch.from_numpy(scale).float(),
        shift=torch.from_numpy(np.log(np.expm1(mean))).float(),
    )


def _stacked(
    training: NDArray[np.bool_] | None, validation: NDArray[np.bool_] | None, n_validation: int, n_genes: int
) -> NDArray[np.bool_] | None:
    if training is None:
        return None
    rows = np.ones((n_validation, n_genes), bool) if validation is None else validation
    return np.concatenate([training, rows])


def history_file(run_dir: str | os.PathLike[str] | None) -> Path | None:
    """``history.csv`` in ``run_dir``, which is made; None without one."""
    if run_dir is None:
        return None
    with writing(run_dir):
        Path(run_dir).mkdir(parents=True, exist_ok=True)
    return Path(run_dir) / "history.csv"
