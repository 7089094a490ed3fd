"""What learns of a network follows from what it has seen before; what excludes each other is refused."""

import pytest
import torch
from torch import Tensor, nn

from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.inference.tuning import FROZEN, FULL, LAYER_DECAY, LORA, Tuning, plan_tuning
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.nn.vit import ViT, ViTConfig

TINY = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 8, 8), stem_blocks=(0, 0, 0))
NOTHING = {
    "options": None, "pretrained": None, "size": "tiny", "tune": None, "lora": None, "layer_decay": None,
}  # fmt: skip


def plan(backbone: object = "vit", **changes: object) -> Tuning:
    return plan_tuning(backbone, **NOTHING | changes)


def means(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


@pytest.fixture
def pretrained() -> PretrainedViT:
    torch.manual_seed(0)
    return PretrainedViT(ViT(TINY), patch_px=32, um_per_px=0.5)


def test_a_new_network_learns_whole() -> None:
    assert plan() == Tuning(None, "tiny", FULL, 1.0, {})
    assert plan(layer_decay=0.5).layer_decay == 0.5
    for tune in (FROZEN, LORA):
        with pytest.raises(
            InputError, match=f"`tune='{tune}'` needs a network that was trained before: pass `backbone`"
        ):
            plan(tune=tune)


def test_networks_of_others_are_frozen_unless_said(pretrained: PretrainedViT) -> None:
    with pytest.warns(SpatialsigWarning, match="keeps the weights it has, and only a head learns from its features"):
        assert plan(means).tune == FROZEN
    full = plan(means, tune=FULL)
    assert (full.tune, full.layer_decay) == (FULL, LAYER_DECAY)
    assert plan(means, tune=FULL, layer_decay=1.0).layer_decay == 1.0
    lora = plan(means, tune=LORA, lora={"rank": 2})
    assert (lora.tune, lora.layer_decay, lora.lora) == (LORA, 1.0, {"rank": 2})


def test_options_of_a_backbone_reach_it() -> None:
    network = plan(means, tune=FROZEN, options={"input_px": 24, "um_per_px": 0.25}).network
    assert (network.inputs.input_px, network.um_per_px) == (24, 0.25)


def test_tables_stand_for_networks_that_cannot_learn() -> None:
    tuning = plan("table:uni")
    assert (tuning.table, tuning.network, tuning.tune) == ("uni", None, FULL)
    assert plan("table:uni", tune=FROZEN).tune == FULL  # the head alone, which is all there is
    with pytest.raises(
        InputError, match=r"`tune='lora'`: `backbone='table:uni'` is a table of features, not a network"
    ):
        plan("table:uni", tune=LORA)


def test_pretrained_networks_are_copied(pretrained: PretrainedViT) -> None:
    tuning = plan(pretrained=pretrained, size=TINY)
    assert (tuning.size, tuning.um_per_px, tuning.tune) == (TINY, 0.5, FULL)
    assert tuning.network is not pretrained.net
    for ours, theirs in zip(tuning.network.parameters(), pretrained.net.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    nn.init.zeros_(next(iter(tuning.network.parameters())))
    assert next(iter(pretrained.net.parameters())).abs().sum() > 0


def test_pretrained_networks_of_another_shape_are_refused(pretrained: PretrainedViT) -> None:
    with pytest.raises(
        InputError, match=r"another shape than `size='tiny'`: .*dim 16, asked for .*`size=pretrained.config`"
    ):
        plan(pretrained=pretrained)
    with pytest.raises(InputError, match="cannot be combined with `backbone="):
        plan(means, pretrained=pretrained, size=TINY)


def test_unknown_ways_to_tune_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"`tune='some'` is not known; choose one of \['frozen', 'lora', 'full', None\]"
    ):
        plan(tune="some")
