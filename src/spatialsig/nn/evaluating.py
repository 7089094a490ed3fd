"""Networks as they are to be when they predict: in evaluation mode, with finite float32 weights.

Floor 1, above the ground floor. Used by models/directory, nn/device.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch

from spatialsig._checks import first_few
from spatialsig.errors import InputError
from spatialsig.nn.external import ExternalBackbone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn

_ready: ContextVar[frozenset[int]] = ContextVar("networks that the call around made ready", default=frozenset())


@contextmanager
def evaluating(*nets: nn.Module) -> Iterator[None]:
    """Set networks to evaluation mode for the length of a call; each part is then in the mode that it was in.

    Weights are looked at once per call, however many batches it has.

    Raises
    ------
    InputError
        Naming weights that are NaN or infinite, or not float32.
    """
    outer = _ready.get()
    new = [net for net in nets if id(net) not in outer]
    for net in new:
        check_weights(net)
    modes = [(part, part.training) for net in new for part in net.modules()]
    token = _ready.set(outer | {id(net) for net in new})
    try:
        for net in new:
            net.eval()
        yield
    finally:
        _ready.reset(token)
        for part, mode in modes:
            part.training = mode


def check_weights(net: nn.Module) -> None:
    """Refuse weights that are no finite float32 numbers; networks of others may compute in another type."""
    refuse_not_finite(
        net.named_parameters(), what="the model"
    )  # buffers may be infinite on purpose: masks of attention
    theirs = {id(of) for part in net.modules() if isinstance(part, ExternalBackbone) for of in part.parameters()}
    other = [name for name, of in net.named_parameters() if id(of) not in theirs and of.dtype != torch.float32]
    if other:
        found = sorted({str(of.dtype) for of in net.parameters() if of.dtype != torch.float32})
        msg = (
            f"{len(other)} weights of the model are {', '.join(found)}: {first_few(other)}; wanted torch.float32. Call "
            "`model.net.float()`; `precision='bf16'` of `sp.tl.predict` computes in a smaller type."
        )
        raise InputError(msg)


def refuse_not_finite(weights: Iterable[tuple[str, Tensor]], *, what: str) -> None:
    """Raise :class:`InputError` naming the tensors that are NaN or infinite."""
    broken = not_finite(weights)
    if broken:
        msg = (
            f"NaN or infinite weights in {len(broken)} tensors of {what}: {first_few(broken)}. Train it again with a "
            "smaller `lr`, or load an undamaged copy."
        )
        raise InputError(msg)


def not_finite(weights: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    # the sum is finite wherever all are, but for overflow, and needs no tensor of the same size
    return sorted(name for name, of in weights if not of.sum().isfinite() and not of.isfinite().all())
