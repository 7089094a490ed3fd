import numpy as np
import pytest
import torch
from scipy.special import erf

from spatialsig.errors import InputError
from spatialsig.nn import vit
from spatialsig.nn.seed_vit import SeedViT, seed_preset
from spatialsig.nn.signature import SeedNet, SignatureConfig
from spatialsig.nn.vit import optical_density


def norm(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * scale + shift


def written_out(net: SeedViT, image: np.ndarray, ae: np.ndarray) -> np.ndarray:
    """The prototype's equations, patch by patch and head by head, in float64 numpy; every token through every block."""
    w = {name: value.detach().double().numpy() for name, value in net.state_dict().items()}
    scores = []
    for pixels, code in zip(image.astype(np.float64) / 255, ae, strict=True):
        n = pixels.shape[1] // 32
        squares = [pixels[:, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32].ravel() for i in range(n) for j in range(n)]
        x = norm(np.array(squares), w["to_tokens.0.weight"], w["to_tokens.0.bias"])
        x = norm(x @ w["to_tokens.1.weight"].T + w["to_tokens.1.bias"], w["to_tokens.2.weight"], w["to_tokens.2.bias"])
        x = np.vstack([w["class_token"], x]) + w["positions"]
        for k in range(4):
            b = {
                name.removeprefix(f"blocks.{k}."): value for name, value in w.items() if name.startswith(f"blocks.{k}.")
            }
            qkv = norm(x, b["norm.weight"], b["norm.bias"]) @ b["to_qkv.weight"].T
            heads = []
            for h in range(4):
                q, key, v = (qkv[:, 256 * part + 64 * h : 256 * part + 64 * h + 64] for part in range(3))
                weights = np.exp(q @ key.T / 8)
                heads.append(weights / weights.sum(axis=1, keepdims=True) @ v)
            x = x + np.hstack(heads) @ b["to_out.weight"].T + b["to_out.bias"]
            hidden = norm(x, b["mlp.0.weight"], b["mlp.0.bias"]) @ b["mlp.1.weight"].T + b["mlp.1.bias"]
            hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
            x = x + hidden @ b["mlp.3.weight"].T + b["mlp.3.bias"]
        summary = norm(x[0], w["norm.weight"], w["norm.bias"]) + w["to_class.weight"] @ code + w["to_class.bias"]
        scores.append(w["head.weight"] @ summary + w["head.bias"])
    return np.array(scores)


@pytest.fixture(scope="module")
def net() -> SeedViT:
    torch.manual_seed(0)
    found = seed_preset(3, 32).eval()
    for parameter in found.parameters():  # norms start at 1 and 0, where a swap of two of them would not show
        parameter.data += 0.05 * torch.randn_like(parameter)
    return found


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 3, 512, 512), dtype=np.uint8)


@pytest.fixture(scope="module")
def ae() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(2, 32)).astype(np.float32)


@torch.no_grad()
def test_forward_is_what_the_equations_say(net: SeedViT, image: np.ndarray, ae: np.ndarray) -> None:
    expected = written_out(net, image, ae)
    found = net(torch.from_numpy(image), torch.from_numpy(ae))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    double = net.double()(torch.from_numpy(image), torch.from_numpy(ae))
    net.float()
    np.testing.assert_allclose(double, expected, atol=1e-9)
    assert np.abs(expected).max() > 0.1
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


@torch.no_grad()
def test_glass_is_normalised_by_the_same_epsilon(net: SeedViT, image: np.ndarray, ae: np.ndarray) -> None:
    """Where squares hardly vary, the epsilon of the norm is all there is; it is meant for pixels in [0, 1]."""
    flat = 240 + (image % 2)  # deviation .5 of 255: its square is a third of the epsilon
    found = net(torch.from_numpy(flat), torch.from_numpy(ae))
    np.testing.assert_allclose(found, written_out(net, flat, ae), atol=2e-5)


@torch.no_grad()
def test_last_block_for_the_class_token_alone_gives_the_same_numbers(net: SeedViT) -> None:
    block, tokens = net.blocks[0], torch.randn(2, 9, 128)
    whole = block(tokens)
    torch.testing.assert_close(block.first(tokens), whole[:, :1], atol=1e-5, rtol=1e-5)
    written, weights = block.forward_attention(tokens)
    torch.testing.assert_close(written, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 9))


@torch.no_grad()
def test_pixels_and_floats_between_0_and_1_are_the_same_input(net: SeedViT, image: np.ndarray, ae: np.ndarray) -> None:
    pixels, code = torch.from_numpy(image), torch.from_numpy(ae)
    torch.testing.assert_close(net(pixels / 255, code), net(pixels, code))


def test_scale_of_the_first_norm_learns_as_if_it_were_applied_to_the_pixels(net: SeedViT) -> None:
    squares = torch.rand(2, 5, 3072)
    gradients = []
    for way in (net._linear_tokens, net.to_tokens):
        net.zero_grad()
        (way(squares) * torch.linspace(-1, 1, 128)).sum().backward()
        gradients.append([p.grad.clone() for p in net.to_tokens.parameters()])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_preset_is_also_found_beside_the_other_network() -> None:
    assert isinstance(vit.seed_preset(1, 0), SeedViT)


def test_number_of_weights(net: SeedViT) -> None:
    block = 2 * 128 + 128 * 768 + 256 * 128 + 128 + 2 * 128 + 128 * 512 + 512 + 512 * 128 + 128
    tokens = 2 * 3072 + 3072 * 128 + 128 + 2 * 128
    expected = tokens + 128 + 257 * 128 + 4 * block + 2 * 128 + 32 * 128 + 128 + 128 * 3 + 3
    assert sum(p.numel() for p in net.parameters()) == expected


def test_attention_of_every_block(net: SeedViT) -> None:
    small = seed_preset(2, 0, image_px=64)
    maps = small.forward_attention(torch.zeros(1, 3, 64, 64))
    assert [tuple(weights.shape) for weights in maps] == [(1, 4, 5, 5)] * 4
    assert small.grid_shape(64, 64) == (2, 2)


def small_net(fusion: str = "add") -> SeedNet:
    torch.manual_seed(0)
    n_latent = 4 if fusion == "add" else 0
    return SeedNet(SignatureConfig(n_targets=2, n_latent=n_latent, fusion=fusion, backbone="seed", image_px=32)).eval()


@torch.no_grad()
def test_network_takes_what_a_signature_network_takes() -> None:
    net, pixels = small_net(), torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    code, present = torch.randn(3, 4), torch.tensor([True, False, True])
    full, none, mixed = net(pixels, code), net(pixels), net(pixels, code, present)
    torch.testing.assert_close(mixed[present], full[present])
    torch.testing.assert_close(mixed[~present], none[~present])
    assert not torch.allclose(full, none)
    torch.testing.assert_close(net(optical_density(pixels), code), full, atol=1e-4, rtol=1e-4)
    assert net.forward_all(pixels, code).log_variance is None
    assert small_net("none")(pixels).shape == (3, 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: seed_preset(1, 0)(torch.zeros(1, 3, 512, 480)),
            r"shape \(1, 3, 512, 480\); wanted \(b, 3, 512, 512\)",
        ),
        (lambda: seed_preset(1, 0, image_px=100), "`image_px=100` must be a multiple of 32"),
        (lambda: seed_preset(1, 4, image_px=32)(torch.zeros(1, 3, 32, 32)), r"of shape None; wanted \(1, 4\)"),
        (lambda: small_net("film"), "the prototype adds the expression and predicts scores only; got `fusion='film'`"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
