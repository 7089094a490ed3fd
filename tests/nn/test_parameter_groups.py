import pytest
import torch
from torch import nn

from spatialsig.errors import InputError
from spatialsig.nn.lora import add_lora
from spatialsig.nn.parameter_groups import layer_depths, parameter_groups
from spatialsig.nn.vit import ViT, ViTConfig


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        config = ViTConfig(dim=16, depth=3, heads=2, mlp_dim=64, stem=(4,), stem_blocks=(0,), pool="class")
        self.backbone = ViT(config)
        self.head = nn.Linear(16, 2)


def rates(net: Net, **options: float) -> dict[str, float]:
    names = {p: name for name, p in net.named_parameters()}
    groups = parameter_groups(net, learning_rate=1.0, weight_decay=0.1, **options)
    return {names[p]: group["lr"] for group in groups for p in group["params"]}


def test_without_decay_there_are_matrices_and_the_rest() -> None:
    net = Net()
    matrices, vectors = parameter_groups(net, learning_rate=0.3, weight_decay=0.1)
    assert {p.ndim > 1 for p in matrices["params"]} == {True}
    assert matrices["weight_decay"] == 0.1
    assert {p.ndim > 1 for p in vectors["params"]} == {False}
    assert vectors["weight_decay"] == 0.0
    assert matrices["lr"] == vectors["lr"] == 0.3
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(net.parameters()))


def test_every_layer_learns_more_slowly_than_the_next() -> None:
    found = rates(Net(), layer_decay=0.5)
    assert set(found) == {name for name, _ in Net().named_parameters()}
    assert found["head.weight"] == 1.0
    assert found["backbone.norm.weight"] == 0.5
    assert [found[f"backbone.blocks.{k}.to_qkv.weight"] for k in (2, 1, 0)] == [0.25, 0.125, 0.0625]
    assert found["backbone.stem.0.0.weight"] == found["backbone.class_token"] == 0.03125


def test_frozen_weights_are_left_out() -> None:
    net = Net()
    add_lora(net.backbone, rank=2)
    found = rates(net)
    assert {name.rpartition(".")[2] for name in found if name.startswith("backbone")} == {"down", "up"}


def test_a_network_without_a_row_of_blocks_has_one_depth() -> None:
    assert set(layer_depths(nn.Linear(2, 2)).values()) == {0}
    groups = parameter_groups(nn.Linear(2, 2), learning_rate=1.0, weight_decay=0.0, layer_decay=0.5)
    assert {group["lr"] for group in groups} == {1.0}


@pytest.mark.parametrize("layer_decay", [0.0, 1.5])
def test_impossible_decays_are_refused(layer_decay: float) -> None:
    with pytest.raises(InputError, match="must lie above 0 and at most at 1"):
        parameter_groups(Net(), learning_rate=1.0, weight_decay=0.0, layer_decay=layer_decay)


def test_an_optimiser_takes_them() -> None:
    torch.optim.AdamW(parameter_groups(Net(), learning_rate=1.0, weight_decay=0.1, layer_decay=0.5))
