"""Maps of where in a patch a score comes from: integrated gradients of any network, attention rollout of a transformer.

Floor 1, above the ground floor. Used by tl/_attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spatialsig.errors import InputError
from spatialsig.nn.vit import optical_density

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn


MEAN, GLASS = "mean", "glass"
BASELINES = (MEAN, GLASS)


def integrated_gradients(
    score: Callable[[Tensor], Tensor], image: Tensor, *, targets: Sequence[int], n_steps: int, baseline: str = MEAN
) -> Tensor:
    """What every pixel adds to each score, ``(b, len(targets), h, w)``.

    The patch is faded in from its baseline in ``n_steps`` steps, and the gradient of the score is added up on the way
    (Sundararajan et al. 2017). The sum over the pixels is the score less that of the baseline, up to the error of the
    steps.

    Parameters
    ----------
    score
        Network: optical densities ``(b, 3, h, w)`` to scores ``(b, t)``.
    image
        ``(b, 3, h, w)`` uint8 pixels.
    targets
        Which scores.
    n_steps
        Steps; more are more exact.
    baseline
        ``"mean"``: the mean dye of each patch, everywhere alike; ``"glass"``: no dye.
    """
    density = optical_density(image)
    start = density.mean(dim=(2, 3), keepdim=True) if baseline == MEAN else torch.zeros_like(density[..., :1, :1])
    added = density - start
    out = torch.zeros((len(image), len(targets), *image.shape[2:]), device=image.device)
    for step in range(n_steps):
        faded = (start + added * ((step + 0.5) / n_steps)).requires_grad_()
        scores = score(faded)
        for k, target in enumerate(targets):
            (gradient,) = torch.autograd.grad(scores[:, target].sum(), faded, retain_graph=k + 1 < len(targets))
            out[:, k] += (gradient * added).sum(dim=1) / n_steps
    return out


def rollout(maps: Sequence[Tensor], *, n_prefix: int, grid: tuple[int, int], from_class: bool) -> Tensor:
    """How much of what is read from a transformer comes from each image token, ``(b, rows, columns)``, 1 in all.

    Attention of all heads is averaged, half of every token is taken to stay with itself (the residual path), and the
    blocks are multiplied (Abnar and Zuidema 2020).

    Parameters
    ----------
    maps
        Attention of every block, first to last, ``(b, heads, n, n)``; rows sum to 1.
    n_prefix
        Tokens before those of the image.
    grid
        Rows and columns of image tokens.
    from_class
        Whether the first token is read at the end; otherwise the mean of the image's.

    Raises
    ------
    InputError
        If there is no attention to follow, or not so many tokens.
    """
    if not maps:
        msg = "the network has no attention (a transformer of depth 0); use `method='gradient'`."
        raise InputError(msg)
    n, n_image = maps[0].shape[-1], grid[0] * grid[1]
    if n < n_prefix + n_image:
        msg = f"{n} tokens hold no {n_prefix} + {grid[0]} x {grid[1]}; the network does not say where its tokens lie."
        raise InputError(msg)
    flow = torch.eye(n, device=maps[0].device).expand(len(maps[0]), n, n)
    for attention in maps:
        flow = (attention.float().mean(dim=1) @ flow + flow) / 2
    image_tokens = slice(n_prefix, n_prefix + n_image)
    read = flow[:, 0] if from_class else flow[:, image_tokens].mean(dim=1)
    shares = read[:, image_tokens]
    return (shares / shares.sum(dim=1, keepdim=True)).reshape(-1, *grid)


def can_roll_out(backbone: nn.Module) -> bool:
    """Whether a backbone gives its attention and says where its tokens lie."""
    return all(hasattr(backbone, name) for name in ("forward_attention", "grid_shape", "n_prefix"))


def summed_cells(values: Tensor, cell_px: int) -> Tensor:
    """Sums over squares of ``cell_px``, ``(..., h, w)`` to ``(..., h / cell_px, w / cell_px)``."""
    height, width = values.shape[-2:]
    if height % cell_px or width % cell_px:
        msg = f"`cell_px={cell_px}` does not divide a patch of {height} x {width} px."
        raise InputError(msg)
    split = values.reshape(*values.shape[:-2], height // cell_px, cell_px, width // cell_px, cell_px)
    return split.sum(dim=(-3, -1))
