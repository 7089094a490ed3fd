"""The whole demonstration on tiny slides, through the command line."""

import json
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest
import spatialdata as sd
from scipy.sparse import csr_matrix
from typer.testing import CliRunner

from spatialsig import models
from spatialsig.cli import app, main
from spatialsig.io import read_signatures
from spatialsig.pipeline import demo
from spatialsig.pipeline.run_config import LabelsConfig
from spatialsig.store import snapshot as tables

pytestmark = pytest.mark.timeout(900)  # two whole runs, on machines that may be slow
GENES = read_signatures("seed")
# the alignment has tests of its own; of every signature the report draws maps and a gallery
TINY = {
    "autoencoder": {"max_epochs": 1},
    "vit": {"max_epochs": 1},
    "check_alignment": False,
    "labels": LabelsConfig(signatures={name: GENES[name] for name in ("Immune_T", "Fibroblast")}),
}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("demo")
    patch = pytest.MonkeyPatch()
    patch.setattr("spatialsig.report.figures.DPI", 30)
    whole = demo.demo_config
    patch.setattr(demo, "demo_config", lambda out, *, seed: whole(out, seed=seed).model_copy(update=TINY))
    result = CliRunner().invoke(app, ["demo", "--out", str(where), "--size-um", "360", "--quiet"])
    assert result.exit_code == 0, result.output
    # a second call finds everything done
    again = CliRunner().invoke(app, ["demo", "--out", str(where), "--size-um", "360", "--quiet"])
    patch.undo()
    assert again.exit_code == 0
    assert again.output.count("done before") == again.output.count("[") > 0
    return where


def test_demo_leaves_a_report_and_readable_stores(out: Path) -> None:
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "Immune_T" in report
    for path in sorted((out / "stores").glob("*.zarr")):
        sdata = sd.read_zarr(path)
        assert {"table", "signatures", "signatures_pred"} <= set(sdata.tables)
    evaluation = pd.read_csv(out / "evaluation.csv")
    assert evaluation["patient"].nunique() == 2
    assert json.loads((out / "steps.json").read_text())


def test_slides_are_read_in_one_stain_and_the_run_says_which(out: Path) -> None:
    stains = pd.read_csv(out / "stains.csv", index_col=0)
    assert sorted(stains.index) == sorted(path.stem for path in (out / "stores").glob("*.zarr"))
    assert "stains" in json.loads((out / "run.json").read_text())["tables"]
    assert models.SignatureViT.load(out / "models" / "vit").stain != "none"


def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["spatialsig", "run", str(tmp_path / "none.yaml")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: configuration")
    assert "does not exist" in line


def test_no_step_wrote_into_the_arrays_that_steps_share(out: Path) -> None:
    kept = {path: table for path, (_, table) in tables._kept.items() if out in path.parents}
    assert len(kept) > 4
    for path, table in kept.items():
        read = ad.read_zarr(path)
        for ours, theirs in [(table.X, read.X), *((table.obsm[key], read.obsm[key]) for key in read.obsm)]:
            assert csr_matrix(ours).data.tobytes() == csr_matrix(theirs).data.tobytes()
