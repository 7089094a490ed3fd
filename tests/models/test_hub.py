"""Models from a hub and to it, with a stand-in for its library: nothing is sent or fetched."""

import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import spatialsig as sp
from spatialsig._known import MODELS
from spatialsig.errors import FileMissingError, InputError
from spatialsig.models.hub import FILES

from .test_directory import KINDS, vit


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A hub that is a folder, and what was asked of it."""
    asked: dict[str, Any] = {}
    library = ModuleType("huggingface_hub")

    def upload_folder(*, repo_id: str, folder_path: str, commit_message: str) -> str:
        shutil.copytree(folder_path, tmp_path / "hub" / repo_id)
        asked["message"] = commit_message
        return f"https://hub/{repo_id}/commit/1"

    def snapshot_download(repo_id: str, *, allow_patterns: list[str], revision: str | None = None) -> str:
        asked["revision"], asked["patterns"] = revision, allow_patterns
        place = tmp_path / "cache" / repo_id
        found = [file for pattern in allow_patterns for file in (tmp_path / "hub" / repo_id).rglob(pattern)]
        for file in found:
            target = place / file.relative_to(tmp_path / "hub" / repo_id)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        return str(place)

    library.create_repo = lambda repo, **options: asked.update(repo=repo, **options)  # type: ignore[attr-defined]
    library.upload_folder, library.snapshot_download = upload_folder, snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    return asked


@pytest.mark.parametrize("kind", MODELS)
def test_what_was_pushed_comes_back(kind: str, hub: dict[str, Any], tmp_path: Path) -> None:
    model = KINDS[kind]()
    address = sp.models.push_to_hub(model, "our-lab/breast", license="cc-by-4.0", private=False)
    assert address == "https://hub/our-lab/breast/commit/1"
    assert (hub["repo"], hub["private"], hub["exist_ok"]) == ("our-lab/breast", False, True)
    assert "license: cc-by-4.0\n" in (tmp_path / "hub/our-lab/breast/README.md").read_text()
    back = sp.models.from_hub("our-lab/breast", revision="v1")
    assert hub["revision"] == "v1"
    assert hub["patterns"] == list(FILES)
    assert repr(back) == repr(model)


def test_a_directory_goes_first_and_needs_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    model = vit()
    model.save(tmp_path / "our-lab" / "breast")
    monkeypatch.chdir(tmp_path)
    back = sp.models.from_hub("our-lab/breast")
    images = np.full((2, 3, 64, 64), 180, np.uint8)
    np.testing.assert_allclose(back.predict(images), model.predict(images), rtol=1e-4)
    with pytest.raises(InputError, match=r"`revision='v1'` is of a repository, and .* is a directory"):
        sp.models.from_hub("our-lab/breast", revision="v1")
    with pytest.raises(InputError, match=r"need the package huggingface_hub.*pip install 'spatialsig\[hub\]'"):
        sp.models.from_hub("our-lab/lung")
    with pytest.raises(InputError, match="need the package huggingface_hub"):
        sp.models.push_to_hub(model, "our-lab/lung")


def test_names_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match="is no directory, nor the name of a repository"):
        sp.models.from_hub(tmp_path / "not" / "there")
    with pytest.raises(InputError, match=r"`repository='lung'`; wanted `owner/name`"):
        sp.models.push_to_hub(vit(), "lung")
    (tmp_path / "config.json").write_text('{"kind": "Other"}')
    with pytest.raises(InputError, match="a model of kind 'Other'; wanted Autoencoder"):
        sp.models.from_hub(tmp_path)
