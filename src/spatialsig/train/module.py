"""Base of all Lightning modules: the optimiser, and how gradients are clipped under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, highest, total_steps=n_steps, pct_start=rising, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Scale all gradients to a norm of at most ``gradient_clip_val``.

        Lightning itself refuses to clip under a fused optimiser in mixed precision, even in bfloat16, where gradients are
        never scaled.
        """
        if gradient_clip_val:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)
