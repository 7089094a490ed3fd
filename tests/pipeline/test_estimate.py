"""What a run is said to need: sizes from the files, work in units, time by costs and a pilot."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app
from spatialsig.errors import FileMissingError, InputError
from spatialsig.io.xenium.size import bundle_size
from spatialsig.pipeline import RunConfig, estimate, read_config, usual_config
from spatialsig.pipeline import estimate as public
from spatialsig.pipeline.estimate import duration, known_costs
from spatialsig.pipeline.run_config import SplitConfig
from spatialsig.pipeline.run_step import CROSS_VALIDATE, EVALUATE, IMPORT, PREDICT, TRAIN_AUTOENCODER, TRAIN_VIT
from spatialsig.pipeline.sizes import SlideSize, slide_sizes
from spatialsig.pipeline.workload import Workload, seconds

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from capacity import fitted_costs

module = sys.modules[public.__module__]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles, the H&E of a third slide alone, and a bundle that is not there."""
    place = tmp_path_factory.mktemp("bundles")
    sp.datasets.synthetic_xenium(place, n_slides=3, size_um=300.0, he_um_per_px=0.5, transcripts=False)
    rows = pd.read_csv(place / "bundles.csv")
    rows.loc[2, ["bundle", "he_alignment"]] = np.nan
    rows.loc[3] = [
        "S4" if name == "sample" else "P4" if name == "patient" else "lost" if name == "bundle" else np.nan
        for name in rows
    ]
    rows.to_csv(place / "bundles.csv", index=False)
    return place / "bundles.csv"


def config(bundles: Path, **more: Any) -> RunConfig:
    patches = {"patch_px": 28, "um_per_px": 2.0, "stride_um": 50.0}
    return RunConfig(bundles=bundles, out=bundles.parent / "out", split={"n_folds": 2}, patches=patches, **more)


@pytest.mark.parametrize("version", ["3.0", "atera-1.0"])
def test_a_bundle_is_measured_without_its_counts(version: str, tmp_path: Path) -> None:
    sp.datasets.synthetic_xenium(tmp_path, n_slides=1, size_um=300.0, version=version, transcripts=False)
    path = tmp_path / "S1"
    size = bundle_size(path)
    cells = sp.io.read_xenium(path)["table"]
    assert size.n_cells >= cells.n_obs  # of which those without a position are dropped
    assert size.n_cells == cells.n_obs + int(cells.uns.get("n_dropped", 0))
    assert size.n_values >= cells.X.nnz  # controls are no genes
    assert size.n_features >= cells.n_vars
    if version == "3.0":
        with h5py.File(path / "cell_feature_matrix.h5") as file:
            assert size.n_values == len(file["matrix/data"])
    squares = {tuple(each) for each in np.floor(cells.obsm["spatial"] / 100).astype(int)}
    assert size.tissue_mm2 == pytest.approx(0.01 * len(squares), abs=0.011)


def test_slides_are_measured_and_those_that_cannot_be_are_named(bundles: Path) -> None:
    slides, failed = slide_sizes(bundles)
    assert [(slide.sample, slide.is_measured) for slide in slides] == [("S1", True), ("S2", True), ("S3", False)]
    assert list(failed) == ["S4"]
    assert "lost" in failed["S4"]
    for slide in slides:
        with tifffile.TiffFile(next((bundles.parent / slide.sample).glob("*he*.tif*"))) as file:
            height, width = sorted(file.pages[0].shape)[-2:]
        assert slide.megapixels == pytest.approx(height * width / 1e6)
    assert slides[2].tissue_mm2 == pytest.approx(0.5 * slides[2].megapixels * 0.25, rel=0.01)


SLIDES = [
    SlideSize("A", "P1", megapixels=100, tissue_mm2=10, n_cells=50_000, n_features=400, n_values=5_000_000),
    SlideSize("B", "P2", megapixels=300, tissue_mm2=30, n_cells=150_000, n_features=400, n_values=15_000_000),
    SlideSize("C", "P3", megapixels=200, tissue_mm2=20),
]


def test_work_is_counted(bundles: Path) -> None:
    more: dict[str, Any] = {"autoencoder": {"max_epochs": 3}, "vit": {"max_epochs": 5, "batch_size": 10}}
    steps = Workload(config(bundles, genes={"n_top_genes": 200}, **more), SLIDES).steps()
    assert steps[IMPORT] == {"run": 1, "slides": 3, "megapixels": 600, "values": 20, "cells": 200, "checked_mm2": 40}
    assert steps[TRAIN_AUTOENCODER]["cell_epochs"] == pytest.approx(200 * 0.5 * 3)  # a fold of two is held out
    assert steps[TRAIN_AUTOENCODER]["cell_gene_epochs"] == pytest.approx(200 * 0.5 * 3 * 0.2)
    assert steps[PREDICT]["patches"] == pytest.approx(60 / 0.05**2 / 1e3)
    assert steps[TRAIN_VIT] == pytest.approx(
        {"run": 1, "slides": 3, "patch_epochs": 16 * 0.5 * 5, "steps": 16e3 * 0.5 * 5 / 10}
    )
    twice = Workload(config(bundles, **more, ensemble={"n_members": 2}), SLIDES).steps()
    assert twice[TRAIN_VIT]["patch_epochs"] == 2 * steps[TRAIN_VIT]["patch_epochs"]
    assert twice[PREDICT]["patches"] == 2 * steps[PREDICT]["patches"]
    usual = Workload(config(bundles), SLIDES)
    assert (usual.epochs("autoencoder"), usual.epochs("vit")) == (12, 24)  # what the functions do by themselves


def test_costs_are_found_again_from_runs() -> None:
    rng = np.random.default_rng(0)
    truth = {"import": {"run": 2.0, "slides": 0.5, "megapixels": 0.01}}
    runs = []
    for _ in range(8):
        units = {
            "import": {"run": 1.0, "slides": float(rng.integers(2, 9)), "megapixels": float(rng.uniform(10, 4000))}
        }
        runs.append((units, seconds(truth, units)))
    assert fitted_costs(runs)["import"] == pytest.approx(truth["import"], rel=1e-6)


def test_time_is_cost_times_work(bundles: Path) -> None:
    found = estimate(config(bundles, cross_validation={}), pilot=False)
    steps = Workload(config(bundles), slide_sizes(bundles)[0]).steps()
    expected = seconds(known_costs()["seconds"], steps)
    assert found.steps["seconds"].drop(CROSS_VALIDATE).to_dict() == pytest.approx(expected)
    folds = 2 * sum(expected[step] for step in (TRAIN_AUTOENCODER, TRAIN_VIT, EVALUATE))
    assert found.steps["seconds"][CROSS_VALIDATE] == pytest.approx(folds)
    assert found.seconds == pytest.approx(sum(expected.values()) + folds)
    assert min(found.memory_gib, found.disk_gib, found.free_gib) > 0
    assert list(found.failed) == ["S4"]


def test_memory_does_not_grow_with_slides_that_are_worked_on_in_blocks(bundles: Path) -> None:
    costs = {"process": 1.0, "values": 0.4, "cells": 0.02}
    held = [
        module._memory(costs, Workload(config(bundles), [SlideSize("A", "P", n_cells=n, n_values=100 * n)]))
        for n in (1_000, 10_000, 10**6, 10**7)
    ]
    assert held[:2] == pytest.approx([1.06, 1.6])
    assert held[2] == held[3] == 1.0 + module.MOST_BESIDE_GIB


def test_a_pilot_scales_what_takes_long_enough_to_tell(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that the pilot took k times as long for are taken to last k times as long."""
    usual = estimate(config(bundles), pilot=False).steps["seconds"]
    costs = known_costs()["seconds"]
    pilots: list[RunConfig] = []

    def took(out: Path) -> dict[str, float]:
        slides, _ = slide_sizes(pilots[-1].bundles)
        expected = seconds(costs, Workload(pilots[-1], slides).steps())
        return {step: max(1.0, 2 * each) if step == TRAIN_VIT else 0.1 for step, each in expected.items()}

    monkeypatch.setattr(module, "run", pilots.append)
    monkeypatch.setattr(module, "finished_steps", took)
    found = estimate(config(bundles, ensemble={"n_members": 2}, vit={"size": "tiny"}))
    assert pilots[0].ensemble is None
    assert pilots[0].vit["batch_size"] == Workload(config(bundles), slide_sizes(bundles)[0]).batch_size
    factors = found.steps["factor"]
    assert factors.nunique() == 1  # the others were too short, and take that of the one
    assert found.steps["seconds"][IMPORT] == pytest.approx(factors[TRAIN_VIT] * usual[IMPORT])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_pilot_runs_every_step_and_says_nothing(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = estimate(config(bundles, calibration={}, vit={"validation_fold": 1}, patch_qc={}))
    assert (found.steps["seconds"] > 0).all()
    assert (found.steps["factor"] > 0).all()
    assert capsys.readouterr().out == ""


def test_the_command_says_it_and_names_what_cannot_be_read(bundles: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["plan", str(bundles), "--no-pilot", "--quiet"])
    assert said.exit_code == 1
    assert "3 slides of 3 patients, 1 of them an H&E alone" in said.stdout
    assert "cannot be read: S4: bundle" in said.stdout
    (tmp_path / "config.yaml").write_text(
        f"bundles: {bundles}\nout: out\nsplit: {{n_folds: 2}}\nensemble: {{n_members: 3}}\n"
    )
    told = CliRunner().invoke(app, ["plan", str(tmp_path / "config.yaml"), "--no-pilot", "--json", "--quiet"])
    found = json.loads(told.stdout)
    assert found["seconds"] == pytest.approx(sum(step["seconds"] for step in found["steps"]))
    assert [slide["sample"] for slide in found["slides"]] == ["S1", "S2", "S3"]
    broken = tmp_path / "bundles.csv"
    shutil.copy(bundles, broken)
    pd.read_csv(bundles).assign(bundle=["a", "b", "c", "d"]).to_csv(broken, index=False)
    with pytest.raises(InputError, match="no slide of .* can be read"):
        estimate(config(broken), pilot=False)


def test_what_a_run_refuses_is_not_planned(bundles: Path, tmp_path: Path) -> None:
    place = tmp_path / "bundles"
    shutil.copytree(bundles.parent, place)
    (place / "S1" / "experiment.xenium").write_text("{")
    Image.new("RGB", (50, 50)).save(place / "plain.png")
    rows = pd.read_csv(place / "bundles.csv")
    rows.loc[2, "he_image"] = "plain.png"
    rows.to_csv(place / "bundles.csv", index=False)
    _, failed = slide_sizes(place / "bundles.csv")
    assert "experiment.xenium' is no valid JSON" in failed["S1"]
    assert "does not say the size of its pixels" in failed["S3"]
    with pytest.raises(InputError, match="fewer than `split.n_folds`, 9"):
        estimate(config(place / "bundles.csv").model_copy(update={"split": SplitConfig(n_folds=9)}), pilot=False)
    rows.iloc[2:3].to_csv(place / "alone.csv", index=False)
    with pytest.raises(InputError, match="0 patients with a bundle"):
        estimate(usual_config(place / "alone.csv"), pilot=False)
    with pytest.raises(FileMissingError, match=r"bundles is not a file; wanted one in YAML"):
        read_config(place)


@pytest.mark.parametrize(
    ("length", "said"), [(0.4, "0 s"), (80, "80 s"), (600, "10 min"), (9000, "2.5 h"), (3e5, "3.5 d")]
)
def test_durations_are_said_as_people_do(length: float, said: str) -> None:
    assert duration(length) == said
