"""Networks of others: right pixels in, right features out, nothing downloaded, every refusal in words."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spatialsig.errors import FileMissingError, InputError, SpatialsigWarning
from spatialsig.nn import backbones
from spatialsig.nn.backbones import (
    BackboneSpec,
    build_backbone,
    check_can_be_saved,
    register_backbone,
    table_backbone,
    table_key,
    warn_of_scale,
)
from spatialsig.nn.external import IMAGENET_MEAN, IMAGENET_STD, ExternalBackbone, Inputs
from spatialsig.nn.signature import SignatureConfig, SignatureNet
from spatialsig.nn.vit import ViT, ViTConfig, optical_density

IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, 24, 24), dtype=np.uint8))


class Means(nn.Module):
    """Mean of every colour, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) * self.gain


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backbones, "_FACTORIES", {})


def test_pixels_are_scaled_as_the_network_wants() -> None:
    found = build_backbone(Means(), mean=(0.1, 0.2, 0.3), std=(1, 2, 4))(IMAGE)
    expected = (IMAGE.numpy().mean(axis=(2, 3)) / 255 - [0.1, 0.2, 0.3]) / [1, 2, 4]
    np.testing.assert_allclose(found.detach(), expected, atol=1e-6)
    plain = build_backbone(Means())(IMAGE)
    np.testing.assert_allclose(
        plain.detach(), (IMAGE.numpy().mean(axis=(2, 3)) / 255 - IMAGENET_MEAN) / IMAGENET_STD, atol=1e-5
    )


def test_densities_of_augmented_patches_are_the_same_pixels() -> None:
    backbone = build_backbone(Means())
    torch.testing.assert_close(backbone(optical_density(IMAGE)), backbone(IMAGE), atol=1e-5, rtol=1e-5)


def test_patches_are_resized_to_what_the_network_takes() -> None:
    shapes = []

    def network(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return x.flatten(1)

    backbone = build_backbone(network, input_px=6)
    assert backbone.num_features == 3 * 36
    assert backbone(IMAGE).shape == (4, 108)
    assert set(shapes) == {(1, 3, 6, 6), (4, 3, 6, 6)}


@pytest.mark.parametrize(
    ("answer", "inputs", "expected"),
    [
        (torch.arange(12.0).view(1, 3, 4), Inputs(), [4, 5, 6, 7]),
        (torch.arange(12.0).view(1, 3, 4), Inputs(n_prefix=1), [6, 7, 8, 9]),
        (torch.arange(12.0).view(1, 3, 4), Inputs(pool="class", n_prefix=1), [0, 1, 2, 3]),
        (torch.arange(8.0).view(1, 2, 2, 2), Inputs(), [1.5, 5.5]),
        (types.SimpleNamespace(last_hidden_state=torch.ones(1, 2, 3)), Inputs(), [1, 1, 1]),
    ],
)
def test_tokens_and_maps_are_pooled(answer: object, inputs: Inputs, expected: list[float]) -> None:
    found = ExternalBackbone(lambda x: answer, "memory:test", inputs)
    assert found(IMAGE[:1])[0].tolist() == expected
    assert found.num_features == len(expected)


def test_an_answer_that_is_no_feature_vector_is_refused() -> None:
    with pytest.raises(InputError, match=r"backbone 'memory:function' returned of shape \(1,\); wanted features"):
        build_backbone(lambda x: x.mean(dim=(1, 2, 3)))
    with pytest.raises(InputError, match="returned a str; wanted features"):
        build_backbone(lambda x: "features")
    with pytest.raises(InputError, match="takes images only"):
        build_backbone(Means())(IMAGE, torch.zeros(4, 1, 3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": (0.5,)}, r"`mean=\(0.5,\)` must be 3 finite numbers"),
        ({"std": (1, 0, 1)}, "for red, green and blue, above 0"),
        ({"pool": "max"}, "`pool='max'` is not known"),
        ({"pool": "class"}, "asks for a class token, which this network has not"),
        ({"input_px": 0}, "`input_px=0` of `Inputs` must be greater than or equal to 1"),
        ({"um_per_px": -1}, "`um_per_px=-1` of `Inputs` must be greater than 0"),
    ],
)
def test_impossible_inputs_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_backbone(Means(), **arguments)


@pytest.mark.parametrize("spec", ["resnet50", "zoo:resnet50", "timm:"])
def test_unknown_names_are_refused(spec: str) -> None:
    with pytest.raises(InputError, match=r"is not known; wanted 'vit', or one of 'timm:...', 'transformers:...'"):
        build_backbone(spec)


def test_a_broken_spec_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be read: KeyError"):
        BackboneSpec.parse('timm:{"options": 1}')
    with pytest.raises(InputError, match="cannot be read: JSONDecodeError"):
        BackboneSpec.parse("timm:{")
    with pytest.raises(InputError, match="backbone of type int; wanted a name, a module or a callable"):
        build_backbone(3)
    register_backbone("means", Means)
    with pytest.raises(InputError, match="inputs {'colour': 1} of a backbone"):
        build_backbone('registered:{"name": "means", "inputs": {"colour": 1}}')


def test_a_spec_is_read_back_as_it_was() -> None:
    for spec in (BackboneSpec("timm", "a@b:c"), BackboneSpec("table", "uni", {"num_features": 3})):
        assert BackboneSpec.parse(str(spec)) == spec


def test_a_backbone_of_our_interface_is_left_alone() -> None:
    vit = ViT(ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4,), stem_blocks=(0,)))
    assert build_backbone(vit) is vit


def test_registered_networks_are_built_by_name_and_others_cannot_be_saved() -> None:
    register_backbone("means", Means)
    register_backbone("means", Means)  # again is no mistake
    built = build_backbone("registered:means", mean=(0, 0, 0), std=(1, 1, 1))
    again = build_backbone(built.spec, pretrained=False)
    torch.testing.assert_close(built(IMAGE), again(IMAGE))
    check_can_be_saved(built.spec)
    with pytest.raises(InputError, match="is taken by another factory; registered: .'means'."):
        register_backbone("means", lambda: Means())
    with pytest.raises(InputError, match=r"`factory='len'` of `sp.register_backbone` is called without arguments"):
        register_backbone("length", len)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no backbone is registered as 'other' \(registered: \['means'\]\)"):
        build_backbone("registered:other")
    with pytest.raises(
        InputError, match="an object of type Means, which cannot be built again when the model is loaded"
    ):
        check_can_be_saved(build_backbone(Means()).spec)
    with pytest.raises(InputError, match="was an object of type Means, which cannot be built again"):
        build_backbone("memory:Means")


def test_a_table_stands_for_a_network() -> None:
    table = table_backbone("uni", 5)
    assert table_key(table.spec) == "uni"
    assert table_key("vit") is None
    features = torch.randn(3, 5)
    assert build_backbone(table.spec)(features) is features
    table.check(features.numpy())
    with pytest.raises(
        InputError, match=r"wants its features \(n, 5\) float32 in place of images; got \(4, 3, 24, 24\)"
    ):
        table.check(IMAGE.numpy())
    with pytest.raises(InputError, match="`n_views=4`: .* features cannot be turned"):
        table.check(features.numpy(), n_views=4)
    with pytest.raises(InputError, match="says no `num_features`"):
        build_backbone("table:uni")


def test_a_resolution_that_does_not_fit_is_warned_of() -> None:
    backbone = build_backbone(Means(), um_per_px=0.5, input_px=112)
    with pytest.warns(
        SpatialsigWarning, match=r"trained at 0.5 µm/px and will see 1 µm/px .* patch_px=112, um_per_px=0.5"
    ):
        warn_of_scale(backbone, patch_px=224, um_per_px=0.5)
    warn_of_scale(backbone, patch_px=112, um_per_px=0.5)
    warn_of_scale(build_backbone(Means()), patch_px=112, um_per_px=5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Means, "`backbone=Means` is a class; give an object of it"),
        (lambda: Means(), "cannot be called with one batch of images; give the network, not a function that makes it"),
        (3, "wanted a name, a module or a callable"),
    ],
)
def test_what_makes_a_network_is_none(given: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        build_backbone(given)  # type: ignore[arg-type]


class Tiny(nn.Module):
    """What stands for a network of timm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, width, 8, stride=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean(dim=(2, 3))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A stand-in for timm that notes how it was asked."""
    asked = []

    def create_model(name: str, *, pretrained: bool, num_classes: int, width: int = 6) -> nn.Module:
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        asked.append({"pretrained": pretrained, "num_classes": num_classes})
        return Tiny(width)

    def resolve(model: nn.Module) -> dict:
        return {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "input_size": (3, 16, 16)}

    data = types.SimpleNamespace(resolve_model_data_config=resolve)
    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model, data=data))
    return asked


def test_timm_weights_come_from_a_file(timm: list[dict], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = Tiny(6)
    save_file(source.state_dict() | {"head.weight": torch.zeros(2, 6)}, tmp_path / "w.safetensors")
    torch.save(source.state_dict(), tmp_path / "w.bin")
    for file in ("w.safetensors", "w.bin"):
        found = build_backbone(f"timm:tiny@{tmp_path / file}")
        torch.testing.assert_close(found.model.body.weight, source.body.weight)
    assert found.inputs.input_px == 16
    assert found.inputs.mean == (0.5, 0.5, 0.5)
    assert timm == [{"pretrained": False, "num_classes": 0}] * 2
    again = build_backbone(found.spec, pretrained=False)
    again.load_state_dict(found.state_dict())
    torch.testing.assert_close(again(IMAGE), found(IMAGE))
    assert str(tmp_path) not in found.spec


def test_timm_arguments_are_kept_and_nothing_is_fetched_unasked(timm: list[dict], tmp_path: Path) -> None:
    wide = build_backbone('timm:{"name": "tiny", "arguments": {"width": 9}}', pretrained=False)
    assert wide.num_features == build_backbone(wide.spec, pretrained=False).num_features == 9
    with pytest.raises(FileMissingError, match="not loaded from the hub unasked"):
        build_backbone("timm:tiny")
    assert not any(call["pretrained"] for call in timm)
    build_backbone("timm:tiny", download=True)
    assert timm[-1]["pretrained"]
    with pytest.raises(InputError, match="timm cannot make the network 'none': Unknown model"):
        build_backbone("timm:none", download=True)
    with pytest.raises(FileMissingError, match="weights .*gone.bin of timm network 'tiny' are not there"):
        build_backbone(f"timm:tiny@{tmp_path}/gone.bin")
    torch.save(Tiny(4).state_dict(), tmp_path / "other.bin")
    with pytest.raises(InputError, match=r"is not for timm network 'tiny': 2 tensors missing or of another shape"):
        build_backbone(f"timm:tiny@{tmp_path}/other.bin")
    with pytest.raises(InputError, match="must be numbers, lists of numbers, true or false"):
        build_backbone('timm:{"name": "tiny", "arguments": {"checkpoint_path": "x"}}')
    with pytest.raises(InputError, match="keeps its architecture outside of timm"):
        build_backbone("timm:hf-hub:someone/net", download=True)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"needs the package timm, .*pip install 'spatialsig\[backbones\]'"):
        build_backbone("timm:tiny")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Networks of transformers with random weights, saved as a download would be."""
    library = pytest.importorskip("transformers", reason="the package transformers is not installed")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8, "image_size": 16}
    where = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    kinds = {
        "vit": library.ViTConfig(**small, intermediate_size=16),
        "registers": library.Dinov2WithRegistersConfig(**small, mlp_ratio=1, num_register_tokens=2),
    }
    for name, config in kinds.items():
        library.AutoModel.from_config(config).save_pretrained(where / name)
    scale = {"image_mean": [0.7, 0.5, 0.6], "image_std": [0.2, 0.3, 0.2]}
    (where / "vit" / "preprocessor_config.json").write_text(json.dumps(scale))
    return {name: where / name for name in kinds}


@pytest.mark.parametrize("kind", ["vit", "registers"])
def test_transformers_features_are_those_of_the_library(kind: str, local: dict[str, Path]) -> None:
    import transformers

    backbone = build_backbone(f"transformers:{local[kind]}")
    reference = transformers.AutoModel.from_pretrained(local[kind]).eval()
    scale = ((0.7, 0.5, 0.6), (0.2, 0.3, 0.2)) if kind == "vit" else (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in scale)
    image = IMAGE[..., :16, :16]
    hidden = reference(pixel_values=(image / 255 - mean) / std).last_hidden_state
    torch.testing.assert_close(backbone(image), hidden[:, 0], atol=1e-5, rtol=1e-5)
    mean_pooled = build_backbone(f"transformers:{local[kind]}", pool="mean")
    n_prefix = 3 if kind == "registers" else 1
    torch.testing.assert_close(mean_pooled(image), hidden[:, n_prefix:].mean(dim=1), atol=1e-5, rtol=1e-5)


def test_a_network_of_transformers_is_built_again_without_its_files(local: dict[str, Path]) -> None:
    backbone = build_backbone(f"transformers:{local['vit']}", pool="mean", um_per_px=0.5)
    again = build_backbone(backbone.spec, pretrained=False)
    assert str(local["vit"].parent) not in backbone.spec
    assert again.spec == backbone.spec
    assert again.um_per_px == 0.5
    again.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(again(IMAGE), backbone(IMAGE))
    net = SignatureNet(SignatureConfig(ViTConfig(), 2, backbone=backbone.spec))
    assert net(IMAGE).shape == (4, 2)


def test_networks_that_are_not_here_are_not_fetched(local: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match=r"(?s)is not here: .*hf download NAME --local-dir DIR"):
        build_backbone("transformers:nobody/nothing")
    with pytest.raises(FileMissingError, match="is not here"):
        build_backbone(f"transformers:{tmp_path}")
