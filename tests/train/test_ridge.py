import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from spatialsig.data.loader import PatchBatches
from spatialsig.data.patches import ImageLevel, PatchSource
from spatialsig.errors import InputError
from spatialsig.models import SignatureViT
from spatialsig.nn.signature import SignatureConfig, SignatureNet
from spatialsig.nn.vit import ViTConfig
from spatialsig.train.ridge import PENALTIES, Moments, best_penalty, fold_of, start_from_ridge

PX = 16


@pytest.fixture
def batches() -> PatchBatches:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 160, 320), dtype=np.uint8)
    image[:, :, ::3] //= 2
    y, x = np.meshgrid(np.arange(0, 145, 8), np.arange(0, 305, 8), indexing="ij")
    origins = np.stack([y.ravel(), x.ravel()], axis=1)
    source = PatchSource("S1", (ImageLevel(image, image.shape[1:]),), origins, PX, PX)
    means = np.array([image[0, a : a + PX, b : b + PX].mean() for a, b in origins])
    target = np.stack([means, means + rng.normal(0, means.std(), len(means))], axis=1).astype(np.float32)
    return PatchBatches([source], targets=[target], batch_size=32)


@pytest.mark.parametrize("fusion", ["none", "token", "gated"])
def test_start_is_the_ridge_regression_of_the_standardised_targets(batches: PatchBatches, fusion: str) -> None:
    torch.manual_seed(0)
    vit = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=32, stem=(8, 8), stem_blocks=(0, 1))
    mean, std = batches.target.mean(axis=0), batches.target.std(axis=0)
    target, used = (batches.target - mean) / std, fusion != "none"
    config = SignatureConfig(vit, 2, 3 if used else 0, fusion)
    model = SignatureViT(config, ["a", "b"], target_mean=mean, target_std=std, patch_px=PX, um_per_px=1.0)
    ae = np.random.default_rng(1).normal(size=(len(target), 3)).astype(np.float32)
    ae[:, 0] += target[:, 1]
    batches = PatchBatches(batches.sources, targets=[batches.target], ae=[ae] if used else None, batch_size=32)
    start_from_ridge(model, batches)
    for parameter in model.net.head[-1].parameters():
        parameter.data.zero_()  # what the network adds to the ridge from the start

    images = np.concatenate([batch["image"] for batch in PatchBatches(
        batches.sources, targets=[batches.target], shuffle=False)])  # fmt: skip
    with torch.no_grad():
        net = model.net
        missing = net.fusion.tokens(net.fusion.embed(*net.fusion.given(None, None, len(images)))) if used else None
        features = net.backbone(torch.from_numpy(images), missing).double().numpy()
    features = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-6)
    rebuilt = [Ridge(alpha=p * len(images)).fit(features, target).predict(features) for p in PENALTIES]
    image_only = model.predict(images)
    best = min(rebuilt, key=lambda scores: float(np.abs(image_only - (scores * std + mean)).max()))
    np.testing.assert_allclose(image_only, best * std + mean, atol=0.02 * std.max())
    if used:
        rest = Ridge(alpha=PENALTIES[0] * len(ae)).fit(ae - ae.mean(axis=0), target - best).coef_
        expected = (best + ae @ rest.T) * std + mean
        np.testing.assert_allclose(model.net.linear_ae.weight.detach(), rest, atol=0.01)
        if fusion == "gated":  # a token changes the image's features as well
            np.testing.assert_allclose(model.predict(images, ae), expected, atol=0.03 * std.max())


def parts(x: np.ndarray, y: np.ndarray, n_folds: int) -> list[Moments]:
    tensors = [torch.from_numpy(part) for part in (x, y)]
    chunks = zip(*(tensor.chunk(n_folds) for tensor in tensors), strict=True)
    return [Moments(len(a), a.sum(0), b.sum(0), a.T @ a, a.T @ b) for a, b in chunks]


@pytest.mark.parametrize("noise", [0.01, 3.0, 30.0])
def test_penalty_is_that_of_a_brute_force_search_over_held_out_folds(noise: float) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 30)) * rng.uniform(0.5, 2, 30) + 5
    y = x[:, :2] + noise * rng.normal(size=(60, 2)) + 3

    def error(penalty: float) -> float:
        total = 0.0
        for k in range(4):
            held = np.arange(60) // 15 == k
            mean, std = x[~held].mean(axis=0), x[~held].std(axis=0)
            ridge = Ridge(alpha=penalty * 45).fit((x[~held] - mean) / std, y[~held])
            total += float(((ridge.predict((x[held] - mean) / std) - y[held]) ** 2).sum())
        return total

    assert best_penalty(parts(x, y, 4)) == min(PENALTIES, key=error)


def test_penalty_grows_with_noise_even_with_more_features_than_patches() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 200))
    weak = best_penalty(parts(x, x[:, :2] + 0.01 * x[:, 2:4], 4))
    strong = best_penalty(parts(x, x[:, :2] + 10 * rng.normal(size=(60, 2)), 4))
    assert strong >= max(weak, 10)


def test_folds_are_slides_or_runs_of_rows() -> None:
    slide, row = np.repeat([0, 1], [8, 4]), np.r_[np.arange(8), np.arange(4)]
    np.testing.assert_array_equal(fold_of(slide, row), [0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 2, 3])
    np.testing.assert_array_equal(fold_of(np.arange(6), np.zeros(6, int)), [0, 1, 2, 3, 0, 1])


def test_moments_of_parts_are_those_of_the_whole() -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 5)), np.random.default_rng(1).normal(size=(40, 2))
    whole = Moments.of(parts(x, y, 4))
    np.testing.assert_allclose(whole.covariance, np.cov(x.T, bias=True), atol=1e-12)
    np.testing.assert_allclose(whole.products, np.cov(x.T, y.T, bias=True)[:5, 5:], atol=1e-12)


class Plain(torch.nn.Module):
    """A backbone without batch norms or stem: colour means, and a constant feature."""

    num_features, takes_tokens, spec = 4, False, "plain"

    def forward(self, image: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        means = image.float().mean(dim=(2, 3)) / 255
        return torch.cat([means, torch.ones(len(means), 1)], dim=1)


def test_a_foreign_backbone_starts_as_a_ridge_too(batches: PatchBatches) -> None:
    mean, std = batches.target.mean(axis=0), batches.target.std(axis=0)
    config = SignatureConfig(ViTConfig(dim=16, heads=2), 2, backbone="plain")
    model = SignatureViT(
        config,
        ["a", "b"],
        target_mean=mean,
        target_std=std,
        patch_px=PX,
        um_per_px=1.0,
        net=SignatureNet(config, Plain()),
    )
    start_from_ridge(model, batches)
    model.net.head[-1].weight.data.zero_()
    model.net.head[-1].bias.data.zero_()
    plain = PatchBatches(batches.sources, targets=[batches.target], shuffle=False)
    scores = model.predict(np.concatenate([batch["image"] for batch in plain]))
    assert np.corrcoef(scores[:, 0], batches.target[:, 0])[0, 1] > 0.99  # the score is the mean of red
    assert abs(scores[:, 0].mean() - mean[0]) < 0.01 * std[0]


def test_the_prototype_has_no_ridge_to_start_from(batches: PatchBatches) -> None:
    config = SignatureConfig(n_targets=2, backbone="seed", image_px=32)
    model = SignatureViT(config, ["a", "b"], target_mean=[0, 0], target_std=[1, 1], patch_px=32, um_per_px=1.0)
    with pytest.raises(InputError, match="a SeedNet has no linear head on whitened features"):
        start_from_ridge(model, batches)
