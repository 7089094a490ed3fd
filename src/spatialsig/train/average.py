"""Running average of weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


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
