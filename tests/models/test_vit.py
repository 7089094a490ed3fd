import json

import numpy as np
import pytest
import torch

from spatialsig.errors import InputError
from spatialsig.models import SignatureViT
from spatialsig.models.record import write_record
from spatialsig.nn.device import microbatch_size
from spatialsig.nn.signature import SignatureConfig, SignatureNet
from spatialsig.nn.vit import ViTConfig

VIT = ViTConfig(dim=32, depth=1, heads=2, mlp_dim=64, stem=(8, 16), stem_blocks=(0, 1))
PX = 16


def build(fusion: str = "gated") -> SignatureViT:
    torch.manual_seed(0)
    n_latent = 0 if fusion == "none" else 4
    model = SignatureViT(
        SignatureConfig(VIT, 2, n_latent, fusion),
        ["Immune_T", "Pericyte"],
        target_mean=np.array([5.0, -2.0]),
        target_std=np.array([2.0, 0.1]),
        ae_mean=np.full(n_latent, 3.0),
        ae_std=np.full(n_latent, 2.0),
        patch_px=PX,
        um_per_px=0.5,
        run={"train": ["S1", "S2"], "held_out": ["S3"]},
    )
    for parameter in model.net.fusion.parameters():  # gates start shut: open them
        torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 3, PX, PX), dtype=np.uint8)


@pytest.fixture
def ae() -> np.ndarray:
    return np.random.default_rng(1).normal(3, 2, (5, 4)).astype(np.float32)


def test_scores_are_those_of_the_network_in_score_units(images: np.ndarray, ae: np.ndarray) -> None:
    model = build()
    with torch.no_grad():
        raw = model.net(torch.from_numpy(images), torch.from_numpy((ae - 3) / 2)).numpy()
    found = model.predict(images, ae)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, raw * [2.0, 0.1] + [5.0, -2.0], rtol=1e-4)


def test_missing_expression_is_predicted_from_the_image(images: np.ndarray, ae: np.ndarray) -> None:
    model = build()
    ae[[1, 3]] = np.nan
    mixed = model.predict(images, ae)
    np.testing.assert_allclose(mixed[[1, 3]], model.predict(images)[[1, 3]], rtol=1e-5)
    assert not np.allclose(mixed[[0, 2]], model.predict(images)[[0, 2]])


def test_batches_change_nothing(images: np.ndarray, ae: np.ndarray) -> None:
    model = build()
    np.testing.assert_allclose(model.predict(images, ae, batch_size=2), model.predict(images, ae), rtol=1e-4)
    assert model.predict(images[:0]).shape == (0, 2)


def test_a_pass_on_a_cpu_holds_few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = build(), []
    forward = model._forward
    monkeypatch.setattr(model, "_forward", lambda images, *rest: sizes.append(len(images)) or forward(images, *rest))
    monkeypatch.setattr("spatialsig.nn.device.CPU_PIXELS", 6 * PX**2)
    model.predict(np.zeros((13, 3, PX, PX), np.uint8))
    assert sizes == [6, 6, 1]


@pytest.mark.parametrize(
    ("shape", "device", "expected"),
    [
        ((100, 3, 512, 512), "cpu", 4),
        ((100, 3, 1024, 1024), "cpu", 4),
        ((100, 3, 160, 160), "cpu", 20),
        ((100, 3, 512, 512), "cuda", 64),
        ((100, 768), "cpu", 4096),
    ],
)
def test_patches_of_one_pass(shape: tuple[int, ...], device: str, expected: int) -> None:
    assert microbatch_size(shape, torch.device(device)) == expected


def test_eight_views_do_not_depend_on_the_orientation(images: np.ndarray) -> None:
    model = build("none")
    turned = np.ascontiguousarray(np.rot90(images, axes=(2, 3)))
    np.testing.assert_allclose(model.predict(images, n_views=8), model.predict(turned, n_views=8), rtol=1e-4)
    assert not np.allclose(model.predict(images), model.predict(turned))


@pytest.mark.parametrize("fusion", ["none", "add", "token", "film", "gated"])
def test_save_and_load_are_bit_exact(fusion: str, images: np.ndarray, ae: np.ndarray, tmp_path) -> None:
    model = build(fusion)
    model.save(tmp_path / "vit")
    back = SignatureViT.load(tmp_path / "vit")
    assert (back.signatures, back.config, back.run) == (model.signatures, model.config, model.run)
    assert (back.patch_px, back.um_per_px, back.uses_expression) == (PX, 0.5, fusion != "none")
    given = (images,) if fusion == "none" else (images, ae)
    np.testing.assert_array_equal(back.predict(*given), model.predict(*given))


class Colours(torch.nn.Module):
    """A backbone from elsewhere: a learned map of the mean colour."""

    num_features, takes_tokens = 6, False

    def __init__(self) -> None:
        super().__init__()
        self.map = torch.nn.Linear(3, 6)

    def forward(self, image: torch.Tensor, extra: torch.Tensor | None = None) -> torch.Tensor:
        return self.map(image.float().mean(dim=(2, 3)) / 255)


def around(config: SignatureConfig, net=None) -> SignatureViT:
    scale = {"target_mean": [5.0, -2.0], "target_std": [2.0, 0.1]}
    return SignatureViT(config, ["A", "B"], **scale, patch_px=config.image_px or PX, um_per_px=0.5, net=net)


def test_a_foreign_backbone_is_built_again_and_its_weights_come_from_the_directory(
    images: np.ndarray, tmp_path, monkeypatch
) -> None:
    asked = []

    def build(spec: str, *, pretrained: bool) -> torch.nn.Module:
        asked.append((spec, pretrained))
        return Colours()

    monkeypatch.setattr("spatialsig.nn.backbones.build_backbone", build)
    config = SignatureConfig(VIT, 2, backbone="timm:colours")
    model = around(config, SignatureNet(config, Colours()))
    model.save(tmp_path / "foreign")
    back = SignatureViT.load(tmp_path / "foreign")
    assert asked == [("timm:colours", False)]  # nothing is fetched
    np.testing.assert_array_equal(back.predict(images), model.predict(images))
    assert back.predict(images).std() > 0


def test_the_prototype_is_saved_and_loaded(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    ae = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    model = around(SignatureConfig(n_targets=2, n_latent=4, fusion="add", backbone="seed", image_px=32))
    model.save(tmp_path / "seed")
    back = SignatureViT.load(tmp_path / "seed")
    assert back.config == model.config
    np.testing.assert_array_equal(back.predict(images, ae), model.predict(images, ae))


def test_uncertainty_is_the_networks_in_score_units(images: np.ndarray, tmp_path) -> None:
    torch.manual_seed(0)
    model = around(SignatureConfig(VIT, 2, gaussian=True))
    torch.nn.init.normal_(model.net.spread.weight)
    with torch.no_grad():
        found = model.net.forward_all(torch.from_numpy(images))
    mean, std = model.predict_distribution(images)
    np.testing.assert_array_equal(mean, model.predict(images))
    np.testing.assert_allclose(std, np.exp(found.log_variance.numpy() / 2) * [2.0, 0.1], rtol=1e-4)
    turned = np.ascontiguousarray(np.rot90(images, axes=(2, 3)))
    for one, other in zip(*(model.predict_distribution(x, n_views=4) for x in (images, turned)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)
    model.save(tmp_path / "vit")
    back = SignatureViT.load(tmp_path / "vit")
    assert back.knows_uncertainty
    np.testing.assert_array_equal(back.predict_distribution(images)[1], std)
    with pytest.raises(InputError, match="predicts scores without their uncertainty; train it with `loss='gaussian'`"):
        build("none").predict_distribution(images)


def test_config_that_does_not_fit_the_weights_is_refused(tmp_path) -> None:
    build().save(tmp_path / "vit")
    for old, new, message in (
        ('"depth": 1', '"depth": 2', "does not fit config.json: .* tensors differ"),
        ('"depth": 1', '"depth": 99999', "`depth=99999`"),
        ('"heads": 2', '"heads": 3', "`dim=32` must be a multiple of 4 x `heads=3`"),
        ('"um_per_px": 0.5', '"um_per_px": "x"', "`um_per_px='x'` must be a number"),
        ('"um_per_px": 0.5', '"um_per_px": NaN', "`um_per_px=nan` of `SignatureViT` must be a finite number"),
        ('"fusion": "gated"', '"fusion": "sum"', "`fusion='sum'` is not known"),
        ('"pool": "mean"', '"pool": ["mean"]', r"`pool=.*` of `ViTConfig` must be a valid string"),
    ):
        text = (tmp_path / "vit" / "config.json").read_text()
        record = json.loads((tmp_path / "vit" / "run.json").read_text())
        edited = text.replace(old, new)
        assert edited != text
        (tmp_path / "vit" / "config.json").write_text(edited)
        write_record(tmp_path / "vit", set(record["sha256"]) - {"run.json"}, record["run"])
        with pytest.raises(InputError, match=message):
            SignatureViT.load(tmp_path / "vit")
        (tmp_path / "vit" / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x, a: m.predict(x[..., :8]), r"images \(5, 3, 16, 8\) of uint8; wanted \(n, 3, 16, 16\) uint8"),
        (lambda m, x, a: m.predict(x / 255), "of float64; wanted"),
        (lambda m, x, a: m.predict(x, a[:2]), r"`ae` of shape \(2, 4\); wanted \(5, 4\)"),
        (lambda m, x, a: m.predict(x, n_views=3), "`n_views=3` is not known"),
        (lambda m, x, a: build("none").predict(x, a), "trained without expression"),
        (
            lambda m, x, a: SignatureViT(m.config, ["A"], target_mean=[0], target_std=[1], patch_px=8, um_per_px=1),
            "1 sig",
        ),
        (
            lambda m, x, a: SignatureViT(
                m.config, m.signatures, target_mean=[0, 0], target_std=[1, 0], patch_px=8, um_per_px=1
            ),
            "`target_std` of shape",
        ),
    ],
)
def test_errors(images: np.ndarray, ae: np.ndarray, call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(build(), images, ae)
