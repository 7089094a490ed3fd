"""Train an image network on patches without labels.

Floor 3, above data, models. Used by tl/_backbone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from spatialsig._arguments import AnyPath, Count, Fraction, NotNegative, Positive, Seed, Share, UmPerPx, checked
from spatialsig._progress import progress_bar
from spatialsig.data.loader import PatchBatches
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.nn.augment import Augment, AugmentConfig
from spatialsig.nn.device import kept_memory, own_threads
from spatialsig.nn.fine_tuning import parameter_groups
from spatialsig.nn.masked import MaskedViT, check_maskable
from spatialsig.nn.vit import ViT, ViTConfig, vit_config
from spatialsig.train.autoencoder import history_file
from spatialsig.train.loop import History, TrainerConfig, check_finite, fit, reproducible
from spatialsig.train.module import TrainedModule

if TYPE_CHECKING:
    from torch import Tensor

    from spatialsig.data.loader import Batch


class MaskedModule(TrainedModule):
    """Paint hidden blocks of augmented patches; AdamW under a one-cycle learning rate."""

    def __init__(
        self, net: MaskedViT, augment: Augment, *, learning_rate: float, weight_decay: float, warmup: float, seed: int
    ) -> None:
        super().__init__()
        self.net, self.augment, self.seed = net, augment, seed
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.n_steps = 1  # set by what runs the fit

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        loss = self._loss(batch, epoch=self.current_epoch)
        return check_finite(loss, epoch=self.current_epoch, step=batch_idx, learning_rate=self.learning_rate)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of one batch as ``val_loss``; the same blocks are hidden every time."""
        self.log("val_loss", self._loss(batch, epoch=0), batch_size=len(batch["id"]), on_epoch=True)

    def configure_optimizers(self) -> Any:
        """AdamW without decay of biases and norms; the rate rises, then falls along a cosine."""
        groups = parameter_groups(self.net, learning_rate=self.learning_rate, weight_decay=self.weight_decay)
        optimizer = self.adamw(groups, lr=self.learning_rate, betas=(0.9, 0.95))
        return self.one_cycle(optimizer, self.learning_rate, n_steps=self.n_steps, rising=self.warmup)

    def _loss(self, batch: Batch, *, epoch: int) -> Tensor:
        image, ids = batch["image"], batch["id"]
        mask = self.net.masks(ids, self.net.vit.grid_shape(*image.shape[2:]), seed=self.seed, epoch=epoch)
        if self.training:
            with torch.autocast(self.device.type, enabled=False):  # optical densities need all of float32
                image = self.augment(image, ids, epoch=self.current_epoch)
        return self.net.loss(image, mask)


@checked
def fit_masked(
    batches: PatchBatches,
    *,
    um_per_px: UmPerPx,
    validation: PatchBatches | None = None,
    size: str | ViTConfig = "tiny",
    mask_share: Share = 0.6,
    block_tokens: Count = 2,
    augment: AugmentConfig | None = None,
    max_epochs: Count = 20,
    learning_rate: Positive = 1e-3,
    weight_decay: NotNegative = 0.05,
    warmup: Fraction = 0.1,
    clip: Positive = 1.0,
    patience: Count | None = None,
    seed: Seed = 0,
    run_dir: AnyPath | None = None,
    run: dict[str, Any] | None = None,
    trainer: TrainerConfig | None = None,
) -> tuple[PretrainedViT, pd.DataFrame]:
    """Train an image network to paint what is hidden of a patch.

    Parameters
    ----------
    batches, validation
        Patches to learn from, and to choose the best epoch by (None keeps the last); their labels are not looked at.
    um_per_px
        Resolution of the patches.
    size
        ``"tiny"``, ``"small"``, ``"base"``, or a configuration.
    mask_share, block_tokens
        Share of the patch that is hidden, and the edge of a hidden block in tokens.
    augment
        Changes of the patches; None takes the default.
    max_epochs, learning_rate, weight_decay, warmup, clip, patience
        As of :func:`spatialsig.train.fit_vit`.
    seed
        Of weights, augmentation and masks.
    run_dir, run, trainer
        As of :func:`spatialsig.train.fit_vit`.

    Returns
    -------
    The network, and a frame with one row per epoch: ``epoch``, ``train_loss``, ``val_loss``, ``seconds``, ``lr``, ...

    Raises
    ------
    InputError
        If patches cannot be masked so, or ``run_dir`` holds a checkpoint of another run.
    TrainingError
        If the loss becomes NaN.
    """
    config = size if isinstance(size, ViTConfig) else vit_config(size)
    check_maskable(batches.out_px, config.stride, block_tokens)
    n_steps = max_epochs * len(batches)
    with (
        reproducible(seed),
        own_threads(),
        kept_memory(),
        progress_bar("Pre-training on H&E", total=n_steps, unit="batch") as bar,
    ):
        net = MaskedViT(ViT(config), block_tokens=block_tokens, mask_share=mask_share)
        changes = Augment(AugmentConfig() if augment is None else augment, seed=seed)
        rates = {"learning_rate": learning_rate, "weight_decay": weight_decay, "warmup": warmup}
        module = MaskedModule(net, changes, **rates, seed=seed)
        history = History(bar, best_of="val_loss", patience=patience, csv=history_file(run_dir))
        options: dict[str, Any] = {"trainer": trainer, "identity": {"mask": [str(mask_share), str(block_tokens)]}}
        fit(module, batches, validation=validation, history=history, max_epochs=max_epochs, clip=clip, **options)
    return PretrainedViT(net.vit.cpu(), patch_px=batches.out_px, um_per_px=um_per_px, run=run), history.frame
