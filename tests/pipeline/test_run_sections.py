"""A run of all its steps, on slides with cells and one that is an H&E alone."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.pipeline.test_run import GENES, Stopped, same, stop_after
from torch import nn

import spatialsig as sp
from spatialsig.errors import InputError
from spatialsig.evaluation.rows import Request, Rows, _look
from spatialsig.models import load_signature_model
from spatialsig.pipeline import RunConfig, plan, read_config, run

pytestmark = pytest.mark.timeout(900)
SMALL = {"dim": 16, "depth": 1, "heads": 2, "mlp_dim": 16, "stem": [4, 4], "stem_blocks": [0, 0]}


class Means(nn.Module):
    """Features of a patch: its mean colour."""

    num_features = 3

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Manifest of three bundles, and the image of a fourth slide without its bundle."""
    place = tmp_path_factory.mktemp("bundles")
    sp.datasets.synthetic_xenium(place, n_slides=4, size_um=260.0, seed=3)
    rows = pd.read_csv(place / "bundles.csv")
    rows.loc[3, ["bundle", "he_alignment"]] = np.nan
    rows.to_csv(place / "bundles.csv", index=False)
    return place / "bundles.csv"


def config(bundles: Path, out: Path, **more: Any) -> RunConfig:
    sp.register_backbone("means", Means)
    every_step: dict[str, Any] = {
        "tissue": {"min_area_um2": 100.0}, "patch_qc": {}, "features": {"backbone": "registered:means"},
        "ensemble": {"n_members": 2}, "calibration": {"coverage": 0.5}, "cross_validation": {"refit_autoencoder": True},
    }  # fmt: skip
    return RunConfig(
        bundles=bundles, out=out, check_alignment=False,
        split={"n_folds": 3}, genes={"n_top_genes": 60},
        patches={"patch_px": 28, "um_per_px": 2.0, "stride_um": 56.0, "min_tissue": 0.1},
        labels={"signatures": {name: GENES[name] for name in ("Immune_T", "Fibroblast")}, "min_cells": 3},
        autoencoder={"max_epochs": 1, "hidden": [8], "n_latent": 4},
        vit={"max_epochs": 1, "batch_size": 16, "size": sp.ViTConfig(**SMALL), "validation_fold": 1}, **every_step | more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(config(bundles, out))
    return out


def results(out: Path) -> dict[str, Any]:
    names = ("evaluation", "intervals", "patch_qc", "cross_validation", "cross_validation_summary")
    found: dict[str, Any] = {name: pd.read_csv(out / f"{name}.csv") for name in names}
    for store in sorted((out / "stores").glob("*.zarr")):
        sdata = sp.io.read(store)
        found |= {f"{store.stem} {key}": np.asarray(table.X) for key, table in sdata.tables.items() if key != "table"}
    return found


def test_every_step_leaves_its_results(undisturbed: Path) -> None:
    found = results(undisturbed)
    cohort = sp.Cohort(undisturbed / "stores")
    assert cohort.obs["role"].tolist() == ["measured"] * 3 + ["predict"]
    alone = cohort[cohort.obs.index[3]]
    assert set(alone.tables) == {"embedding", "signatures_pred"}
    assert alone["signatures_pred"].layers.keys() == {"lower", "upper", "std"}
    assert alone["patches"]["qc_pass"].notna().all()
    model = load_signature_model(undisturbed / "models" / "vit")
    assert (type(model).__name__, len(model.members)) == ("SignatureEnsemble", 2)
    assert "embedding" in set(found["evaluation"]["method"])
    assert set(found["cross_validation"]["fold"]) == {0, 1, 2}
    assert {"signatures_cv", "signatures_pred"} <= set(cohort[cohort.obs.index[0]].tables)
    page = (undisturbed / "report.html").read_text()
    assert "Slides that are an H&amp;E alone" in page
    assert "Every fold held out once" in page
    assert len(re.findall(r"alt=.[A-Za-z_]+ on S4: predicted", page)) == 2
    assert not (undisturbed / "training").exists()


# function after whose n-th call the run stops
POINTS = {
    "second slide embedded": ("spatialsig.tl._backbone._embed", 2),
    "first member of the ensemble": ("spatialsig.models.vit.SignatureViT.save", 1),
    "model calibrated": ("spatialsig.pipeline.run_steps.load_signature_model", 1),
    "second slide evaluated": ("spatialsig.evaluation.rows._keep", 2),
    "first fold held out": ("spatialsig.tl._cross_validate._run_fold", 1),
    "autoencoder of the second fold": ("spatialsig.tl._cross_validate._embed", 1),
}


@pytest.mark.slow
def test_a_run_that_is_stopped_in_any_step_ends_as_one_that_is_not(
    bundles: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config(bundles, tmp_path / "out")
    looked: list[str] = []  # slides of which the evaluation read the pixels

    def look(rows: Rows, patches: Any, index: Any, request: Request) -> None:
        looked.extend([rows.sample] if request.run_dir is not None else [])
        _look(rows, patches, index, request)

    monkeypatch.setattr("spatialsig.evaluation.rows._look", look)
    for target, n in POINTS.values():
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, target, n, "")
            with pytest.raises((Stopped, SystemExit)):
                run(job)
    run(job)
    same(results(tmp_path / "out"), results(undisturbed))
    assert looked == ["S1", "S2", "S3"]  # each once, though it was stopped after the second


@pytest.mark.slow
def test_what_is_asked_for_later_repeats_only_what_depends_on_it(
    bundles: Path, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "out")
    job = config(bundles, tmp_path / "out")
    assert all(plan(job).values())
    without = job.model_copy(update={"calibration": None})
    assert next(step for step, done in plan(without).items() if not done) == "predict every slide"
    run(without)
    sdata = sp.io.read(next(iter((tmp_path / "out" / "stores").glob("*.zarr"))))
    assert "lower" not in sdata["signatures_pred"].layers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patch_qc: {min_fokus: 1}", "`min_fokus`.*did you mean.*min_focus"),
        ("features: {}", "`features.backbone` is missing"),
        ("features: true", "`features.backbone` is missing"),
        ("ensemble: {n_members: 0}", "`n_members=0` of .*: ensemble` must be"),
        ("ensemble: {run_dir: here}", "`ensemble.run_dir` is decided by the run: give it as nothing: it is kept in `out`"),
        ("calibration: {coverage: 0.9}", "set `vit.validation_fold` to a fold of its own"),
        ("cross_validation: {seed: 1}", "`cross_validation.seed` is decided by the run: give it as `seed`"),
        ("vit: {validation_fold: 0}", "`vit.validation_fold` is 0; wanted a fold below `split.n_folds`, 4, other than"),
        ("vit: {validation_fold: 4}", "`vit.validation_fold` is 4; wanted a fold below"),
        ("tissue: 3", "`tissue` is 3, but must be a valid dictionary"),
    ],
)  # fmt: skip
def test_a_section_that_does_not_fit_is_refused_before_anything_is_done(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "c.yaml").write_text(f"bundles: b.csv\nout: r\n{text}\n")
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / "c.yaml")


def test_sections_are_switched_by_a_word(tmp_path: Path) -> None:
    lines = (
        "bundles: b.csv",
        "out: r",
        "patch_qc: true",
        "tissue: false",
        "features: {backbone: 'transformers:here', pool: mean}",
    )
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    read = read_config(tmp_path / "c.yaml")
    assert (read.patch_qc, read.tissue) == ({}, None)
    assert read.features == {"backbone": "transformers:here", "pool": "mean"}
