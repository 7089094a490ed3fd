"""Places inside a patch: their scores, of which that of the patch is the mean, and what the network sees at a point.

Floor 1, above the ground floor. Used by inference/local.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spatialsig.nn.signature import SignatureNet
from spatialsig.nn.vit import ViT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WINDOW_PX = 8  # a nucleus at 0.5 to 0.7 µm/px: finer stages are averaged over about so many px
SPREAD_EPS = 1e-5  # as `stage_moments` adds to variances


def has_places(net: Any) -> bool:
    """Whether a network reads a patch as means over its places: our own, which averages its tokens."""
    return isinstance(net, SignatureNet) and isinstance(net.backbone, ViT) and net.backbone.config.pool == "mean"


def local_scores(net: SignatureNet, image: Tensor, *, edges: int) -> Tensor:
    """Standardised scores of ``edges`` x ``edges`` squares of every patch, ``(b, n_targets, edges, edges)``, from the image alone.

    The network sees a patch as a distribution of local features: the mean of its tokens, mean and deviation of the
    channels of its stem. A square has the score that the patch would have if what lies there were mixed in, to first
    order (the influence function [1]_ of the score): the score of the patch plus its derivative by the features times how
    far those of the square are from their mean over the patch. The squares of a patch have the score of the patch as their mean,
    exactly; where the score is linear in the means, a square has the score that it would have alone.

    References
    ----------
    .. [1] Hampel FR. The influence curve and its role in robust estimation. Journal of the American Statistical
       Association 69, 383-393 (1974). https://doi.org/10.1080/01621459.1974.10482962
    """
    vit: Any = net.backbone
    read, extra = _reader(net, len(image))
    with torch.no_grad():
        stages = vit.stages(image)
        tokens = vit.forward_tokens(stages[-1], extra)
        features = vit.forward_head(tokens, stages).float()
    scores, slopes = _with_slopes(read, features)
    (height, width), dim = stages[-1].shape[2:], vit.config.dim
    of_image = tokens[:, vit.n_prefix : vit.n_prefix + height * width]
    grid = of_image.transpose(1, 2).reshape(len(image), dim, height, width)
    local = _squares(torch.einsum("btc,bchw->bthw", slopes[..., :dim], grid.float()), edges)
    if vit.config.stem_features:
        start = dim
        for stage in stages:
            width_of = stage.shape[1]
            middle = start + width_of
            by_mean, by_spread = slopes[..., start:middle], slopes[..., middle : middle + width_of]
            local = local + _of_stage(stage.float(), by_mean, by_spread, edges)
            start += 2 * width_of
    centred: Tensor = local - local.mean(dim=(2, 3), keepdim=True)
    return scores[:, :, None, None] + centred


@torch.no_grad()
def features_at(net: SignatureNet, image: Tensor, points: Sequence[Tensor]) -> Tensor:
    """What the network sees at points of patches, from the image alone: ``(sum of n, d)``, the points of the first patch first.

    The channels of every stage of the stem and the tokens after all blocks, where the point lies, and the scores of the patch around
    it. ``points`` holds ``(n, 2)`` for each patch: x and y as shares of its edge.
    """
    vit: Any = net.backbone
    read, extra = _reader(net, len(image))
    stages = vit.stages(image)
    tokens = vit.forward_tokens(stages[-1], extra)
    scores = read(vit.forward_head(tokens, stages).float())
    height, width = stages[-1].shape[2:]
    of_image = tokens[:, vit.n_prefix : vit.n_prefix + height * width]
    grid = of_image.transpose(1, 2).reshape(len(image), vit.config.dim, height, width)
    maps = [*(_over_window(stage.float(), 2 ** (k + 1)) for k, stage in enumerate(stages)), grid.float()]
    found = []
    for k, at in enumerate(points):
        place = (2 * at.to(image.device, torch.float32) - 1)[None, None]
        seen = [
            F.grid_sample(one[k : k + 1], place, padding_mode="border", align_corners=False)[0, :, 0].T for one in maps
        ]
        found.append(torch.cat([*seen, scores[k].expand(len(at), -1)], dim=1))
    return torch.cat(found)


def _over_window(stage: Tensor, stride: int) -> Tensor:
    """Means of a stage over windows of about :data:`WINDOW_PX`, around every px of it."""
    edge = (WINDOW_PX // stride) | 1
    return stage if edge == 1 else F.avg_pool2d(stage, edge, 1, edge // 2, count_include_pad=False)


def _reader(net: SignatureNet, n: int) -> tuple[Callable[[Tensor], Tensor], Tensor | None]:
    """What makes scores of the features of ``n`` images without expression, and the tokens that stand for it."""
    if net.config.fusion == "none":
        return lambda features: net.read(net.whiten(features), None, None).mean, None
    code, keep = net.fusion.given(None, None, n)
    embedded = net.fusion.embed(code, keep)
    return lambda features: net.read(net.whiten(features), code, embedded).mean, net.fusion.tokens(embedded)


def _with_slopes(read: Callable[[Tensor], Tensor], features: Tensor) -> tuple[Tensor, Tensor]:
    """Scores ``(b, n_targets)`` of features ``(b, d)``, and their derivatives ``(b, n_targets, d)``."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        scores = read(leaf)
        slopes = [torch.autograd.grad(one.sum(), leaf, retain_graph=True)[0] for one in scores.unbind(dim=1)]
    return scores.detach(), torch.stack(slopes, dim=1)


def _of_stage(stage: Tensor, by_mean: Tensor, by_spread: Tensor, edges: int) -> Tensor:
    """What the channels of a stage ``(b, c, h, w)`` add in every square, but for a constant of the patch."""
    mean = stage.mean(dim=(2, 3), keepdim=True)
    squared = (stage - mean).square()
    spread = (squared.mean(dim=(2, 3)) + SPREAD_EPS).sqrt()
    if min(stage.shape[2:]) >= edges:  # fewer numbers to multiply
        stage, squared = _squares(stage, edges), _squares(squared, edges)
    of_mean = torch.einsum("btc,bchw->bthw", by_mean, stage)
    of_spread = torch.einsum("btc,bchw->bthw", by_spread / (2 * spread[:, None]), squared)
    return _squares(of_mean + of_spread, edges)


def _squares(values: Tensor, edges: int) -> Tensor:
    """Means of maps ``(b, k, h, w)`` over ``edges`` x ``edges`` squares; of a coarser map, the values that lie there."""
    return values if values.shape[2:] == (edges, edges) else F.adaptive_avg_pool2d(values, edges)
