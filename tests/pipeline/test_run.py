"""A run that is interrupted at any of its steps ends as one that is not, and does nothing twice."""

import json
import pkgutil
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import spatialsig as sp
from spatialsig.cohort import read_bundle
from spatialsig.errors import InputError, SpatialsigError, StoreError
from spatialsig.models import SignatureViT
from spatialsig.pipeline import RunConfig, failed_slides, finished_steps, plan, report_of, run
from spatialsig.pipeline.run_config import SplitConfig

pytestmark = pytest.mark.timeout(900)
GENES = sp.io.read_signatures("seed")
FEW = {"checkpoint_minutes": 1e-6}


class Stopped(KeyboardInterrupt):
    """What a test raises in place of a kill."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bundles")
    sp.datasets.synthetic_xenium(place, n_slides=3, size_um=260.0, seed=3)
    return place / "bundles.csv"


def config(bundles: Path, out: Path) -> RunConfig:
    return RunConfig(
        bundles=bundles, out=out, check_alignment=False,
        split={"n_folds": 3}, genes={"n_top_genes": 60},
        patches={"patch_px": 28, "um_per_px": 2.0, "stride_um": 28.0},
        labels={"signatures": {name: GENES[name] for name in ("Immune_T", "Fibroblast")}, "min_cells": 3},
        autoencoder={"max_epochs": 2, "hidden": [8], "n_latent": 4, "trainer": FEW},
        vit={"max_epochs": 3, "batch_size": 16, "trainer": FEW},
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(config(bundles, out))
    return results(out) | {"out": out}


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = {name: pd.read_csv(out / f"{name}.csv") for name in ("evaluation", "coverage", "findings")}
    for store in sorted((out / "stores").glob("*.zarr")):
        sdata = sp.io.read(store)
        found |= {f"{store.stem} {key}": np.asarray(sdata[key].X) for key in ("signatures", "signatures_pred")}
        found[f"{store.stem} X_ae"] = np.asarray(sdata["table"].obsm["X_ae"])
    return found


def same(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, second[name])
        else:
            np.testing.assert_array_equal(value, second[name], err_msg=name)


def stop_after(monkeypatch: pytest.MonkeyPatch, target: str, n: int, named: str) -> None:
    """Let a function be called ``n`` times with an argument whose text holds ``named``, and stop the run after the last."""
    calls = Counter[str]()
    owner, _, name = target.rpartition(".")
    original = getattr(pkgutil.resolve_name(owner), name)

    def stopping(*args: Any, **kwargs: Any) -> Any:
        done = original(*args, **kwargs)
        calls[target] += any(named in str(value) for value in args)
        if calls[target] == n:
            calls[target] += 1
            raise Stopped
        return done

    monkeypatch.setattr(f"{owner.replace(':', '.')}.{name}", stopping)


# function after whose n-th call, with an argument that holds a text, the run stops; slides that are read again afterwards
POINTS = {
    "second slide read": ("spatialsig.pipeline.run_steps.read_bundle", 2, "", 2),
    "checkpoint of the autoencoder": ("spatialsig.train.checkpoint.Checkpoints._keep", 2, "autoencoder", 0),
    "autoencoder trained": ("spatialsig.models.autoencoder.Autoencoder.save", 1, "", 0),
    "checkpoint of the image model": ("spatialsig.train.checkpoint.Checkpoints._keep", 2, "vit", 0),
    "prediction of the first slide": ("spatialsig.tl._predict._Prediction.on", 1, "", 0),
}


ALL = pytest.param(list(POINTS), id="at all of them")
EACH = [pytest.param([point], id=point, marks=pytest.mark.slow) for point in POINTS]


@pytest.mark.parametrize("points", [ALL, *EACH])
def test_an_interrupted_run_ends_as_one_that_is_not(
    points: list[str], bundles: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for point in points:
        target, n, named, again = POINTS[point]
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, target, n, named)
            with pytest.raises((Stopped, SystemExit)):  # Lightning makes the second of the first
                run(config(bundles, out))
        if point.startswith("checkpoint"):  # from which the next run resumes
            assert list((out / "training").glob(f"{named}-*/checkpoints/*"))
    with pytest.MonkeyPatch.context() as patch:
        read = []
        patch.setattr(
            "spatialsig.pipeline.run_steps.read_bundle", lambda *a, **k: read.append(a) or read_bundle(*a, **k)
        )
        run(config(bundles, out))
    same(results(out), {name: value for name, value in undisturbed.items() if name != "out"})
    assert len(read) == again
    assert not (out / "training").exists()


WRONG: list[Any] = [None, True, 5, "x", [1], {"a": [1]}]
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "other text": lambda _: b"a,b\n1,2\n",
    "no text": lambda _: b"\xff\xfe\x00\xd8",
    **{f"{value!r} in JSON": lambda _, value=value: json.dumps(value).encode() for value in WRONG},
}


def damaged(content: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """Contents that a file may be given by an accident or by hand."""
    for what, damage in DAMAGES.items():
        yield what, damage(content)
    whole = json.loads(content) if name.endswith(".json") else {}
    for key in whole if isinstance(whole, dict) else ():
        for value in WRONG:
            yield f"{key}: {value!r}", json.dumps(whole | {key: value}).encode()
        for inner in whole[key] if name == "steps.json" and isinstance(whole[key], dict) else ():
            for value in WRONG:
                yield f"{key}/{inner}: {value!r}", json.dumps(whole | {key: whole[key] | {inner: value}}).encode()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_damage_of_every_file_of_a_run_is_named(
    bundles: Path, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read back of a run: its record, its tables and its models; of stores, other tests tell."""
    out, tried = tmp_path / "out", 0
    shutil.copytree(undisturbed["out"], out)
    monkeypatch.setattr("spatialsig.pipeline.report_of_run.write_report", lambda path, **_: path)
    readers = (failed_slides, finished_steps, lambda out: plan(config(bundles, out)), report_of)
    for file in [
        *(p for p in out.rglob("*") if p.is_file() and "stores" not in p.parts),
        out / "stores" / "cohort.csv",
    ]:
        content = file.read_bytes()
        for what, changed in [*damaged(content, file.name), ("a folder", b"")]:
            file.unlink()
            file.mkdir() if what == "a folder" else file.write_bytes(changed)
            for reader in readers if file.suffix == ".json" else readers[2:]:
                tried += 1
                try:
                    reader(out)
                except SpatialsigError as error:
                    told = str(error)
                    assert file.name in told or file.parent.name in told, f"{file.name}, {what}: {told}"
                except Exception as error:
                    error.add_note(f"{file.relative_to(out)}, {what}")
                    raise
            file.rmdir() if what == "a folder" else file.unlink()
            file.write_bytes(content)
    assert tried > 1000
    assert all(plan(config(bundles, out)).values())


def test_results_of_others_are_not_mixed_in(bundles: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    out = undisturbed["out"]
    store = sorted((out / "stores").glob("*.zarr"))[0]
    sdata = sp.io.read(store)
    sdata["signatures"].X += 1
    sp.io.write(sdata, store, overwrite=True)
    with pytest.raises(
        InputError, match=f"stores/{store.name}/tables/signatures .* changed since the step 'cut and label"
    ):
        run(config(bundles, out))
    page = report_of(out, out=tmp_path / "page.html").read_text()
    assert "tables/signatures changed, or was removed, after the run had used it: this page mixes results" in page


@pytest.mark.slow
def test_a_slide_that_could_not_be_imported_is_tried_again(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "bundles"
    shutil.copytree(bundles.parent, place)
    job = config(place / "bundles.csv", tmp_path / "out").model_copy(update={"split": SplitConfig(n_folds=2)})
    (place / "S3").rename(tmp_path / "S3")
    run(job)
    assert "S3" in failed_slides(job.out)["S3"]
    with monkeypatch.context() as patch:
        patch.setattr(sp.tl, "train_vit", None)  # nothing that was done is done again
        run(job)
    (tmp_path / "S3").rename(place / "S3")
    run(job)
    assert failed_slides(job.out) == {}
    assert set(sp.Cohort(job.out / "stores")) == {"S1", "S2", "S3"}
    assert "signatures_pred" in sp.Cohort(job.out / "stores")["S3"].tables
    assert all(plan(job).values())
    monkeypatch.setattr(sp.pp, "split", None)
    run(job)


@pytest.mark.slow
def test_a_slide_that_a_full_disk_left_out_is_learnt_from_once_there_is_room(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inputs are the same then: what follows is redone because another slide is there."""
    job = config(bundles, tmp_path / "out").model_copy(update={"split": SplitConfig(n_folds=2)})

    def full(row: pd.Series, store: Path, **options: bool) -> None:
        if row["sample"] == "S3":
            msg = "No space left on device"
            raise StoreError(msg)
        read_bundle(row, store, **options)

    with monkeypatch.context() as patch:
        patch.setattr("spatialsig.pipeline.run_steps.read_bundle", full)
        run(job)
    assert failed_slides(job.out) == {"S3": "StoreError: No space left on device"}
    run(job)
    assert failed_slides(job.out) == {}
    assert "signatures_pred" in sp.Cohort(job.out / "stores")["S3"].tables


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_on_a_panel_that_measures_few_signatures_reaches_its_end(bundles: Path, tmp_path: Path) -> None:
    """What the panel does not measure is said once and left out of the model; the report has the others."""
    whole = config(bundles, tmp_path / "out")
    sets = {"Absent": ["ZZZ1", "ZZZ2", "ZZZ3"], **whole.labels.signatures}  # type: ignore[dict-item]
    small = whole.model_copy(update={"labels": whole.labels.model_copy(update={"signatures": sets})})
    run(small)
    said = "1 of 3 signatures were measured on no training slide, so the model leaves them out: Absent"
    model = SignatureViT.load(tmp_path / "out" / "models" / "vit")
    assert (model.signatures, model.run["signatures_left_out"]) == (("Immune_T", "Fibroblast"), ["Absent"])
    assert set(pd.read_csv(tmp_path / "out" / "evaluation.csv")["signature"]) == set(model.signatures)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count(said) == 1
    assert "Immune_T" in page
