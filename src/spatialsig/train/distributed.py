"""Several processes that train one network: who reads what, and statistics over all of them.

Floor 3, above data, models. Used by train/checkpoint, train/epoch_history, train/loop, train/vit_module.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.distributed.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


def n_processes() -> int:
    """Processes that train together; 1 outside of such a run."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def shared_batches(batches: Any, *, rank: int, world_size: int) -> Any:
    """Part of this process in batches made for one; those that are a part already stay as they are."""
    if world_size == 1 or getattr(batches, "world_size", 1) > 1:
        return batches
    return batches.shared(rank=rank, world_size=world_size)


def mean_over_ranks(value: Tensor) -> float:
    """Mean of a number over all processes."""
    if n_processes() > 1:
        value = value.clone()
        distributed.all_reduce(value)
        value /= n_processes()
    return float(value)


def largest_over_ranks(value: int, device: torch.device) -> int:
    """Largest of a number over all processes."""
    if n_processes() == 1:
        return value
    found = torch.tensor(value, device=device)
    distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
    return int(found)


def own(values: list[Any]) -> Any:
    """What :func:`gathered` took from this process."""
    return values[distributed.get_rank() if n_processes() > 1 else 0]


def gathered(value: Any) -> list[Any]:
    """What every process holds, by rank."""
    if n_processes() == 1:
        return [value]
    found: list[Any] = [None] * n_processes()
    distributed.all_gather_object(found, value)
    return found


def _summed(value: Tensor) -> Tensor:
    """Sum over all processes, through which gradients flow."""
    total: Tensor = functional.all_reduce(value)  # type: ignore[no-untyped-call]
    return total


class _SyncedNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm whose moments are those of the batches of all processes, on CPU and GPU alike."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or n_processes() == 1:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        x = input.float()
        count = torch.full_like(x[:1, :1].flatten(), x.numel() / x.shape[1])[:1]
        total = _summed(torch.cat([x.sum(dim=axes), count]))
        n = total[-1]
        mean = total[:-1] / n
        centred = x - mean.view(shape)
        variance = _summed(centred.square().sum(dim=axes)) / n
        self._follow(mean.detach(), (variance * n / (n - 1)).detach())
        scaled = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        result: Tensor = scaled.to(input.dtype)
        return result

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running moments."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of axes."""


@contextmanager
def synchronised_norms(module: nn.Module, *, world_size: int) -> Iterator[None]:
    """Let every batch norm of ``module`` see the batches of all processes, for a block; weights stay where they are."""
    norms = [norm for norm in module.modules() if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d)]
    kinds = [type(norm) for norm in norms]
    if world_size > 1:
        for norm in norms:
            norm.__class__ = _SyncedNorm
    try:
        yield
    finally:
        for norm, kind in zip(norms, kinds, strict=True):
            norm.__class__ = kind
