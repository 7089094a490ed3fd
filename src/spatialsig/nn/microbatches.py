"""Number of inputs for one forward pass of a prediction, from their size and the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CPU_PIXELS = 2**19  # more is slower where the allocator gives large blocks back to the system, and never faster
FEWEST, ON_GPU = 4, 64
ROWS = 4096  # of features


def microbatch_size(shape: tuple[int, ...], device: torch.device) -> int:
    """Number of inputs for one forward pass.

    Parameters
    ----------
    shape
        Of all inputs: images ``(n, c, h, w)``, or features ``(n, d)``.
    device
        Where they are computed.
    """
    if len(shape) != 4:
        return ROWS
    return ON_GPU if device.type != "cpu" else max(FEWEST, CPU_PIXELS // (shape[-2] * shape[-1]))
