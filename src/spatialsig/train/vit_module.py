"""One step of the training of a signature model, as Lightning calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningModule

from spatialsig.nn.losses import masked_loss
from spatialsig.stats.agreement import pearson
from spatialsig.train.average import averaged_copy, update_average
from spatialsig.train.loop import check_finite

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spatialsig.data.loader import Batch
    from spatialsig.models.vit import SignatureViT
    from spatialsig.nn.augment import Augment


class VitModule(LightningModule):
    """Masked loss on standardised scores; AdamW under a one-cycle learning rate; validated on averaged weights.

    Parameters
    ----------
    model
        Holds the network and the scalers.
    augment
        Changes of the training patches.
    learning_rate, weight_decay, warmup, n_steps
        Peak learning rate, decay of matrices, share of the steps in which the rate rises, steps in all.
    ema_decay
        Decay of the running average per step.
    loss
        One of :data:`spatialsig.nn.losses.LOSSES`.
    """

    def __init__(
        self,
        model: SignatureViT,
        augment: Augment,
        *,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        n_steps: int,
        ema_decay: float,
        loss: str,
    ) -> None:
        super().__init__()
        self.net = model.net
        self.average = averaged_copy(model.net)
        self.augment, self.loss = augment, loss
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.n_steps, self.ema_decay = n_steps, ema_decay
        scales = (model.target_mean, model.target_std, model.ae_mean, model.ae_std)
        self._scales = [torch.from_numpy(scale).float() for scale in scales]
        self._validated: list[tuple[Tensor, ...]] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch of patches."""
        with torch.autocast(self.device.type, enabled=False):  # optical densities need all of float32
            image = self.augment(batch["image"], batch["id"], epoch=self.current_epoch)
        loss = self._loss(self._predict(self.net, batch, image), batch)
        return check_finite(loss, epoch=self.current_epoch, step=batch_idx, learning_rate=self.learning_rate)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Follow the weights with their average."""
        update_average(self.average, self.net, decay=self.ema_decay, step=self.global_step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the averaged network's scores of one batch."""
        scores = self._predict(self.average, batch, batch["image"])
        loss = self._loss(scores, batch)
        self.log("val_loss", loss, batch_size=len(scores), on_epoch=True)
        measured = torch.where(batch["mask"], batch["target"], torch.nan)
        self._validated.append((scores.cpu(), measured.cpu(), batch["slide"].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log ``val_pearson``, the mean over slides and scores of the correlation within a slide."""
        scores, measured, slide = (torch.cat(part).numpy() for part in zip(*self._validated, strict=True))
        self._validated = []
        within = [pearson(measured[slide == index], scores[slide == index]) for index in np.unique(slide)]
        known = np.concatenate(within)
        known = known[np.isfinite(known)]
        self.log("val_pearson", float(known.mean()) if len(known) else float("nan"))

    def configure_optimizers(self) -> Any:
        """AdamW without decay of biases, norms and learned tokens; the rate rises, then falls along a cosine."""
        free = [p for p in self.net.parameters() if p.requires_grad]
        matrices, vectors = [p for p in free if p.ndim > 1], [p for p in free if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.98), fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.n_steps, pct_start=self.warmup, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _predict(self, net: nn.Module, batch: Batch, image: Tensor) -> Tensor:
        ae, present = batch.get("ae"), batch.get("ae_present")
        mean, std = (scale.to(image.device) for scale in self._scales[2:])
        code = None if ae is None else (ae - mean) / std
        scores: Tensor = net(image, code, present)
        return scores.float()

    def _loss(self, scores: Tensor, batch: Batch) -> Tensor:
        mean, std = (scale.to(scores.device) for scale in self._scales[:2])
        target = (batch["target"] - mean) / std
        return masked_loss(scores, target, mask=batch["mask"], weight=batch["weight"], kind=self.loss)
