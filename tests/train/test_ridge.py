import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from spatialsig.data.loader import PatchBatches
from spatialsig.data.patches import ImageLevel, PatchSource
from spatialsig.models import SignatureViT
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import ViTConfig
from spatialsig.train.ridge import PENALTIES, best_penalty, start_from_ridge

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


def test_penalty_grows_with_noise_and_is_that_of_a_brute_force_search() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 30))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    chosen = {}
    for noise in (0.01, 30.0):
        y = x[:, :2] + noise * rng.normal(size=(60, 2))
        y = (y - y.mean(axis=0)) / y.std(axis=0)
        eigenvalues, vectors = np.linalg.eigh(x.T @ x / 60)
        found = best_penalty(torch.from_numpy(eigenvalues), torch.from_numpy(vectors.T @ x.T @ y / 60), n=60)

        def gcv(penalty: float, y: np.ndarray = y) -> float:
            hat = x @ np.linalg.solve(x.T @ x + 60 * penalty * np.eye(30), x.T)
            return float(((y - hat @ y) ** 2).mean() / (1 - np.trace(hat) / 60) ** 2)

        assert found == min(PENALTIES, key=gcv)
        chosen[noise] = found
    assert chosen[0.01] < chosen[30.0]
