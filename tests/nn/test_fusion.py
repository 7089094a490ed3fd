import pytest
import torch

from spatialsig.errors import InputError
from spatialsig.nn.fusion import FUSIONS, Fusion
from spatialsig.nn.signature import SignatureConfig, SignatureNet
from spatialsig.nn.vit import ViTConfig

VIT = ViTConfig(dim=32, depth=1, heads=2, mlp_dim=64, stem=(8, 16), stem_blocks=(0, 0))
KINDS = [kind for kind in FUSIONS if kind != "none"]


def net(fusion: str, **changes) -> SignatureNet:
    torch.manual_seed(0)
    return SignatureNet(SignatureConfig(VIT, 3, 0 if fusion == "none" else 5, fusion, **changes)).eval()


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def ae() -> torch.Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", FUSIONS)
def test_shapes_with_and_without_expression(kind: str, image: torch.Tensor, ae: torch.Tensor) -> None:
    model = net(kind)
    assert model(image).shape == (4, 3)
    if kind != "none":
        assert model(image, ae).shape == (4, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_rows_equal_no_expression_at_all(kind: str, image: torch.Tensor, ae: torch.Tensor) -> None:
    model = net(kind)
    torch.nn.init.normal_(model.fusion.missing)
    for parameter in model.fusion.parameters():  # gates and scales start at 0: open them
        torch.nn.init.normal_(parameter)
    present = torch.tensor([True, False, True, False])
    ae[1] = torch.nan
    mixed, none, full = model(image, ae, present), model(image), model(image, torch.nan_to_num(ae))
    torch.testing.assert_close(mixed[~present], none[~present])
    torch.testing.assert_close(mixed[present], full[present])
    assert not torch.allclose(mixed[present], none[present])


@pytest.mark.parametrize("kind", ["gated", "film"])
def test_gated_and_film_start_as_the_image_alone(kind: str, image: torch.Tensor, ae: torch.Tensor) -> None:
    model = net(kind)
    torch.testing.assert_close(model(image, ae), model(image))


@pytest.mark.parametrize("kind", KINDS)
def test_nan_of_missing_rows_never_reaches_a_gradient(kind: str, image: torch.Tensor, ae: torch.Tensor) -> None:
    model = net(kind).train()
    ae[0] = torch.nan
    model(image, ae, ~torch.isnan(ae).any(dim=1)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_modality_dropout_withholds_its_share_while_training() -> None:
    fusion, ae = Fusion("add", 4, 2, modality_dropout=0.3), torch.ones(20_000, 2)
    torch.nn.init.constant_(fusion.missing, 77.0)
    torch.manual_seed(0)
    share = (fusion.train().embed(*fusion.given(ae, None, len(ae))) == 77.0).all(dim=1).float().mean()
    assert float(share) == pytest.approx(0.3, abs=0.01)
    assert not (fusion.eval().embed(*fusion.given(ae, None, len(ae))) == 77.0).any()


def test_head_is_not_additive_in_image_and_expression(image: torch.Tensor, ae: torch.Tensor) -> None:
    model = net("add")
    both = model(image, ae) - model(image, ae.flip(0)) - model(image.flip(0), ae) + model(image.flip(0), ae.flip(0))
    assert float(both.detach().abs().max()) > 1e-4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fusion("sum", 4, 2), r"`fusion='sum'` is not known; choose one of \['none', 'add'"),
        (lambda: Fusion("add", 4, 0), "needs an expression embedding; got `n_latent=0`"),
        (lambda: Fusion("add", 4, 2, modality_dropout=1.5), "`modality_dropout` must lie between"),
        (lambda: Fusion("add", 4, 2).given(torch.ones(3, 3), None, 3), r"shape \(3, 3\); wanted \(3, 2\)"),
        (lambda: Fusion("add", 4, 2).given(torch.ones(3, 2), torch.ones(2), 3), r"shape \(2,\); wanted \(3,\)"),
        (lambda: SignatureConfig(n_targets=0), "`n_targets=0`"),
        (lambda: SignatureConfig(n_latent=-1), "`n_latent=-1`"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
