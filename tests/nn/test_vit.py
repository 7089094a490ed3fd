import numpy as np
import pytest
import torch

from spatialsig._errors import InputError
from spatialsig.nn.vit import SIZES, Block, DropPath, ViT, ViTConfig, optical_density, sincos_positions, vit_config

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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ViT(SMALL)(pixels()[:, :2]), r"shape \(2, 2, 32, 32\); wanted \(b, 3, h, w\)"),
        (lambda: ViT(SMALL)(pixels(1, 2, 64)), "h and w >= 4 px"),
        (lambda: vit_config("huge"), "`size='huge'` is not known; choose one of"),
        (lambda: ViTConfig(dim=30), "`dim=30` must be a multiple of 4 x `heads=4`"),
        (lambda: ViTConfig(depth=10**6), "`depth=1000000`"),
        (lambda: ViTConfig(stem=(8,), stem_blocks=(0, 0)), "must have the same length"),
        (lambda: ViTConfig(stem=(8.5,), stem_blocks=(0,)), "must be integers"),
        (lambda: ViTConfig(stem=(8,), stem_blocks=(-1,)), r"`stem_blocks=\(-1,\)`"),
        (lambda: ViTConfig(pool="max"), "`pool='max'` is not known"),
        (lambda: sincos_positions(2, 2, 6), "`dim=6` must be a multiple of 4"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
