"""The configuration that `spatialsig init` writes, and what a run would do with it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from spatialsig.cli import app
from spatialsig.errors import InputError
from spatialsig.nn.backbones import build_backbone
from spatialsig.pipeline import RunConfig, plan, read_config, run, write_template
from spatialsig.pipeline.run_config import SplitConfig


def test_the_template_holds_every_field_with_its_default(tmp_path: Path) -> None:
    write_template(tmp_path / "config.yaml", bundles=Path("sheets/bundles.csv"))
    ours = read_config(tmp_path / "config.yaml")
    assert ours.bundles == tmp_path / "sheets" / "bundles.csv"
    defaults = RunConfig(
        bundles=ours.bundles,
        out=ours.out,
        autoencoder={"n_latent": 32, "max_epochs": 12},
        vit={"size": "tiny", "fusion": "gated", "max_epochs": None, "validation_fold": None, "backbone": "vit"},
    )
    assert ours == defaults
    text = (tmp_path / "config.yaml").read_text()
    for name, field in RunConfig.model_fields.items():
        fields = getattr(field.annotation, "model_fields", {})
        assert all(f"\n  {inner}: " in text for inner in fields), name
        assert f"\n{name}:" in text or name == "synthetic"
    with pytest.raises(InputError, match="is there already"):
        write_template(tmp_path / "config.yaml", bundles=Path("b.csv"))
    write_template(tmp_path / "config.yaml", bundles=Path("b.csv"), overwrite=True)
    assert read_config(tmp_path / "config.yaml").bundles == tmp_path / "b.csv"
    with pytest.raises(InputError, match="is a folder"):
        write_template(tmp_path, bundles=Path("b.csv"), overwrite=True)


def test_a_file_that_is_there_is_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("mine")
    refused = CliRunner().invoke(app, ["init", str(config)])
    assert "is there already" in str(refused.exception)
    assert config.read_text() == "mine"
    assert CliRunner().invoke(app, ["init", str(config), "--overwrite"]).exit_code == 0
    assert "bundles: bundles.csv" in config.read_text()


NETWORK = """
from torch import nn

def build_network():
    return nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.Flatten())
"""


def test_a_network_of_ones_own_is_named_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "nets_of_mine.py").write_text(NETWORK)
    config = tmp_path / "c.yaml"
    config.write_text("bundles: b.csv\nout: r\nvit: {backbone: 'nets_of_mine:build_network', tune: full}\n")
    read = read_config(config)
    assert read.vit["backbone"] == "nets_of_mine:build_network"
    assert build_backbone(read.vit["backbone"]).spec == "registered:nets_of_mine:build_network"
    assert read_config(config) == read  # again, in one process
    for name, told in (
        ("nets_of_mine:build_netwrk", "did you mean 'build_network'"),
        ("no_such_module:f", "No module named"),
    ):
        config.write_text(f"bundles: b.csv\nout: r\nvit: {{backbone: '{name}'}}\n")
        with pytest.raises(InputError, match=f"(?i){told}"):
            read_config(config)


def test_a_network_of_ones_own_is_named_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_cli.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["--backbone", "nets_of_cli:build_network", "version"]).exit_code == 0
    assert build_backbone("nets_of_cli:build_network").spec == "registered:nets_of_cli:build_network"


def test_no_code_is_imported_that_only_a_model_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_others.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("nets_of_others:build", "registered:nets_of_others:build"):
        with pytest.raises(InputError):
            build_backbone(name)


def test_a_dry_run_lists_the_steps_and_does_nothing(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    assert CliRunner().invoke(app, ["init", str(config)]).exit_code == 0
    said = CliRunner().invoke(app, ["run", str(config), "--dry-run"])
    assert "manifest: missing" in str(said.exception)
    assert said.output.splitlines()[0] == "1. import bundles: to do"
    assert len(said.output.splitlines()) == len(plan(read_config(config))) == 7
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
    (tmp_path / "bundles.csv").write_text("sample,patient,bundle\n" + "".join(f"S{k},P{k},b{k}\n" for k in range(3)))
    said = CliRunner().invoke(app, ["run", str(config), "--dry-run"])
    assert "lists 3 patients with a bundle, fewer than `split.n_folds`, 4" in str(said.exception)
    config.write_text(config.read_text().replace("n_folds: 4", "n_folds: 3"))
    assert CliRunner().invoke(app, ["run", str(config), "--dry-run"]).exit_code == 0
    with pytest.raises(InputError, match="fewer than `split.n_folds`"):
        run(read_config(config).model_copy(update={"split": SplitConfig(n_folds=4)}))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("line", "meant"),
    [("splits: {n_folds: 3}", "`splits` is not known; did you mean 'split'"), ("split: {nfolds: 3}", "`split.nfolds` is not known; did you mean 'n_folds'")],
)  # fmt: skip
def test_the_nearest_field_is_named(line: str, meant: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"bundles: b.csv\nout: r\n{line}\n")
    with pytest.raises(InputError) as caught:
        read_config(tmp_path / "c.yaml")
    assert meant in str(caught.value)
