"""Changes of an H&E patch that leave its signatures alone: turns, stain, focus.

Floor 1, above the ground floor. Called as sp.AugmentConfig; used by 5 modules of models, nn, train.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spatialsig._arguments import Fraction, checked_class
from spatialsig._stains import STAINS
from spatialsig.errors import InputError
from spatialsig.nn.vit import optical_density

_GOLDEN, _FIRST, _SECOND = (  # constants of SplitMix64 (Steele, Lea and Flood 2014), as signed 64-bit integers
    constant - 2**64 for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


@checked_class
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
    stain: Fraction = 0.12
    offset: Fraction = 0.02
    blur: Fraction = 0.15

    def __post_init__(self) -> None:
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
    parts = torch.einsum("is,sj->sji", amounts, stains).float().to(gain.device)  # (2, 3, 3): what each stain adds
    return torch.eye(3, device=gain.device) + torch.einsum("bs,sji->bji", gain.float() - 1, parts)


def blur(image: Tensor, amount: Tensor) -> Tensor:
    """Smooth each image of ``(b, c, h, w)`` by ``[a, 1 - 2a, a]`` along both axes, ``amount`` ``(b,)``; edges repeat."""
    a = amount.view(-1, 1, 1, 1)
    for axis in (2, 3):
        n = image.shape[axis]
        before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, n - 1)], axis)
        after = torch.cat([image.narrow(axis, 1, n - 1), image.narrow(axis, n - 1, 1)], axis)
        image = image + a * (before + after - 2 * image)
    return image


def turned(image: Tensor, symmetry: Tensor) -> Tensor:
    """Each image of ``(b, c, n, n)`` under its own :func:`dihedral` symmetry, ``(b,)`` on the same device."""
    if image.shape[-1] != image.shape[-2]:
        dihedral(image, 0)
    quarter, mirror = symmetry % 4, symmetry >= 4
    # a quarter turn is a transposition and then a flip upside down: three steps, none of which asks the device
    image = _where(mirror, image.flip(-1), image)
    image = _where(quarter % 2 == 1, image.transpose(-1, -2).flip(-2), image)
    return _where(quarter >= 2, image.flip((-2, -1)), image)


def _where(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, 1, 1, 1), yes, no)


def uniform(ids: Tensor, *, seed: int, epoch: int, n: int) -> Tensor:
    """Numbers in [0, 1), ``(b, n)`` float32, that depend on ``(seed, epoch, id)`` only.

    The same on every device, in every batch: each is the hash of its coordinates (the finaliser of SplitMix64).
    """
    key = _mixed(torch.tensor([seed, epoch], dtype=torch.int64))
    key = _mixed(key[0] + key[1] * 3).to(ids.device)
    counter = torch.arange(1, n + 1, device=ids.device, dtype=torch.int64)
    bits = _mixed(_mixed(ids.long() + key)[:, None] + counter * _GOLDEN)
    drawn: Tensor = ((bits >> 40) & 0xFFFFFF).float() / 2**24  # the upper bits mix best; float32 holds 24
    return drawn


def _mixed(x: Tensor) -> Tensor:
    """Finaliser of SplitMix64 on every int64; overflow is meant."""
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    mixed: Tensor = x ^ _shifted(x, 31)
    return mixed


def _shifted(x: Tensor, n: int) -> Tensor:
    """Shift right, zeros in: torch's own shift repeats the sign."""
    shifted: Tensor = (x >> n) & (2 ** (64 - n) - 1)
    return shifted


class Augment:
    """Random changes of a batch; those of a patch depend on ``(seed, epoch, id)`` and not on the batch it is in.

    Parameters
    ----------
    config
        How far patches may be changed.
    seed
        Seed of all draws.
    """

    def __init__(self, config: AugmentConfig, *, seed: int = 0) -> None:
        self.config, self.seed = config, seed

    def __call__(self, image: Tensor, ids: Tensor, *, epoch: int) -> Tensor:
        """Optical densities ``(b, 3, n, n)`` float32 of uint8 patches of that shape and their ``ids`` ``(b,)``, changed."""
        draw = uniform(ids.to(image.device), seed=self.seed, epoch=epoch, n=7)
        config = self.config
        if config.dihedral:
            image = turned(image, (8 * draw[:, 0]).long())
        od = optical_density(image)
        if config.stain > 0 or config.offset > 0:
            matrix = stain_matrix(1 + config.stain * (2 * draw[:, 1:3] - 1))
            shift = config.offset * (2 * draw[:, 3:6, None] - 1)
            od = torch.baddbmm(shift, matrix, od.flatten(2)).view_as(od)
        return blur(od, config.blur * draw[:, 6].square()) if config.blur > 0 else od  # mostly little
