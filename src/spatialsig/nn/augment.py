"""Changes of an H&E patch that leave its signatures alone: turns, stain, focus."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spatialsig._checks import check_fraction
from spatialsig._errors import InputError
from spatialsig.nn.vit import optical_density

# optical densities of haematoxylin and eosin in red, green, blue (Ruifrok and Johnston 2001)
STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105))


@dataclass(frozen=True)
class AugmentConfig:
    """How far a training patch may be changed.

    Parameters
    ----------
    dihedral
        Turn and mirror: the 8 symmetries of a square.
    stain
        Largest relative change of each stain's optical density.
    offset
        Largest change of the background's optical density, per colour.
    blur
        Largest share that a pixel gives to each neighbour along an axis.
    """

    dihedral: bool = True
    stain: float = 0.12
    offset: float = 0.02
    blur: float = 0.15

    def __post_init__(self) -> None:
        check_fraction(stain=self.stain, offset=self.offset, blur=self.blur)
        if self.blur > 0.25:
            msg = f"`blur={self.blur}` must be at most 0.25, a [1, 2, 1] / 4 kernel."
            raise InputError(msg)


def dihedral(image: Tensor, k: int) -> Tensor:
    """Symmetry ``k`` of the square, 0..7, of ``(..., n, n)``: ``k % 4`` quarter turns, mirrored first for ``k >= 4``."""
    if not 0 <= k < 8:
        msg = f"`k={k}` must lie in 0..7."
        raise InputError(msg)
    if image.shape[-1] != image.shape[-2]:
        msg = f"image of {image.shape[-2]} x {image.shape[-1]} px; only squares have all 8 symmetries."
        raise InputError(msg)
    return torch.rot90(image.flip(-1) if k >= 4 else image, k % 4, (-2, -1))


def stain_matrix(gain: Tensor) -> Tensor:
    """Matrices ``(b, 3, 3)`` that scale haematoxylin and eosin by ``gain`` ``(b, 2)`` and keep what is neither."""
    stains = torch.tensor(STAINS, dtype=torch.float64)
    stains = stains / stains.norm(dim=1, keepdim=True)
    amounts = torch.linalg.pinv(stains)  # (3, 2): optical density -> amount of each stain
    change = torch.einsum("is,bs,sj->bij", amounts, gain.double() - 1, stains).transpose(1, 2)
    return (torch.eye(3, dtype=torch.float64) + change).float()


def blur(image: Tensor, amount: Tensor) -> Tensor:
    """Smooth each image of ``(b, c, h, w)`` by ``[a, 1 - 2a, a]`` along both axes, ``amount`` ``(b,)``; edges repeat."""
    a = amount.view(-1, 1, 1, 1)
    for axis in (2, 3):
        n = image.shape[axis]
        before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, n - 1)], axis)
        after = torch.cat([image.narrow(axis, 1, n - 1), image.narrow(axis, n - 1, 1)], axis)
        image = image + a * (before + after - 2 * image)
    return image


class Augment:
    """Random changes of a batch, the same for the same ``(seed, epoch, step)``.

    Parameters
    ----------
    config
        How far patches may be changed.
    seed
        Seed of all draws.
    """

    def __init__(self, config: AugmentConfig, *, seed: int = 0) -> None:
        self.config, self.seed = config, seed

    def __call__(self, image: Tensor, *, epoch: int, step: int) -> Tensor:
        """Optical densities ``(b, 3, n, n)`` float32 of uint8 patches of that shape, changed."""
        draw = self._generator(epoch, step)
        n, config = len(image), self.config
        if config.dihedral:
            image = self._turned(image, torch.randint(0, 8, (n,), generator=draw))
        od = optical_density(image)
        gain = 1 + config.stain * (2 * torch.rand(n, 2, generator=draw) - 1)
        shift = config.offset * (2 * torch.rand(n, 3, 1, 1, generator=draw) - 1)
        amount = config.blur * torch.rand(n, generator=draw).square()  # mostly little
        if config.stain > 0 or config.offset > 0:
            matrix = stain_matrix(gain).to(od.device)
            od = torch.baddbmm(shift[..., 0].to(od.device), matrix, od.flatten(2)).view_as(od)
        return blur(od, amount.to(od.device)) if config.blur > 0 else od

    @staticmethod
    def _turned(image: Tensor, symmetry: Tensor) -> Tensor:
        out = torch.empty_like(image, memory_format=torch.contiguous_format)
        for k in range(8):
            rows = (symmetry == k).nonzero()[:, 0].to(image.device)
            out[rows] = dihedral(image[rows], k)
        return out

    def _generator(self, epoch: int, step: int) -> torch.Generator:
        # distinct streams for all epochs below 2**20 and steps below 2**24
        mixed = (self.seed * 0x9E3779B97F4A7C15 + (epoch << 24) + step) % 2**63
        return torch.Generator().manual_seed(mixed)
