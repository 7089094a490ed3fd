"""Commands below the size of a patch, and on features of patches, do what their functions do."""

from pathlib import Path

import pandas as pd
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


def test_cells_are_predicted_judged_and_exported(tmp_path: Path) -> None:
    study = sp.datasets.toy_study()
    sp.datasets.toy_model(study).save(tmp_path / "vit")
    store = tmp_path / "stores" / "s.zarr"
    sp.io.write(study, store)
    model = ["--model", str(tmp_path / "vit"), "--quiet"]
    for command in (
        ["nuclei", str(store), "--quiet"],
        ["train-cells", str(store), *model, "--out", str(tmp_path / "head")],
        ["cells", str(store), *model, "--head", str(tmp_path / "head"), "--evaluation", str(tmp_path / "cells.csv")],
        ["export", "explorer", str(store), "--out", str(tmp_path / "g.csv"), "--signature", "Immune_T", "--quiet"],
        [
            "export",
            "geojson",
            str(store),
            "--out",
            str(tmp_path / "c.geojson"),
            "--set",
            "table_key=cells_pred",
            "--quiet",
        ],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    assert {"cell", "20 um"} == set(pd.read_csv(tmp_path / "cells.csv")["scale"])
    assert len(pd.read_csv(tmp_path / "g.csv")) == len(study["table"])
    assert "nuclei" in sd.read_zarr(store).shapes


def test_a_probe_is_trained_on_a_table_and_on_pixels(tmp_path: Path) -> None:
    study = sp.datasets.toy_study()
    sp.tl.embed_patches(study, sp.datasets.toy_model(study), key_added="features")
    store = tmp_path / "s.zarr"
    sp.io.write(study, store)
    for name, *options in (
        ["table", "--features-key", "features", "--n-components", "4", "--penalty", "0.5"],
        ["auto", "--features-key", "features", "--set", "n_components=auto"],
        ["mlp", "--features-key", "features", "--head", "mlp", "--set", "max_epochs=1"],
    ):
        command = ["train-probe", str(store), "--out", str(tmp_path / name), *options, "--quiet"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    by_hand = sp.tl.train_probe(store, "features", n_components=4, penalty=0.5)
    assert sp.models.load_signature_model(tmp_path / "table").run["probe"] == by_hand.run["probe"]
    assert sp.models.load_signature_model(tmp_path / "mlp").run["probe"]["head"] == "mlp"
