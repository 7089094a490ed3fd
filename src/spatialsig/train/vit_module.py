"""Training and validation steps of a signature model, as Lightning calls them.

Floor 3, above data, models. Used by train/vit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from spatialsig.nn.fine_tuning import parameter_groups
from spatialsig.nn.losses import masked_loss
from spatialsig.nn.signature import SignatureNet
from spatialsig.stats.agreement import pearson
from spatialsig.train.distributed import gathered
from spatialsig.train.loop import check_finite
from spatialsig.train.module import TrainedModule, averaged_copy, update_average

if TYPE_CHECKING:
    from torch import Tensor

    from spatialsig.data.loader import Batch
    from spatialsig.models.vit import SignatureViT
    from spatialsig.nn.augment import Augment
    from spatialsig.nn.signature import Prediction
    from spatialsig.train.recipe import Recipe

LINEAR = ("linear", "linear_ae")  # heads that a ridge regression has already set
LINEAR_RATE = 0.1  # their share of the learning rate


class VitModule(TrainedModule):
    """Masked loss on standardised scores; AdamW under a one-cycle learning rate; validated on averaged weights.

    Parameters
    ----------
    model
        Holds the network and the scalers.
    augment
        Changes of the training patches; None leaves them as they are.
    recipe
        Learning rate, loss and the rest.
    n_steps
        Steps in all.
    layer_decay
        Factor between the rates of one layer of the backbone and the next, see
        :func:`spatialsig.nn.fine_tuning.parameter_groups`.
    """

    shares_validation = True  # each of several processes validates on its part

    def __init__(
        self, model: SignatureViT, augment: Augment | None, recipe: Recipe, *, n_steps: int, layer_decay: float = 1.0
    ) -> None:
        super().__init__()
        self.net = model.net
        self.average = averaged_copy(model.net)
        self.augment, self.recipe = augment, recipe
        self.n_steps, self.layer_decay = n_steps, layer_decay
        scales = (model.target_mean, model.target_std, model.ae_mean, model.ae_std)
        self._scales = [torch.from_numpy(scale).float() for scale in scales]
        self._validated: list[tuple[Tensor, ...]] = []

    def on_train_start(self) -> None:
        """Let dropout act; batch norms keep the moments of the ridge start, where there was one.

        The whitening after the backbone stretches directions of little variance, and the moments of single batches would
        be noise in these.
        """
        self.net.train()
        for norm in self.net.modules():
            if self.recipe.ridge and isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.eval()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch of patches."""
        image = batch["image"]
        if self.augment is not None:
            with torch.autocast(self.device.type, enabled=False):  # optical densities need all of float32
                image = self.augment(image, batch["id"], epoch=self.current_epoch)
        code, present = self._code(batch)
        if self.recipe.distil > 0 and code is not None and isinstance(self.net, SignatureNet):
            found, alone = self.net.forward_both(image, code, present)
        else:
            found, alone = self.net.forward_all(image, code, present), None
        loss = self._loss(found, batch) + self._side_losses(found, alone, code, present)
        rate = self.recipe.learning_rate
        return check_finite(loss, epoch=self.current_epoch, step=batch_idx, learning_rate=rate)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Follow the weights with their average."""
        update_average(self.average, self.net, decay=self.recipe.ema_decay, step=self.global_step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the averaged network's scores of one batch."""
        found: Prediction = self.average.forward_all(batch["image"], *self._code(batch))  # type: ignore[operator]
        loss = self._loss(found, batch)
        self.log("val_loss", loss, batch_size=len(found.mean), on_epoch=True, sync_dist=True)
        measured = torch.where(batch["mask"], batch["target"], torch.nan)
        self._validated.append((found.mean.float().cpu(), measured.cpu(), batch["slide"].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log ``val_pearson``, the mean over slides and scores of the correlation within a slide."""
        every = [batch for of_rank in gathered(self._validated) for batch in of_rank]
        scores, measured, slide = (torch.cat(part).numpy() for part in zip(*every, strict=True))
        self._validated = []
        within = [pearson(measured[slide == index], scores[slide == index]) for index in np.unique(slide)]
        known = np.concatenate(within)
        known = known[np.isfinite(known)]
        self.log("val_pearson", float(known.mean()) if len(known) else float("nan"))

    def configure_optimizers(self) -> Any:
        """AdamW without decay of biases, norms and learned tokens; the rate rises, then falls along a cosine."""
        rate = self.recipe.peak_rate(self.n_steps)
        groups = rate_groups(
            self.net, learning_rate=rate, weight_decay=self.recipe.weight_decay, layer_decay=self.layer_decay
        )
        if self.recipe.schedule == "constant":
            return self.adamw(groups, lr=rate)
        optimizer = self.adamw(groups, lr=rate, betas=(0.9, 0.98))
        highest = [group["lr"] for group in groups]
        return self.one_cycle(optimizer, highest, n_steps=self.n_steps, rising=self.recipe.rising_share(self.n_steps))

    def _code(self, batch: Batch) -> tuple[Tensor | None, Tensor | None]:
        """Standardised expression embedding and which rows of it are measured."""
        ae = batch.get("ae")
        if ae is None or self.net.config.fusion == "none":
            return None, None
        mean, std = (scale.to(ae.device) for scale in self._scales[2:])
        return (ae - mean) / std, batch["ae_present"]

    def _loss(self, found: Prediction, batch: Batch) -> Tensor:
        mean, std = (scale.to(found.mean.device) for scale in self._scales[:2])
        return masked_loss(
            found.mean.float(),
            (batch["target"] - mean) / std,
            mask=batch["mask"],
            weight=batch["weight"],
            kind=self.recipe.loss,
            log_variance=found.log_variance,
            beta=self.recipe.beta,
        )

    def _side_losses(
        self, found: Prediction, alone: Prediction | None, code: Tensor | None, present: Tensor | None
    ) -> Tensor:
        """What is learned beside the labels: to guess the expression, and to say without it what is said with it."""
        total = found.mean.new_zeros(())
        if code is None or present is None:
            return total
        if found.code is not None:
            rows = present[:, None].expand_as(code)
            total = total + self.recipe.auxiliary * masked_loss(found.code.float(), code, mask=rows)
        if alone is not None:
            taught = found.mean.detach().float()
            rows = present[:, None].expand_as(taught)
            total = total + self.recipe.distil * masked_loss(alone.mean.float(), taught, mask=rows)
        return total


def rate_groups(
    net: nn.Module, *, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups of :func:`spatialsig.nn.fine_tuning.parameter_groups`; linear heads on all features learn more slowly.

    A step of Adam moves every weight of a linear head by about the learning rate whatever its gradient, and a score by
    the sum over hundreds of features: such a head, already in its place, would be thrown out of it.
    """
    linear = {id(p) for name in LINEAR for p in getattr(net, name, nn.Module()).parameters()}
    groups = []
    for group in parameter_groups(net, learning_rate=learning_rate, weight_decay=weight_decay, layer_decay=layer_decay):
        for slow in (False, True):
            chosen = [p for p in group["params"] if (id(p) in linear) == slow]
            if chosen:
                groups.append(group | {"params": chosen, "lr": group["lr"] * (LINEAR_RATE if slow else 1.0)})
    return groups
