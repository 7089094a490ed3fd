"""Commands below the size of a patch do what their functions do."""

from pathlib import Path

import spatialdata as sd
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig.cli import app


def test_a_map_is_drawn_once(tmp_path: Path) -> None:
    study = sp.datasets.toy_study()
    sp.datasets.toy_model(study).save(tmp_path / "vit")
    sp.io.write(study, tmp_path / "stores" / "s.zarr")
    command = ["map", str(tmp_path / "stores"), "--model", str(tmp_path / "vit"), "--stride-um", "56", "--quiet"]
    for wanted in ("predicted", "skipped"):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert wanted in done.output
    made = sd.read_zarr(tmp_path / "stores" / "s.zarr").attrs["spatialsig"]["signature_map"]["signature_map"]
    assert made["stride_um"] == 56
