"""Groups of the weights of a network for an optimiser: learning rate by layer, decay of matrices only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

BACKBONE = "backbone"  # attribute of a network under which its image network is kept


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
