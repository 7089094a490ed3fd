"""Attributions against a score whose sources are known."""

import numpy as np
import pytest
import torch

from spatialsig.errors import InputError
from spatialsig.nn.saliency import BASELINES, can_roll_out, integrated_gradients, rollout, summed_cells
from spatialsig.nn.signature import SignatureConfig, SignatureNet
from spatialsig.nn.vit import ViT, ViTConfig, optical_density

VIT = ViTConfig(dim=16, depth=2, heads=2, mlp_dim=16, stem=(4, 8), stem_blocks=(0, 0))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8))


def start_of(images: torch.Tensor, baseline: str) -> torch.Tensor:
    density = optical_density(images)
    return torch.stack([torch.stack([channel.mean().expand(16, 16) for channel in one]) for one in density]) * (
        baseline == "mean"
    )


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_linear_score_gives_back_its_terms(images: torch.Tensor, baseline: str) -> None:
    weight = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = integrated_gradients(
        lambda x: torch.einsum("bcyx,tcyx->bt", x, weight), images, targets=[1], n_steps=3, baseline=baseline
    )
    expected = ((optical_density(images) - start_of(images, baseline)) * weight[1]).sum(dim=1)
    torch.testing.assert_close(found[:, 0], expected)


@pytest.mark.parametrize("baseline", BASELINES)
def test_attributions_add_up_to_the_score_less_that_of_the_baseline(images: torch.Tensor, baseline: str) -> None:
    torch.manual_seed(0)
    net = SignatureNet(SignatureConfig(VIT, 4)).eval()
    found = integrated_gradients(net, images, targets=[0, 2, 3], n_steps=64, baseline=baseline)
    with torch.no_grad():
        expected = (net(images) - net(start_of(images, baseline)))[:, [0, 2, 3]]
    torch.testing.assert_close(found.sum(dim=(2, 3)), expected, atol=2e-2, rtol=2e-2)
    assert expected.abs().max() > 0.1


def test_cells_keep_the_sum() -> None:
    values = torch.arange(64.0).reshape(1, 8, 8)
    expected = values.numpy().reshape(1, 2, 4, 2, 4).sum(axis=(2, 4))
    np.testing.assert_array_equal(summed_cells(values, 4), expected)
    with pytest.raises(InputError, match="`cell_px=3` does not divide a patch of 8 x 8 px"):
        summed_cells(values, 3)


def random_attention(blocks: int, n: int, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.softmax(3 * torch.randn(2, 3, n, n, generator=draw), dim=-1) for _ in range(blocks)]


@pytest.mark.parametrize("from_class", [True, False])
def test_rollout_equals_the_product_written_out(from_class: bool) -> None:
    maps = random_attention(3, 1 + 6 + 1)
    found = rollout(maps, n_prefix=1, grid=(2, 3), from_class=from_class)
    for sample in range(2):
        flow = np.eye(8)
        for block in maps:
            a = 0.5 * block[sample].numpy().mean(axis=0) + 0.5 * np.eye(8)
            flow = (a / a.sum(axis=1, keepdims=True)) @ flow
        read = flow[0] if from_class else flow[1:7].mean(axis=0)
        np.testing.assert_allclose(found[sample].reshape(-1), read[1:7] / read[1:7].sum(), rtol=1e-5)
    np.testing.assert_allclose(found.sum(dim=(1, 2)), 1, rtol=1e-6)


def test_rollout_finds_the_token_that_all_look_at() -> None:
    looked_at = torch.zeros(1, 1, 9, 9)
    looked_at[..., 4] = 1
    assert rollout([looked_at] * 2, n_prefix=0, grid=(3, 3), from_class=False).argmax() == 4


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_our_network_can_be_followed(images: torch.Tensor, pool: str) -> None:
    net = ViT(ViTConfig(dim=16, depth=2, heads=2, mlp_dim=16, stem=(4, 8), stem_blocks=(0, 0), pool=pool)).eval()
    assert can_roll_out(net)
    assert not can_roll_out(torch.nn.Linear(1, 1))
    found = rollout(
        net.forward_attention(images), n_prefix=net.n_prefix, grid=net.grid_shape(16, 16), from_class=pool == "class"
    )
    assert found.shape == (3, 4, 4)
    assert (found >= 0).all()


def test_errors() -> None:
    with pytest.raises(InputError, match="has no attention"):
        rollout([], n_prefix=0, grid=(2, 2), from_class=False)
    with pytest.raises(InputError, match="4 tokens hold no 1 \\+ 2 x 2"):
        rollout(random_attention(1, 4), n_prefix=1, grid=(2, 2), from_class=True)
