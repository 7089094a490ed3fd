"""What the modules of all trainings share: the optimiser, and how gradients are clipped under it."""

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
