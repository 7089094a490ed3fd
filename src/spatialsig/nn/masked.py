"""Masked images: learn what tissue looks like by painting in what was hidden.

Floor 1, above the ground floor. Used by train/pretrain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from spatialsig.errors import InputError
from spatialsig.nn.augment import uniform
from spatialsig.nn.vit import Block, ViT, optical_density

if TYPE_CHECKING:
    from spatialsig.nn.vit import ViTConfig

DECODER_HEADS = 4
SPREAD = 1e-3  # added to the variance of a block, so that blank glass does not count more than tissue


class MaskedViT(nn.Module):
    """The image network, and a small decoder that paints hidden blocks from the tokens around them.

    A convolution sees across the border of what is hidden, so blocks are hidden in the image, before the first layer, by
    a learned density; every token stays in its place.

    Parameters
    ----------
    vit
        The network to train.
    block_tokens
        Edge of a hidden block, tokens; a block of one token can be guessed from the stain around it.
    mask_share
        Share of the blocks that is hidden, above 0 and below 1.
    """

    def __init__(self, vit: ViT, *, block_tokens: int = 2, mask_share: float = 0.6) -> None:
        super().__init__()
        if not 0 < mask_share < 1:
            msg = f"`mask_share={mask_share}` must lie above 0 and below 1."
            raise InputError(msg)
        if isinstance(block_tokens, bool) or not isinstance(block_tokens, int) or block_tokens < 1:
            msg = f"`block_tokens={block_tokens!r}` must be a whole number of at least 1."
            raise InputError(msg)
        self.vit, self.block_tokens, self.mask_share = vit, block_tokens, mask_share
        dim = vit.config.dim
        self.hidden = nn.Parameter(torch.zeros(3, 1, 1))
        self.decoder = Block(dim, DECODER_HEADS, 2 * dim, drop_path=0.0)
        self.to_pixels = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 3 * vit.config.stride**2))

    @property
    def config(self) -> ViTConfig:
        """Shape of the image network."""
        return self.vit.config

    def masks(self, ids: Tensor, shape: tuple[int, int], *, seed: int, epoch: int) -> Tensor:
        """Hidden tokens ``(b, rows, columns)`` bool: the same for the same patch, seed and epoch, in any batch."""
        rows, columns = (-(-n // self.block_tokens) for n in shape)
        draw = uniform(ids, seed=seed, epoch=epoch, n=rows * columns)
        n_hidden = min(max(round(self.mask_share * rows * columns), 1), rows * columns - 1)
        blocks = draw.argsort(dim=1).argsort(dim=1) < n_hidden  # exactly so many
        grid = blocks.view(-1, rows, columns).repeat_interleave(self.block_tokens, 1)
        masks: Tensor = grid.repeat_interleave(self.block_tokens, 2)[:, : shape[0], : shape[1]]
        return masks

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Painted densities of all blocks, ``(b, tokens, 3 stride^2)``, from an image with hidden tokens ``mask``."""
        stride = self.vit.config.stride
        od = image if image.is_floating_point() else optical_density(image)
        covered = mask.repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, None]
        tokens = self.vit.forward_features(torch.where(covered, self.hidden.to(od.dtype), od))
        n = mask[0].numel()
        painted: Tensor = self.to_pixels(self.decoder(tokens[:, self.vit.n_prefix : self.vit.n_prefix + n]))
        return painted

    def loss(self, image: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error over hidden blocks, each scaled to mean 0 and variance 1: texture counts, not the stain."""
        stride = self.vit.config.stride
        od = image if image.is_floating_point() else optical_density(image)
        wanted = rearrange(od, "b c (h p) (w q) -> b (h w) (c p q)", p=stride, q=stride).float()
        variance, mean = torch.var_mean(wanted, dim=-1, correction=0, keepdim=True)
        wanted = (wanted - mean) / (variance + SPREAD).sqrt()
        error = (self(image, mask).float() - wanted).square().mean(dim=-1)
        loss: Tensor = error[mask.flatten(1)].mean()
        return loss


def check_maskable(patch_px: int, stride: int, block_tokens: int) -> None:
    """Raise :class:`InputError` unless patches are whole tokens, and more than one block of them."""
    if patch_px % stride or patch_px // stride <= block_tokens:
        msg = (
            f"patches of {patch_px} px cannot be masked in blocks of {block_tokens} tokens of {stride} px; wanted a "
            f"multiple of {stride} px, at least {(block_tokens + 1) * stride}, or a `size` of smaller tokens."
        )
        raise InputError(msg)
