"""Attention by whichever way is fastest on the device at hand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

MOST_WEIGHTS = 2**25  # numbers in the matrix of all weights that are still held at once, 128 MiB in float32


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """How much each of ``n`` queries looks at each of ``m`` keys, ``(b, heads, n, m)``; rows sum to 1.

    Parameters
    ----------
    q, k
        ``(b, heads, n, d)`` and ``(b, heads, m, d)``.
    """
    return torch.softmax((q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention, ``(b, heads, n, d)``; arguments as of :func:`attention_weights`, ``v`` as ``k``.

    On a CPU two products and a softmax are faster than torch's own kernel (two to eight times for patches of 49 to 257
    tokens), as long as the weights fit in memory.
    """
    n_weights = q.shape[:-1].numel() * k.shape[-2]
    if q.device.type == "cpu" and n_weights <= MOST_WEIGHTS:
        return attention_weights(q, k) @ v
    return F.scaled_dot_product_attention(q, k, v)
