import pytest
import torch
from torch import nn

from spatialsig.errors import InputError
from spatialsig.nn.fine_tuning import LoRALinear, add_lora, layer_depths, merge_lora, parameter_groups
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


TINY = ViTConfig(dim=16, depth=2, heads=2, mlp_dim=32, stem=(4, 8), stem_blocks=(0, 0), drop_path=0.0)
IMAGE = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def vit() -> ViT:
    torch.manual_seed(0)
    return ViT(TINY).eval()


def trained(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, LoRALinear):
            nn.init.normal_(module.up, std=0.5, generator=torch.Generator().manual_seed(1))
    return net


def test_additions_change_nothing_until_they_are_trained() -> None:
    net, plain = vit(), vit()
    names = add_lora(net, rank=2)
    assert names == [f"blocks.{k}.{layer}" for k in (0, 1) for layer in ("to_qkv", "to_out")]
    torch.testing.assert_close(net(IMAGE), plain(IMAGE), rtol=0, atol=0)
    assert not torch.allclose(trained(net)(IMAGE), plain(IMAGE), atol=1e-3)


def test_only_the_additions_learn() -> None:
    net = vit()
    add_lora(net, rank=2)
    free = {name for name, p in net.named_parameters() if p.requires_grad}
    assert free == {
        f"blocks.{k}.{layer}.{part}" for k in (0, 1) for layer in ("to_qkv", "to_out") for part in ("down", "up")
    }
    trained(net)(IMAGE).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())


def test_merging_gives_the_same_outputs_and_the_plain_architecture() -> None:
    net = vit()
    add_lora(net, rank=3, alpha=7.0)
    before = trained(net)(IMAGE)
    weights = {n: m.weight for n, m in net.named_modules() if isinstance(m, LoRALinear)}
    merge_lora(net)
    torch.testing.assert_close(net(IMAGE), before, rtol=1e-6, atol=1e-6)
    for name, weight in weights.items():
        torch.testing.assert_close(net.get_submodule(name).weight, weight)
    fresh = vit()
    fresh.load_state_dict(net.state_dict())
    torch.testing.assert_close(fresh(IMAGE), net(IMAGE))
    assert all(p.requires_grad for p in net.parameters())


def test_the_product_is_scaled_by_alpha_over_rank() -> None:
    base = nn.Linear(5, 4)
    layer = LoRALinear(base, rank=2, alpha=6.0)
    nn.init.normal_(layer.up)
    x = torch.randn(7, 5)
    expected = x @ (base.weight + 3 * layer.up @ layer.down).T + base.bias
    torch.testing.assert_close(layer(x), expected)


def test_layers_that_are_not_there_or_read_elsewhere_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"no linear layer of ViT is called one of \['query'\]; .* \['1', '3', 'to_out', 'to_qkv'\]"
    ):
        add_lora(vit(), layers=["query"])
    with pytest.raises(InputError, match="no linear layer of TransformerEncoderLayer is called"):
        add_lora(nn.TransformerEncoderLayer(8, 2, 8))  # torch's attention reads the weights of out_proj itself
    with pytest.raises(InputError, match="`rank` must be a finite number above 0"):
        add_lora(vit(), rank=0)
