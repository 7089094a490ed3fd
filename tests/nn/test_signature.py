import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spatialsig.errors import InputError
from spatialsig.nn.signature import MAX_LOG_VARIANCE, SignatureConfig, SignatureNet, bounded
from spatialsig.nn.vit import ViTConfig

VIT = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=32, stem=(4, 8), stem_blocks=(0, 0), drop_path=0.0)


class Colours(torch.nn.Module):
    """The least a backbone can be."""

    num_features, takes_tokens = 3, False

    def forward(self, image: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        assert extra is None
        return image.float().mean(dim=(2, 3)) / 255


class Wide(Colours):
    """Takes tokens of a width of its own."""

    takes_tokens, token_dim = True, 7

    def forward(self, image: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        assert extra is not None
        assert extra.shape == (len(image), 1, 7)
        return image.float().mean(dim=(2, 3)) / 255 + extra[:, 0, :3]


def net(fusion: str = "gated", *, opened: bool = True, seed: int = 0, **changes) -> SignatureNet:
    torch.manual_seed(seed)
    found = SignatureNet(SignatureConfig(VIT, 3, 0 if fusion == "none" else 5, fusion, **changes)).eval()
    if opened:  # gates, scales and side heads start at 0
        for part in ("fusion", "linear_ae", "spread", "guess"):
            for parameter in getattr(found, part, torch.nn.Module()).parameters():
                torch.nn.init.normal_(parameter, std=0.5)
    return found


def inputs(n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=draw), torch.randn(n, 5, generator=draw)


def test_scores_are_the_mean_of_everything_predicted() -> None:
    image, ae = inputs()
    model = net(gaussian=True, guess_code=True)
    found = model.forward_all(image, ae)
    assert torch.equal(model(image, ae), found.mean)
    assert [tuple(part.shape) for part in found] == [(4, 3), (4, 3), (4, 5)]
    plain = net().forward_all(image, ae)
    assert plain.log_variance is None
    assert plain.code is None


def test_variance_starts_at_one_and_stays_bounded() -> None:
    image, ae = inputs()
    start = net(gaussian=True, opened=False).forward_all(image, ae).log_variance
    assert torch.equal(start, torch.zeros(4, 3))
    raw = torch.tensor([-1e6, -0.1, 0.0, 0.1, 1e6])
    limit = MAX_LOG_VARIANCE
    torch.testing.assert_close(bounded(raw), torch.tensor([-limit, -0.1, 0.0, 0.1, limit]), atol=1e-4, rtol=0)


@settings(deadline=None, max_examples=15)
@given(fusion=st.sampled_from(["add", "token", "film", "gated"]), seed=st.integers(0, 99))
def test_both_passes_are_those_made_one_by_one(fusion: str, seed: int) -> None:
    image, ae = inputs()
    present = torch.rand(4, generator=torch.Generator().manual_seed(seed)) < 0.5
    model = net(fusion, seed=seed, gaussian=True)
    fused, alone = model.forward_both(image, ae, present)
    for found, expected in ((fused, model.forward_all(image, ae, present)), (alone, model.forward_all(image))):
        torch.testing.assert_close(found.mean, expected.mean)
        torch.testing.assert_close(found.log_variance, expected.log_variance)
    torch.testing.assert_close(fused.mean[~present], alone.mean[~present])


@pytest.mark.parametrize("fusion", ["add", "token", "film", "gated"])
def test_scores_of_the_image_alone_teach_nothing_about_expression(fusion: str) -> None:
    image, ae = inputs()
    model = net(fusion)
    _, alone = model.forward_both(image, ae)
    alone.mean.square().sum().backward()
    reading = [*model.fusion.project.parameters(), *model.linear_ae.parameters()]
    assert all(p.grad is None or not p.grad.any() for p in reading)
    assert model.fusion.missing.grad.abs().sum() > 0
    assert model.linear.weight.grad.abs().sum() > 0
    assert model.backbone.stem[0][0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("fusion", ["add", "token", "film", "gated"])
def test_gradients_of_the_image_alone_are_those_of_a_network_never_given_expression(fusion: str) -> None:
    image, ae = inputs()
    gradients = []
    for both in (True, False):
        model = net(fusion)
        alone = model.forward_both(image, ae)[1] if both else model.forward_all(image)
        alone.mean.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.any()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-4)


def test_guess_of_the_code_has_not_seen_it() -> None:
    image, ae = inputs()
    model = net(guess_code=True)
    torch.testing.assert_close(model.forward_all(image, ae).code, model.forward_all(image, -ae).code)


def test_any_module_can_be_the_backbone() -> None:
    image, ae = inputs()
    config = SignatureConfig(VIT, 3, 5, "gated", backbone="colours")
    assert SignatureNet(config, Colours())(image, ae).shape == (4, 3)
    wide = SignatureNet(SignatureConfig(VIT, 3, 5, "token", backbone="wide"), Wide()).eval()
    torch.nn.init.normal_(wide.fusion.missing)
    assert not torch.allclose(wide(image, ae), wide(image))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: SignatureNet(SignatureConfig(VIT, 3, 5, "token", backbone="colours"), Colours()),
            "`fusion='token'` puts the expression among the image tokens, which backbone 'colours' does not allow",
        ),
        (lambda: SignatureConfig(VIT, 3, 5, "token", guess_code=True), "`fusion='token'` is not such"),
        (lambda: SignatureConfig(VIT, 3, guess_code=True), "`fusion='none'` is not such"),
        (lambda: SignatureConfig(backbone=""), "`backbone=''` of `SignatureConfig` must be a string that is not empty"),
        (lambda: SignatureConfig(gaussian=2), "`gaussian=2` .* a valid boolean"),
        (lambda: SignatureConfig(image_px=-1), "`image_px=-1`"),
    ],
)
def test_errors(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
