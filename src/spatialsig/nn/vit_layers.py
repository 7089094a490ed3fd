"""Layers of vision transformers: a convolutional stem, and attention by whichever way is fastest on the device at hand.

Floor 1, above the ground floor. Used by nn/seed_vit, nn/vit.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_WEIGHTS = 2**25  # numbers in the matrix of all weights that are still held at once, 128 MiB in float32


class ConvBlock(nn.Module):
    """Residual 3x3 convolution at constant width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, bias=False), nn.BatchNorm2d(dim), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Image ``(b, dim, h, w)`` to the same shape."""
        out: Tensor = x + self.body(x)
        return out


def conv_stem(widths: tuple[int, ...], n_blocks: tuple[int, ...]) -> nn.ModuleList:
    """Stages that halve the image, ``(b, c, h, w) -> (b, c', h / 2, w / 2)`` each (rounded up).

    Parameters
    ----------
    widths
        Channels ``c'`` of each stage.
    n_blocks
        Residual blocks in each stage.
    """
    stages = nn.ModuleList()
    for n_in, n_out, n in zip((3, *widths), widths, n_blocks, strict=False):
        halve = (nn.Conv2d(n_in, n_out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())
        stages.append(nn.Sequential(*halve, *(ConvBlock(n_out) for _ in range(n))))
    return stages


def stage_moments(stage: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the pixels of ``(b, c, h, w)``, ``(b, c)`` each."""
    pixels = stage.float().permute(0, 2, 3, 1).flatten(1, 2)  # channels last: `var_mean` takes 4 times as long
    mean = pixels.mean(dim=1, keepdim=True)
    variance = (pixels - mean).square().mean(dim=1)
    return mean.squeeze(1), (variance + 1e-5).sqrt()


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
