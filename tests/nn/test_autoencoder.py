import numpy as np
import pytest
import torch

from spatialsig.errors import InputError
from spatialsig.nn.autoencoder import AutoencoderConfig, AutoencoderNet

SEED_KEYS = {f"{part}.{layer}.{kind}" for part in ("enc", "dec") for layer in (0, 2, 4) for kind in ("weight", "bias")}
PLAIN = AutoencoderConfig(linear_path=False)


def oracle(state: dict[str, np.ndarray], part: str, x: np.ndarray) -> np.ndarray:
    """Dense layers with ReLU between, as matrix products."""
    for layer in (0, 2, 4):
        x = x @ state[f"{part}.{layer}.weight"].T + state[f"{part}.{layer}.bias"]
        x = np.maximum(x, 0) if layer < 4 else x
    return x


@pytest.fixture
def z() -> torch.Tensor:
    return torch.randn(5, 40, generator=torch.Generator().manual_seed(0))


def test_plain_network_has_the_prototypes_keys_and_shapes() -> None:
    net = AutoencoderNet(40, PLAIN)
    assert net.state_dict().keys() == SEED_KEYS
    assert [net.enc[i].weight.shape for i in (0, 2, 4)] == [(1024, 40), (256, 1024), (32, 256)]
    assert [net.dec[i].weight.shape for i in (0, 2, 4)] == [(256, 32), (1024, 256), (40, 1024)]


@pytest.mark.parametrize("linear_path", [False, True])
def test_forward_equals_matrix_products(z: torch.Tensor, linear_path: bool) -> None:
    net = AutoencoderNet(40, AutoencoderConfig(linear_path=linear_path)).double().eval()
    state = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    x = z.double().numpy()
    code = oracle(state, "enc", x)
    if linear_path:
        code = code + x @ state["enc_linear.weight"].T + state["enc_linear.bias"]
    back = oracle(state, "dec", code)
    if linear_path:
        back = back + code @ state["dec_linear.weight"].T + state["dec_linear.bias"]
    np.testing.assert_allclose(net.encode(z.double()).detach(), code, rtol=1e-10)
    np.testing.assert_allclose(net(z.double()).detach(), back, rtol=1e-10)


def test_start_from_components_is_the_linear_reconstruction(z: torch.Tensor) -> None:
    components = torch.linalg.qr(torch.randn(40, 8, generator=torch.Generator().manual_seed(1))).Q.T
    offset = z.mean(dim=0)
    net = AutoencoderNet(40, AutoencoderConfig(n_latent=12)).eval()
    net.start_from_components(components, offset)
    expected = (z - offset) @ components.T @ components + offset
    torch.testing.assert_close(net(z), expected)
    assert torch.equal(net.encode(z)[:, 8:], torch.zeros(5, 4))


def test_dropout_acts_on_the_input_while_training_only(z: torch.Tensor) -> None:
    net = AutoencoderNet(40, AutoencoderConfig(dropout=0.9))
    assert not torch.equal(net.train().encode(z), net.encode(z))
    assert torch.equal(net.eval().encode(z), net.encode(z))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoencoderConfig(hidden=(0,)), r"must be integers in 1\.\.65536"),
        (lambda: AutoencoderConfig(n_latent=10**9), r"`n_latent=1000000000`"),
        (lambda: AutoencoderConfig(dropout=2), "`dropout=2` of `AutoencoderConfig` must be less than or equal to 1"),
        (lambda: AutoencoderNet(0, PLAIN), "`n_genes=0`"),
        (lambda: AutoencoderNet(4, PLAIN)(torch.zeros(2, 5)), r"shape \(2, 5\); wanted \(n_cells, 4\)"),
        (lambda: AutoencoderNet(4, PLAIN).start_from_components(torch.eye(4), torch.zeros(4)), "linear_path=True"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
