"""A model takes the place of nothing, unless it is told to: of every kind the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spatialsig._known import MODELS
from spatialsig.errors import InputError, StoreError
from spatialsig.models import Autoencoder, CellHead, PretrainedViT, SignatureEnsemble, SignatureViT
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.nn.signature import SignatureConfig
from spatialsig.nn.vit import ViT, ViTConfig

TINY = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))


def vit() -> SignatureViT:
    scale = {"target_mean": np.zeros(1), "target_std": np.ones(1)}
    return SignatureViT(SignatureConfig(TINY), ["T"], **scale, patch_px=64, um_per_px=0.5)


KINDS: dict[str, Callable[[], Autoencoder | CellHead | PretrainedViT | SignatureEnsemble | SignatureViT]] = {
    "Autoencoder": lambda: Autoencoder(AutoencoderConfig(hidden=(4,), n_latent=2), ["A", "B"], mean=[0.0, 0.0], std=[1.0, 1.0]),
    "CellHead": lambda: CellHead(["T"], feature_mean=[0.0, 1.0], feature_std=[1.0, 2.0], model_sha256="0"),
    "PretrainedViT": lambda: PretrainedViT(ViT(TINY), patch_px=64, um_per_px=0.5),
    "SignatureEnsemble": lambda: SignatureEnsemble([vit(), vit()]),
    "SignatureViT": vit,
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_is_there_is_replaced_only_where_that_is_asked_for(kind: str, tmp_path: Path) -> None:
    KINDS[kind]().save(tmp_path / "m")
    before = contents(tmp_path)
    other = KINDS[kind]()
    other.run = {"note": "second"}
    with pytest.raises(StoreError, match=rf"there is a model at '.*m' \({kind}\); pass `overwrite=True` to replace it"):
        other.save(tmp_path / "m")
    assert contents(tmp_path) == before
    other.save(tmp_path / "m", overwrite=True)
    assert type(other).load(tmp_path / "m").run["note"] == "second"
    (tmp_path / "m" / "config.json").write_text("{")  # damaged, and still a model of ours
    with pytest.raises(StoreError, match="pass `overwrite=True`"):
        other.save(tmp_path / "m")
    other.save(tmp_path / "m", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", ["notes.txt", "config.json"])
def test_what_is_no_model_is_never_replaced(kind: str, name: str, tmp_path: Path) -> None:
    """Neither the folder of another program that names its file as we do."""
    (tmp_path / name).write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="exists and is no model directory; choose another place"):
            KINDS[kind]().save(tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == {name: b"{}"}
