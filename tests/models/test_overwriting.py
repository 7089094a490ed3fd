"""A model takes the place of a model and of nothing else: files of others in its directory, and cards that people edited, stay."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

import spatialsig as sp
from spatialsig.errors import InputError, StoreError
from spatialsig.models import CellHead

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import damaged_models as damaged

KINDS = ["Autoencoder", "CellHead", "SignatureViT", "PretrainedViT", "SignatureEnsemble"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("theirs", ["notes.md", "figures/a.png", "member-99/notes.txt", "weights.pt"])
def test_files_of_others_are_not_deleted_with_a_model(tmp_path: Path, kind: str, theirs: str) -> None:
    models = damaged.make_models(tmp_path)
    place, cls = next((place, cls) for place, cls in models.items() if place.name == f"{kind}-1")
    model = cls.load(place)
    (place / theirs).parent.mkdir(exist_ok=True)
    (place / theirs).write_text("mine")
    (place / ".DS_Store").touch()
    with pytest.raises(StoreError, match=rf"holds {theirs}, which no model does"):
        model.save(place, overwrite=True)
    assert (place / theirs).read_text() == "mine"
    (place / theirs).unlink()
    model.save(place, overwrite=True)
    assert damaged.state(cls.load(place)) == damaged.state(model)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub of which only the card matters."""
    place = tmp_path / "hub"
    place.mkdir()

    def upload(*, repo_id: str, folder_path: str, commit_message: str) -> str:
        (place / "README.md").write_bytes((Path(folder_path) / "README.md").read_bytes())
        return f"{repo_id} {commit_message}"

    library = ModuleType("huggingface_hub")
    vars(library).update(
        create_repo=lambda *_, **__: None, upload_folder=upload, snapshot_download=lambda *_, **__: str(place)
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    return place


@pytest.mark.parametrize("words", [b"# Ours\n", "# Größe\n".encode("latin-1")])
def test_a_card_that_was_edited_on_the_hub_is_kept(hub: Path, tmp_path: Path, words: bytes) -> None:
    models = damaged.make_models(tmp_path)
    model = next(cls.load(place) for place, cls in models.items() if place.name == "CellHead-1")
    sp.models.push_to_hub(model, "lab/head")
    assert b"CellHead" in (hub / "README.md").read_bytes()
    (hub / "README.md").write_bytes(words)
    sp.models.push_to_hub(model, "lab/head", license="mit")
    assert (hub / "README.md").read_bytes() == words


def test_a_licence_is_one_word(hub: Path) -> None:
    with pytest.raises(InputError, match=r"`license='mit\\nevil: true'`; wanted the identifier"):
        sp.models.push_to_hub(
            CellHead(["A"], feature_mean=[0.0], feature_std=[1.0], model_sha256="0"), "a/b", license="mit\nevil: true"
        )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"signatures": ["A", "A"]}, "`signatures` must be distinct"),
        ({"signatures": []}, "`signatures` must be distinct"),
        ({"feature_mean": np.array([np.nan, 0.0])}, "must be finite"),
        ({"feature_std": np.array([np.inf, 1.0])}, "must be finite"),
        ({"net": nn.Linear(7, 3)}, "`net` maps 7 features to 3 scores; wanted 2 to 2"),
    ],
)
def test_a_head_that_cannot_be_is_refused(changed: dict[str, Any], said: str) -> None:
    good: dict[str, Any] = {"signatures": ["A", "B"], "feature_mean": [0.0, 0.0], "feature_std": [1.0, 1.0]}
    options = SimpleNamespace(**good | changed)
    with pytest.raises(InputError, match=said):
        CellHead(**vars(options), model_sha256="0")


def test_features_are_numbers() -> None:
    head = CellHead(["A"], feature_mean=[0.0], feature_std=[1.0], model_sha256="0")
    with pytest.raises(InputError, match="`features` must be numbers"):
        head.predict(np.array([["a"]]))
