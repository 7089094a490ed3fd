"""Stores and models that earlier versions wrote load with equal bits, and what is computed from them is the same."""

import hashlib
import importlib.metadata
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import spatialsig as sp
from spatialsig.nn.signature import SignatureConfig

ARCHIVES = Path(__file__).with_name("archives")
VERSIONS = {"v0.1": "0.1.0"}  # archive -> version that made it
pytestmark = pytest.mark.timeout(900)


def _load_contents() -> ModuleType:
    spec = importlib.util.spec_from_file_location("archive_contents", ARCHIVES / "contents.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


contents = _load_contents()


@pytest.fixture(scope="module", params=sorted(VERSIONS))
def archive(request: pytest.FixtureRequest) -> Path:
    return ARCHIVES / request.param


@pytest.fixture(scope="module")
def untouched(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Slides and models, only to be read."""
    return contents.unpack(archive, tmp_path_factory.mktemp("untouched"))


@pytest.fixture
def slides(archive: Path, tmp_path: Path) -> Path:
    """Slides to be written to."""
    return contents.unpack(archive, tmp_path)[0]


def expected(archive: Path, part: str) -> dict[str, np.ndarray]:
    arrays = contents.read_arrays(archive / "expected.npz.xz")
    return {name: array for name, array in arrays.items() if name.startswith(f"{part}/")}


def assert_equal_bits(measured: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert sorted(measured) == sorted(wanted)
    for name, array in wanted.items():
        if name.endswith("/config"):
            assert_same_config(json.loads(str(measured[name])), json.loads(str(array)), name)
            continue
        if name.endswith("/uns"):
            assert _as_then(json.loads(str(measured[name]))) == json.loads(str(array)), name
            continue
        assert measured[name].dtype == array.dtype, name
        np.testing.assert_array_equal(measured[name], array, err_msg=name)


def _as_then(params: Any) -> Any:
    """Parameters without what is written down since: the unit of scores, in words."""
    if isinstance(params, dict):
        return {name: _as_then(value) for name, value in params.items() if name != "unit"}
    return params


def assert_same_config(measured: dict[str, Any], wanted: dict[str, Any], name: str) -> None:
    """All fields of the archive as they were; those that came later at their defaults."""
    later = {field: measured[field] for field in measured.keys() - wanted.keys()}
    assert {field: measured[field] for field in wanted} == wanted, name
    assert later == {field: getattr(SignatureConfig(), field) for field in later}, name


def test_what_lies_in_stores_and_models_is_read_with_equal_bits(archive: Path, untouched: tuple[Path, Path]) -> None:
    assert_equal_bits(contents.stored(*untouched), expected(archive, "stored"))


def test_checksums_of_old_stores_still_hold(untouched: tuple[Path, Path]) -> None:
    for store in untouched[0].glob("*.zarr"):
        report = sp.io.verify(store)
        assert set(report["status"]) == {"ok"}, report.to_string()


def test_scores_patches_and_labels_come_out_with_equal_bits(archive: Path, slides: Path) -> None:
    assert_equal_bits(contents.computed(slides), expected(archive, "computed"))


def test_networks_say_the_same(archive: Path, untouched: tuple[Path, Path]) -> None:
    """Not bit for bit: matrix products add up in another order on another processor or with more threads."""
    measured, wanted = contents.by_networks(*untouched), expected(archive, "network")
    assert sorted(measured) == sorted(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(measured[name], array, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_old_predictions_need_not_be_made_again(slides: Path, untouched: tuple[Path, Path]) -> None:
    cohort, models = contents.open_cohort(slides), contents.loaded(untouched[1])
    outcome = sp.tl.predict(cohort, models["ensemble"], skip_done=True)
    assert outcome["outcome"].tolist() == ["skipped", "skipped"]
    outcome = sp.tl.predict(cohort, models["vit"], use_rep="X_ae", key_added="signatures_fused", skip_done=True)
    assert outcome["outcome"].tolist() == ["skipped", "skipped"]


@pytest.mark.slow
def test_an_old_run_is_resumed_without_training(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the number of the version that made it: finished members count for one version only."""
    slides, models = contents.unpack(archive, tmp_path)
    _pretend_version(monkeypatch, VERSIONS[archive.name])
    monkeypatch.setattr(torch.optim.Optimizer, "__init__", _refuse)
    before = _digests(models / "run")
    size = contents.loaded(models)["vit_gaussian"].config.vit
    ensemble = sp.tl.train_ensemble(
        contents.open_cohort(slides), size=size, use_rep=None, run_dir=models / "run", **contents.ENSEMBLE
    )
    assert _digests(models / "run") == before
    assert len(ensemble.members) == 2


def _pretend_version(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    real = importlib.metadata.distribution

    class Old:
        pass

    Old.version = version
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Old if name == "spatialsig" else real(name))


def _refuse(*_args: object, **_kwargs: object) -> None:
    pytest.fail("a finished member is trained again")


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
