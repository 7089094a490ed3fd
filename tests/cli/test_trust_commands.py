"""Commands on trust do what their functions do."""

from pathlib import Path

import pandas as pd
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app


def test_triage_calibrates_the_model_and_judges_slides(tmp_path: Path) -> None:
    model = sp.datasets.toy_model(sp.datasets.toy_study())
    model.save(tmp_path / "vit")
    for name, seed in (("new", 1), ("held", 2)):
        slide = sp.datasets.toy_study(seed=seed, sample=name, patient=name)
        sp.tl.predict(slide, model)
        sp.io.write(slide, tmp_path / name / f"{name}.zarr")
    command = ["triage", str(tmp_path / "new"), "--model", str(tmp_path / "vit"), "--error-rate", "0.5", "--quiet"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "carries no calibration slides" in str(done.exception)
    done = CliRunner().invoke(
        app, [*command, "--calibration", str(tmp_path / "held"), "--out", str(tmp_path / "t.csv")]
    )
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "t.csv")
    assert set(table["sample"]) == {"new"}
    assert set(table["decision"]) <= {"accept", "review", "reject"}
    again = CliRunner().invoke(app, command)  # the model carries it now
    assert again.exit_code == 0, again.output
    assert again.output == "".join(line for line in done.output.splitlines(keepends=True) if "now carries" not in line)
