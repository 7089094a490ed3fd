"""The prototype's image model: linear tokens of 32 px, a class token, the expression added after the transformer.

Floor 1, above the ground floor. Used by 7 modules of inference, models, nn, pipeline, train.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from spatialsig.errors import InputError
from spatialsig.nn.vit_layers import attend, attention_weights

SEED = "seed"
IMAGE_PX, TOKEN_PX = 512, 32
DIM, DEPTH, HEADS, DIM_HEAD, MLP_DIM = 128, 4, 4, 64, 512


class SeedBlock(nn.Module):
    """Pre-norm attention of heads wider than ``dim / heads``, and feed-forward."""

    def __init__(self, dim: int, heads: int, dim_head: int, mlp_dim: int) -> None:
        super().__init__()
        self.heads, self.inner = heads, heads * dim_head
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * self.inner, bias=False)
        self.to_out = nn.Linear(self.inner, dim)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(b, n, dim)`` to tokens of the same shape."""
        q, k, v = self._heads(self.to_qkv(self.norm(tokens)), 3)
        return self._joined(tokens, attend(q, k, v))

    def first(self, tokens: Tensor) -> Tensor:
        """What :meth:`forward` makes of the first token, ``(b, 1, dim)``, at the cost of keys and values only."""
        normed = self.norm(tokens)
        (q,) = self._heads(F.linear(normed[:, :1], self.to_qkv.weight[: self.inner]), 1)
        k, v = self._heads(F.linear(normed, self.to_qkv.weight[self.inner :]), 2)
        return self._joined(tokens[:, :1], attend(q, k, v))

    def forward_attention(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`forward` written out: the new tokens, and the attention, ``(b, heads, n, n)``."""
        q, k, v = self._heads(self.to_qkv(self.norm(tokens)), 3)
        weights = attention_weights(q, k)
        return self._joined(tokens, weights @ v), weights

    def _heads(self, packed: Tensor, n: int) -> tuple[Tensor, ...]:
        split: tuple[Tensor, ...] = rearrange(packed, "b m (n h d) -> n b h m d", n=n, h=self.heads).unbind(0)
        return split

    def _joined(self, tokens: Tensor, mixed: Tensor) -> Tensor:
        tokens = tokens + self.to_out(rearrange(mixed, "b h n d -> b n (h d)"))
        out: Tensor = tokens + self.mlp(tokens)
        return out


class SeedViT(nn.Module):
    """Scores of an H&E patch and its expression embedding, as the prototype computes them.

    Squares of 32 px are flattened channel by channel and mapped to 128 numbers between two layer norms; a class token
    goes in front, learned positions are added, four pre-norm blocks follow. A linear map of the embedding is added to
    the class token, and a linear map of the sum gives the scores.

    Parameters
    ----------
    n_targets
        Number of scores.
    ae_dim
        Width of the expression embedding; 0 leaves it out.
    image_px
        Edge of the images, a multiple of 32; each size has positions of its own.
    """

    takes_tokens = False
    n_prefix = 1
    num_features = DIM

    def __init__(self, n_targets: int, ae_dim: int, *, image_px: int = IMAGE_PX) -> None:
        super().__init__()
        if image_px < TOKEN_PX or image_px % TOKEN_PX:
            msg = f"`image_px={image_px}` must be a multiple of {TOKEN_PX}: the prototype's tokens are squares of that edge."
            raise InputError(msg)
        self.image_px, self.ae_dim = image_px, ae_dim
        n_pixels = 3 * TOKEN_PX**2
        self.to_tokens = nn.Sequential(nn.LayerNorm(n_pixels), nn.Linear(n_pixels, DIM), nn.LayerNorm(DIM))
        self.class_token = nn.Parameter(torch.randn(DIM))
        self.positions = nn.Parameter(torch.randn((image_px // TOKEN_PX) ** 2 + 1, DIM))
        self.blocks = nn.ModuleList(SeedBlock(DIM, HEADS, DIM_HEAD, MLP_DIM) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(DIM)
        if ae_dim:
            self.to_class = nn.Linear(ae_dim, DIM)
        self.head = nn.Linear(DIM, n_targets)

    def forward(self, image: Tensor, ae: Tensor | None = None) -> Tensor:
        """Scores ``(b, n_targets)``.

        Parameters
        ----------
        image
            ``(b, 3, image_px, image_px)``: uint8 pixels, or floats in [0, 1].
        ae
            ``(b, ae_dim)``; None where the network has none.
        """
        tokens = self._embed(image)
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        summary = self.norm(cast("SeedBlock", last).first(tokens))[:, 0]  # no other token is read after the last block
        if self.ae_dim:
            summary = summary + self.to_class(self._checked(ae, len(image)).to(summary.dtype))
        scores: Tensor = self.head(summary)
        return scores

    def grid_shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of image tokens of an image of ``height`` x ``width`` px."""
        return height // TOKEN_PX, width // TOKEN_PX

    def forward_attention(self, image: Tensor) -> list[Tensor]:
        """Attention of every block, ``(b, heads, n, n)`` each, the class token first; rows sum to 1."""
        tokens, maps = self._embed(image), []
        for block in self.blocks:
            tokens, weights = cast("SeedBlock", block).forward_attention(tokens)
            maps.append(weights)
        return maps

    def _embed(self, image: Tensor) -> Tensor:
        wanted = (3, self.image_px, self.image_px)
        if image.ndim != 4 or tuple(image.shape[1:]) != wanted:
            msg = f"image of shape {tuple(image.shape)}; wanted (b, {', '.join(map(str, wanted))})."
            raise InputError(msg)
        squares = rearrange(image, "b c (h p) (w q) -> b (h w) (c p q)", p=TOKEN_PX, q=TOKEN_PX)
        tokens = self._linear_tokens(squares)
        first = self.class_token.to(tokens.dtype).expand(len(tokens), 1, -1)
        embedded: Tensor = torch.cat([first, tokens], dim=1) + self.positions
        return embedded

    def _linear_tokens(self, squares: Tensor) -> Tensor:
        """What ``self.to_tokens`` makes of squares ``(b, n, pixels)``, scale and shift of the first norm moved into the map.

        Nothing that depends on the pixels then takes gradients before the product, which saves a third of its cost.
        Uint8 pixels are normalised as they are: the norm of ``x / 255`` is that of ``x`` with ``255**2`` times its
        epsilon. They are exact in every arithmetic that training knows.
        """
        norm, linear, out_norm = (cast("Any", layer) for layer in self.to_tokens)
        weight, bias = linear.weight * norm.weight, linear.bias + linear.weight @ norm.bias
        pixels, eps = squares, norm.eps
        if not squares.is_floating_point():
            pixels, eps = squares.to(_arithmetic(weight)), norm.eps * 255**2
        normed = F.layer_norm(pixels, norm.normalized_shape, eps=eps)
        tokens: Tensor = out_norm(F.linear(normed, weight, bias))
        return tokens

    def _checked(self, ae: Tensor | None, batch: int) -> Tensor:
        if ae is None or ae.shape != (batch, self.ae_dim):
            found = None if ae is None else tuple(ae.shape)
            msg = f"expression embedding of shape {found}; wanted ({batch}, {self.ae_dim})."
            raise InputError(msg)
        return ae


def seed_preset(n_targets: int, ae_dim: int, *, image_px: int = IMAGE_PX) -> SeedViT:
    """The prototype's network, untrained: ``n_targets`` scores, embeddings of width ``ae_dim``."""
    return SeedViT(n_targets, ae_dim, image_px=image_px)


def _arithmetic(weight: Tensor) -> torch.dtype:
    """Type in which products with ``weight`` are computed here."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
