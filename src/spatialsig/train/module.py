"""Base of all Lightning modules: the optimiser, gradients clipped under it, and the running average of weights.

Floor 3, above data, models. Used by train/autoencoder, train/pretrain, train/vit_module.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from torch.optim import Optimizer


class TrainedModule(LightningModule):
    """Lightning module under AdamW, in one kernel wherever gradients need no scaling."""

    def adamw(self, parameters: Iterable[Any], **options: Any) -> torch.optim.AdamW:
        """Optimiser of ``parameters``; float16 scales gradients, which have to be scaled back before they are clipped."""
        return torch.optim.AdamW(parameters, fused=self.trainer.precision != "16-mixed", **options)

    def one_cycle(
        self, optimizer: torch.optim.Optimizer, highest: float | list[float], *, n_steps: int, rising: float
    ) -> dict[str, Any]:
        """``optimizer`` with rates that rise to ``highest`` over a share ``rising`` of the steps, then fall along a cosine."""
        if abs(rising * n_steps - 1) < 1e-9:  # torch divides by 0 where just one step rises
            rising = 1.5 / n_steps if n_steps > 1 else 0.5
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, highest, total_steps=n_steps, pct_start=rising, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Scale all gradients to a norm of at most ``gradient_clip_val``.

        Lightning itself refuses to clip under a fused optimiser in mixed precision, even in bfloat16, where gradients are
        never scaled.
        """
        if gradient_clip_val:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)


def averaged_copy(net: nn.Module) -> nn.Module:
    """Copy of a network to hold the running average; takes no gradients, always in evaluation mode."""
    average = copy.deepcopy(net).eval()
    for parameter in average.parameters():
        parameter.requires_grad = False
    return average


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, *, decay: float, step: int) -> None:
    """Move ``average`` towards ``net``: ``decay`` of the old is kept, less in the first steps (``(1 + t) / (10 + t)``)."""
    keep = min(decay, (1 + step) / (10 + step))
    new = net.state_dict()
    for name, old in average.state_dict().items():
        if old.is_floating_point():
            old.lerp_(new[name], 1 - keep)
        else:
            old.copy_(new[name])
