"""How the weights of a trained network may change: rates and decay by layer, low-rank additions to linear layers.

Floor 1, above the ground floor. Used by inference/tuning, train/pretrain, train/vit_module.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatialsig._checks import check_positive
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

BACKBONE = "backbone"  # attribute of a network under which its image network is kept
# linear layers inside attention, as our own network, timm and transformers call them
ATTENTION = ("to_qkv", "to_out", "qkv", "proj", "query", "key", "value", "q_proj", "k_proj", "v_proj", "out_proj")


def parameter_groups(
    net: nn.Module, *, learning_rate: float, weight_decay: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Groups for an optimiser: biases, norms and learned tokens do not decay, early layers learn more slowly.

    Parameters
    ----------
    net
        Network; only weights that take gradients are grouped.
    learning_rate
        Rate of everything outside ``net.backbone``.
    weight_decay
        Decay of matrices.
    layer_decay
        Factor between the rates of one layer of ``net.backbone`` and the next, above 0 and at most 1. What a trained
        network knows about edges and colours needs less change than what it knows about its old task. 1 treats all
        layers alike.

    Returns
    -------
    Dicts with ``params``, ``weight_decay`` and ``lr``, the highest rate first; two of them without ``layer_decay``.
    """
    if not 0 < layer_decay <= 1:
        msg = f"`layer_decay={layer_decay}` must lie above 0 and at most at 1."
        raise InputError(msg)
    backbone = getattr(net, BACKBONE, None)
    depths = layer_depths(backbone) if layer_decay < 1 and isinstance(backbone, nn.Module) else {}
    top = max(depths.values(), default=0)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        own = name.removeprefix(f"{BACKBONE}.")
        depth = depths.get(own, top + 1) if own != name else top + 1
        rate = learning_rate * layer_decay ** (top + 1 - depth) if depths else learning_rate
        groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: item[0], reverse=True)
    return [{"params": p, "weight_decay": weight_decay * decays, "lr": rate} for (rate, decays), p in ordered]


def layer_depths(backbone: nn.Module) -> dict[str, int]:
    """Depth of every parameter: 0 before the blocks, 1 and up in them, one more after them.

    The blocks are the longest row of modules in the network that holds most of its weights.
    """
    row = _blocks(backbone)
    depths, seen = {}, False
    n = 0 if row is None else len(row[1])
    for name, _ in backbone.named_parameters():
        if row is not None and name.startswith(f"{row[0]}."):
            seen = True
            depths[name] = 1 + int(name[len(row[0]) + 1 :].split(".")[0])
        else:
            depths[name] = n + 1 if seen else 0
    return depths


def _blocks(backbone: nn.Module) -> tuple[str, Sequence[nn.Module]] | None:
    rows = {
        name: list(module)
        for name, module in backbone.named_modules()
        if name and isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1
    }
    if not rows:
        return None
    weights = {name: sum(p.numel() for block in row for p in block.parameters()) for name, row in rows.items()}
    name = max(rows, key=lambda name: (weights[name], -len(name)))
    return name, rows[name]


class LoRALinear(nn.Module):
    """A linear layer that stays as it is, plus ``alpha / rank`` times a product of two thin matrices that is learned.

    Parameters
    ----------
    base
        The layer; its weights take no gradients from now on.
    rank
        Inner width of the product.
    alpha
        Its scale, times ``rank``.
    """

    def __init__(self, base: nn.Linear, *, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(requires_grad=False)
        self.down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))  # nothing is added at the start
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale = alpha / rank

    @property
    def weight(self) -> Tensor:
        """What the layer multiplies by now, ``(out_features, in_features)``."""
        return self.base.weight + self.scale * self.up @ self.down

    def forward(self, x: Tensor) -> Tensor:
        """Input ``(..., in_features)`` to ``(..., out_features)``."""
        added = F.linear(F.linear(x, self.down), self.up)
        out: Tensor = self.base(x) + self.scale * added
        return out

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer that does the same."""
        self.base.weight.copy_(self.weight)
        return self.base.requires_grad_(requires_grad=True)


def add_lora(net: nn.Module, *, rank: int = 8, alpha: float = 16.0, layers: Sequence[str] = ATTENTION) -> list[str]:
    """Freeze a network and put low-rank additions on some of its linear layers.

    Parameters
    ----------
    net
        Network; changed in place. Its outputs are not, until it is trained.
    rank, alpha
        Width and scale of the additions.
    layers
        Last part of the names of the layers to add to (``"query"`` stands for every ``....query``).

    Returns
    -------
    Full names of the layers that were added to.

    Raises
    ------
    InputError
        If no linear layer is called so.
    """
    check_positive(rank=rank, alpha=alpha)
    linear = {name: module for name, module in net.named_modules() if _fits(net, name, module)}
    chosen = [name for name in linear if name.rpartition(".")[2] in layers]
    if not chosen:
        known = sorted({name.rpartition(".")[2] for name in linear})
        msg = f"no linear layer of {type(net).__name__} is called one of {list(layers)}; its linear layers: {known}."
        raise InputError(msg)
    net.requires_grad_(requires_grad=False)
    for name in chosen:
        _replace(net, name, LoRALinear(linear[name], rank=rank, alpha=alpha))
    return chosen


def merge_lora(net: nn.Module) -> None:
    """Fold all additions into their layers: the network is as it was before :func:`add_lora`, with new weights."""
    added = {name: module for name, module in net.named_modules() if isinstance(module, LoRALinear)}
    for name, module in added.items():
        _replace(net, name, module.merged())
    net.requires_grad_(requires_grad=True)


def _fits(net: nn.Module, name: str, module: nn.Module) -> bool:
    """Whether a module is a linear layer that is called; torch's own attention reads the weights of its layers itself."""
    if type(module) is not nn.Linear or not name:
        return False
    return not isinstance(net.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention)


def _replace(net: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(net.get_submodule(parent), own, module)
