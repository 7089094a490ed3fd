import numpy as np
import pytest
import torch

from spatialsig.errors import InputError
from spatialsig.nn.vit import SIZES, Block, DropPath, ViT, ViTConfig, optical_density, sincos_positions, vit_config
from spatialsig.stats import stain

SMALL = ViTConfig(dim=32, depth=2, heads=2, mlp_dim=64, stem=(8, 16), stem_blocks=(0, 1))  # 32 + 2 * (8 + 16) features


def pixels(n: int = 2, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_optical_density_is_minus_log() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    np.testing.assert_allclose(optical_density(values), -np.log((np.arange(256) + 1) / 256), atol=1e-6)
    with pytest.raises(InputError, match=r"float32; wanted torch.uint8"):
        optical_density(torch.zeros(1))


def test_positions_are_sines_and_cosines_of_row_and_column() -> None:
    height, width, dim = 3, 5, 8
    found = sincos_positions(height, width, dim).reshape(height, width, dim).numpy()
    for y in range(height):
        for x in range(width):
            angles = [y, y / 100, x, x / 100]  # two frequencies: 10000 ** -(k / 2)
            np.testing.assert_allclose(found[y, x], np.r_[np.sin(angles), np.cos(angles)], rtol=1e-5, atol=1e-7)


def test_positions_of_a_larger_image_extend_those_of_a_smaller_one() -> None:
    small, large = sincos_positions(4, 4, 16).reshape(4, 4, 16), sincos_positions(6, 9, 16).reshape(6, 9, 16)
    assert torch.equal(large[:4, :4], small)
    assert len(torch.unique(sincos_positions(14, 14, 128), dim=0)) == 196


def test_block_equals_attention_written_out() -> None:
    torch.manual_seed(0)
    block, x = Block(16, 2, 32, 0.0).double().eval(), torch.randn(3, 7, 16, dtype=torch.float64)
    normed = block.norm_attention(x)
    q, k, v = (part.reshape(3, 7, 2, 8).transpose(1, 2) for part in (normed @ block.to_qkv.weight.T).chunk(3, dim=-1))
    weights = torch.softmax(q @ k.transpose(2, 3) / 8**0.5, dim=-1)
    x1 = x + block.to_out((weights @ v).transpose(1, 2).reshape(3, 7, 16))
    torch.testing.assert_close(block(x), x1 + block.mlp(x1))


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_features_have_the_width_and_tokens_the_grid(pool: str) -> None:
    net = ViT(ViTConfig(**{**vars(SMALL), "pool": pool})).eval()
    assert net.num_features == 80
    for height, width in ((32, 32), (16, 40)):
        tokens = net.forward_features(pixels(2, height, width))
        assert tokens.shape == (2, height * width // 16 + (pool == "class"), 32)
        assert net(pixels(2, height, width)).shape == (2, 80)


def test_features_are_pooled_tokens_and_the_moments_of_every_stem_stage() -> None:
    net = ViT(SMALL).eval()
    first, second = net.stages(pixels())
    assert (first.shape, second.shape) == ((2, 8, 16, 16), (2, 16, 8, 8))
    expected = [net.forward_features(pixels()).mean(dim=1)]
    for stage in (first, second):
        expected += [stage.mean(dim=(2, 3)), stage.std(dim=(2, 3), correction=0)]
    torch.testing.assert_close(net(pixels()), torch.cat(expected, dim=1), atol=1e-3, rtol=1e-3)
    plain = ViT(ViTConfig(**{**vars(SMALL), "stem_features": False})).eval()
    assert plain(pixels()).shape == (2, plain.num_features) == (2, 32)


def test_pixels_and_their_optical_density_are_the_same_input() -> None:
    net = ViT(SMALL).eval()
    torch.testing.assert_close(net(pixels()), net(optical_density(pixels())))


def test_every_pixel_matters_and_no_other_sample() -> None:
    net = ViT(SMALL).eval()
    changed = pixels()
    changed[0, :, -1, -1] ^= 128
    before, after = net(pixels()), net(changed)
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1], after[1])


def test_extra_tokens_take_part_in_attention() -> None:
    net = ViT(SMALL).eval()
    extra = torch.randn(2, 1, 32)
    assert net.forward_features(pixels(), extra).shape == (2, 65, 32)
    assert not torch.allclose(net(pixels(), extra), net(pixels(), -extra))


def test_drop_path_keeps_the_expectation() -> None:
    drop, x = DropPath(0.25).train(), torch.ones(20_000, 1, 1)
    torch.manual_seed(0)
    values = drop(x)
    torch.testing.assert_close(values.unique(), torch.tensor([0.0, 4 / 3]))
    assert float(values.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(drop.eval()(x), x)


def test_named_sizes_grow() -> None:
    counts = [sum(p.numel() for p in ViT(SIZES[size]).parameters()) for size in ("tiny", "small", "base")]
    assert counts == sorted(counts)
    assert vit_config("tiny", pool="class").pool == "class"


@torch.no_grad()
def test_a_network_takes_larger_and_oblong_images_than_it_has_seen() -> None:
    net = ViT(ViTConfig(**{**vars(SMALL), "stem": (8, 8, 8, 16), "stem_blocks": (0, 0, 0, 0)})).eval()
    for height, width in ((112, 112), (224, 224), (112, 224), (100, 130)):
        tokens = net.forward_features(pixels(1, height, width))
        assert tokens.shape[1] == np.prod(net.grid_shape(height, width)) == -(-height // 16) * -(-width // 16)
        assert net(pixels(1, height, width)).shape == (1, net.num_features)
    # before attention mixes them, tokens of the upper left do not depend on how far the image goes on
    large = pixels(1, 224, 224)
    whole = net.embed(net.stages(large)[-1]).reshape(14, 14, 32)
    part = net.embed(net.stages(large[..., :112, :112])[-1]).reshape(7, 7, 32)
    torch.testing.assert_close(whole[:6, :6], part[:6, :6], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pool", ["mean", "class"])
def test_registers_take_part_and_are_not_read(pool: str) -> None:
    changed = {"pool": pool, "n_registers": 3, "stem_features": False}
    net = ViT(ViTConfig(**{**vars(SMALL), **changed})).eval()
    n_class = int(pool == "class")
    tokens = net.forward_features(pixels())
    assert tokens.shape == (2, n_class + 3 + 64, 32)
    expected = tokens[:, 0] if n_class else tokens[:, 3:].mean(dim=1)
    torch.testing.assert_close(net(pixels()), expected)
    before = net(pixels())
    net.registers += torch.randn_like(net.registers)
    assert not torch.allclose(net(pixels()), before)


@torch.no_grad()
def test_mean_of_the_tokens_leaves_extra_ones_out() -> None:
    net = ViT(ViTConfig(**{**vars(SMALL), "stem_features": False})).eval()
    extra = torch.randn(2, 2, 32)
    torch.testing.assert_close(net(pixels(), extra), net.forward_features(pixels(), extra)[:, :64].mean(dim=1))


@torch.no_grad()
def test_attention_maps_are_those_the_network_uses() -> None:
    net = ViT(ViTConfig(**{**vars(SMALL), "pool": "class", "n_registers": 1})).eval()
    extra = torch.randn(2, 1, 32)
    maps = net.forward_attention(pixels(), extra)
    assert [tuple(weights.shape) for weights in maps] == [(2, 2, 67, 67)] * 2
    for weights in maps:
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 2, 67))
    tokens = net.embed(net.stages(pixels())[-1], extra)
    for block in net.blocks:
        written, _ = block.forward_attention(tokens)
        torch.testing.assert_close(written, block(tokens), atol=1e-5, rtol=1e-5)
        tokens = written
    torch.testing.assert_close(net.norm(tokens), net.forward_features(pixels(), extra), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ViT(SMALL)(pixels()[:, :2]), r"shape \(2, 2, 32, 32\); wanted \(b, 3, h, w\)"),
        (lambda: ViT(SMALL)(pixels(1, 2, 64)), "h and w >= 4 px"),
        (lambda: vit_config("huge"), "`size='huge'` is not known; choose one of"),
        (lambda: ViTConfig(dim=30), "`dim=30` must be a multiple of 4 x `heads=4`"),
        (lambda: ViTConfig(depth=10**6), "`depth=1000000`"),
        (lambda: ViTConfig(stem=(8,), stem_blocks=(0, 0)), "must have the same length"),
        (lambda: ViTConfig(stem=(8.5,), stem_blocks=(0,)), "must be a valid integer|must be integers"),
        (lambda: ViTConfig(stem=(8,), stem_blocks=(-1,)), r"`stem_blocks=\(-1,\)`"),
        (lambda: ViTConfig(n_registers=-1), "`n_registers=-1`"),
        (lambda: ViTConfig(pool="max"), "`pool='max'` is not known"),
        (lambda: sincos_positions(2, 2, 6), "`dim=6` must be a multiple of 4"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_optical_density_is_that_of_the_arrays() -> None:
    """``nn`` and ``stats`` may not import each other; each has its own, torch's with a logarithm and numpy's with a table."""
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(
        optical_density(torch.from_numpy(values)).numpy(), stain.optical_density(values), rtol=1e-6, atol=1e-7
    )
