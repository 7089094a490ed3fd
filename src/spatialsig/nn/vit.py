"""Vision transformer with a convolutional stem: H&E patches in, one feature vector each out.

Floor 1, above the ground floor. Called as sp.ViTConfig; used by 16 modules of 6 rooms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from spatialsig._arguments import Count, Fraction, Natural, checked_class
from spatialsig._checks import check_choice, check_integers
from spatialsig.errors import InputError
from spatialsig.nn.seed_vit import seed_preset as seed_preset  # a public name of this module
from spatialsig.nn.vit_layers import attend, attention_weights, conv_stem, stage_moments

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DIM, MAX_DEPTH = 4096, 64


@checked_class
@dataclass(frozen=True)
class ViTConfig:
    """Shape of a vision transformer.

    Parameters
    ----------
    dim, depth, heads, mlp_dim
        Width of a token, number of blocks, attention heads, width inside the feed-forward part.
    stem
        Channels after each stride-2 convolution; ``n`` of them make one token of ``2**n`` px squared.
    stem_blocks
        Residual convolution blocks after each of them.
    pool
        ``"mean"`` of the image tokens, or a ``"class"`` token.
    stem_features
        Append mean and deviation over the patch of every channel of every stem stage. A channel then counts one local
        texture, which is what a mean score over cells is made of, and early layers learn from the first step.
    drop_path
        Probability of skipping the last block while training; earlier blocks linearly less.
    n_registers
        Learned tokens that take part in attention and are not read, so that none of the image's has to serve as a
        scratch pad.
    """

    dim: Count = 128
    depth: Natural = 2
    heads: Count = 4
    mlp_dim: Count = 256
    stem: tuple[int, ...] = (32, 64, 96, 128)
    stem_blocks: tuple[int, ...] = (0, 2, 1, 0)
    pool: str = "mean"
    stem_features: bool = True
    drop_path: Fraction = 0.1
    n_registers: Natural = 0

    def __post_init__(self) -> None:
        widths = (self.dim, self.heads, self.mlp_dim, *self.stem)
        if not all(type(width) is int and 0 < width <= MAX_DIM for width in widths):
            msg = f"widths {widths} must be integers in 1..{MAX_DIM}."
            raise InputError(msg)
        check_integers(0, MAX_DEPTH, depth=self.depth)
        if self.dim % (4 * self.heads):
            msg = f"`dim={self.dim}` must be a multiple of 4 x `heads={self.heads}`."
            raise InputError(msg)
        if not 1 <= len(self.stem) <= 6 or len(self.stem) != len(self.stem_blocks):
            msg = f"`stem={self.stem}` and `stem_blocks={self.stem_blocks}` must have the same length, 1 to 6."
            raise InputError(msg)
        if not all(type(n) is int and 0 <= n <= MAX_DEPTH for n in self.stem_blocks):
            msg = f"`stem_blocks={self.stem_blocks}` must be integers in 0..{MAX_DEPTH}."
            raise InputError(msg)
        check_integers(0, MAX_DEPTH, n_registers=self.n_registers)
        check_choice(self.pool, ("mean", "class"), name="pool")

    @property
    def stride(self) -> int:
        """Edge of the square of pixels behind one token."""
        return int(2 ** len(self.stem))


SIZES: dict[str, ViTConfig] = {
    "tiny": ViTConfig(),
    "small": ViTConfig(dim=192, depth=4, heads=6, mlp_dim=768, stem=(32, 64, 128, 192), stem_blocks=(0, 2, 1, 0)),
    "base": ViTConfig(dim=384, depth=8, heads=6, mlp_dim=1536, stem=(48, 96, 192, 384), stem_blocks=(1, 2, 2, 1)),
}


def vit_config(size: str, **changes: Any) -> ViTConfig:
    """Named configuration (``"tiny"``, ``"small"`` or ``"base"``) with ``changes`` applied."""
    check_choice(size, tuple(SIZES), name="size")
    return replace(SIZES[size], **changes)


def optical_density(image: Tensor) -> Tensor:
    """``-ln((value + 1) / 256)`` of uint8 pixels, float32: 0 for white, 5.5 for black; linear in the amount of dye."""
    if image.dtype != torch.uint8:
        msg = f"image of {image.dtype}; wanted torch.uint8."
        raise InputError(msg)
    return image.float().add_(1).mul_(1 / 256).log_().neg_()


@lru_cache(maxsize=16)
@torch.inference_mode(mode=False)  # what is kept from a prediction must do for a gradient as well
def sincos_positions(height: int, width: int, dim: int) -> Tensor:
    """Sine and cosine of row and column at ``dim / 4`` frequencies, ``(height * width, dim)``, row-major."""
    if dim % 4:
        msg = f"`dim={dim}` must be a multiple of 4."
        raise InputError(msg)
    frequency = torch.exp(-math.log(10_000) * torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    angles = torch.cat([y.reshape(-1, 1) * frequency, x.reshape(-1, 1) * frequency], dim=1)  # (h w, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


class DropPath(nn.Module):
    """Leave out a residual branch for a random share ``p`` of the samples while training."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Scale kept samples by ``1 / (1 - p)`` so that the expectation stays."""
        if not self.training or self.p == 0:
            return x
        keep = torch.rand((len(x),) + (1,) * (x.ndim - 1), device=x.device) >= self.p
        return x * keep / max(1 - self.p, 1e-6)


class Block(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, drop_path: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(b, n, dim)`` to tokens of the same shape."""
        return self._joined(tokens, attend(*self._qkv(tokens)))

    def forward_attention(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The same, written out: the new tokens, and how much each looked at each, ``(b, heads, n, n)``, rows sum to 1."""
        q, k, v = self._qkv(tokens)
        weights = attention_weights(q, k)
        return self._joined(tokens, weights @ v), weights

    def _qkv(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = self.to_qkv(self.norm_attention(tokens))
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads).unbind(0)
        return q, k, v

    def _joined(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.to_out(rearrange(mixed, "b h n d -> b n (h d)")))
        out: Tensor = tokens + self.drop_path(self.mlp(tokens))
        return out


class ViT(nn.Module):
    """Features of H&E patches of any size.

    Parameters
    ----------
    config
        Shape of the network.

    Attributes
    ----------
    num_features
        Width of the output.
    token_dim
        Width of a token.
    takes_tokens
        Whether tokens of something else than the image may take part in attention.
    """

    takes_tokens = True

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.token_dim = config.dim
        self.num_features = config.dim + (2 * sum(config.stem) if config.stem_features else 0)
        self.stem = conv_stem(config.stem, config.stem_blocks)
        self.to_tokens = nn.Conv2d(config.stem[-1], config.dim, 1)
        self.position_scale = nn.Parameter(torch.tensor(0.1))  # at 1, positions would drown what is in the image
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(config.dim, config.heads, config.mlp_dim, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.dim)
        if config.pool == "class":
            self.class_token = nn.Parameter(torch.randn(config.dim) * 0.02)
        if config.n_registers:
            self.registers = nn.Parameter(torch.randn(config.n_registers, config.dim) * 0.02)

    @property
    def n_prefix(self) -> int:
        """Tokens before those of the image: the class token where there is one, then the registers."""
        return int(self.config.pool == "class") + self.config.n_registers

    def grid_shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of image tokens of an image of ``height`` x ``width`` px."""
        return math.ceil(height / self.config.stride), math.ceil(width / self.config.stride)

    def stages(self, image: Tensor) -> list[Tensor]:
        """Output of every stem stage, ``(b, c, h, w)`` each, of pixels (uint8) or optical densities (float)."""
        self._check(image)
        od = image if image.is_floating_point() else optical_density(image)
        outputs = [od.contiguous(memory_format=torch.channels_last)]
        for stage in self.stem:
            outputs.append(stage(outputs[-1]))
        return outputs[1:]

    def embed(self, grid: Tensor, extra: Tensor | None = None) -> Tensor:
        """Tokens before the first block, ``(b, n_prefix + h w + m, dim)``, of the last stage's output ``(b, c, h, w)``."""
        grid = self.to_tokens(grid)
        positions = sincos_positions(grid.shape[2], grid.shape[3], self.config.dim).to(grid.device)
        tokens = rearrange(grid, "b d h w -> b (h w) d") + self.position_scale * positions
        parts = [self.class_token[None]] if self.config.pool == "class" else []
        parts += [self.registers] if self.config.n_registers else []
        before = [part.to(tokens.dtype).expand(len(tokens), -1, -1) for part in parts]
        after = [] if extra is None else [extra.to(tokens.dtype)]
        return torch.cat([*before, tokens, *after], dim=1) if before or after else tokens

    def forward_tokens(self, grid: Tensor, extra: Tensor | None = None) -> Tensor:
        """Normalised tokens after all blocks, ``(b, n, dim)``, of the last stage's output."""
        tokens = self.embed(grid, extra)
        for block in self.blocks:
            tokens = block(tokens)
        normed: Tensor = self.norm(tokens)
        return normed

    def forward_features(self, image: Tensor, extra: Tensor | None = None) -> Tensor:
        """Normalised tokens after all blocks, ``(b, n, dim)``.

        Parameters
        ----------
        image
            ``(b, 3, h, w)``: uint8 pixels, or float optical densities; h and w at least ``config.stride``.
        extra
            Tokens that take part in attention, ``(b, m, dim)``.

        Returns
        -------
        The image tokens in row-major order; before them the class token and the registers (where there are any), after
        them ``extra``.
        """
        return self.forward_tokens(self.stages(image)[-1], extra)

    def forward_head(self, tokens: Tensor, stages: Sequence[Tensor]) -> Tensor:
        """Feature vector per image, ``(b, num_features)``, of what :meth:`forward_features` and :meth:`stages` gave."""
        n_image = stages[-1].shape[2] * stages[-1].shape[3]
        image_tokens = tokens[:, self.n_prefix : self.n_prefix + n_image]
        pooled = tokens[:, 0] if self.config.pool == "class" else image_tokens.mean(dim=1)
        if not self.config.stem_features:
            return pooled
        return torch.cat([pooled, *(moment for stage in stages for moment in stage_moments(stage))], dim=1)

    def forward(self, image: Tensor, extra: Tensor | None = None) -> Tensor:
        """Feature vector per image, ``(b, num_features)``; arguments as in :meth:`forward_features`."""
        stages = self.stages(image)
        return self.forward_head(self.forward_tokens(stages[-1], extra), stages)

    def forward_attention(self, image: Tensor, extra: Tensor | None = None) -> list[Tensor]:
        """Attention of every block, ``(b, heads, n, n)`` each: rows look at columns and sum to 1.

        Tokens are ordered as in :meth:`forward_features`: ``n_prefix`` of them, the image's, then ``extra``.
        """
        tokens, maps = self.embed(self.stages(image)[-1], extra), []
        for block in self.blocks:
            tokens, weights = cast("Block", block).forward_attention(tokens)
            maps.append(weights)
        return maps

    def _check(self, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < self.config.stride:
            msg = f"image of shape {tuple(image.shape)}; wanted (b, 3, h, w) with h and w >= {self.config.stride} px."
            raise InputError(msg)
