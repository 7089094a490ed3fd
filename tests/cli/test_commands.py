"""Every command: its help, its options beside those of the functions, and the whole chain on two small slides."""

import inspect
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import get_args, get_type_hints

import pandas as pd
import pytest
import spatialdata as sd
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig import _keys
from spatialsig.cli import app, main
from spatialsig.cli.options import keywords, slides_at
from spatialsig.cli.wording import COMMAND_OF, on_the_command_line
from spatialsig.errors import FileMissingError, InputError, StoreError
from spatialsig.train import fit_autoencoder, fit_vit

COMMANDS = get_command(app).commands
FUNCTIONS = {
    "split": [sp.pp.split],
    "train-ae": [sp.pp.highly_variable_genes, sp.tl.train_autoencoder, fit_autoencoder],
    "label": [sp.pp.make_patches, sp.tl.score_cells, sp.tl.aggregate_patches],
    "train": [sp.tl.train_vit, fit_vit],
    "train-probe": [sp.tl.train_probe],
    "predict": [sp.tl.predict, sp.tl.predict_files],
    "evaluate": [sp.tl.evaluate],
    "referee": [sp.tl.referee],
    "triage": [sp.tl.triage],
    "power": [sp.tl.power],
    "scales": [sp.tl.scales],
    "import": [sp.io.read_xenium, sp.io.read_he, sp.pp.filter_cells],
    "optimize": [sp.io.optimize],
}
OF_THE_PROGRAM = {
    "help",
    "quiet",
    "out",
    "further",
    "all_slides",
    "no_embedding",
    "model",
    "overwrite",
    "coverage",
    "only",
    "index",
    "jobs",
    "scheduler",
}


def call(*words: str | Path):
    return CliRunner().invoke(app, [*map(str, words), "--quiet"])


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    code = "import sys; from spatialsig.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert all(name in run.stdout for name in COMMANDS)
    loaded = set(run.stdout.splitlines()[-1].split())
    assert not {"numpy", "pandas", "torch", "spatialdata", "matplotlib", "zarr"} & loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    for parameter in COMMANDS[name].params:
        assert getattr(parameter, "help", None) or parameter.name == "help", f"{name} {parameter.name} has no help"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_called_as_in_python(name: str) -> None:
    known = {p for function in FUNCTIONS[name] for p in inspect.signature(function).parameters}
    options = {p.name for p in COMMANDS[name].params if p.param_type_name == "option"} - OF_THE_PROGRAM
    assert options <= known | set(sp.pp.__all__)  # or they call a function by its name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_defaults_are_those_of_python(name: str) -> None:
    defaults = {
        p.name: p.default for function in FUNCTIONS[name] for p in inspect.signature(function).parameters.values()
    }
    for option in COMMANDS[name].params:
        # None: the function decides; patches have no size of their own in Python
        if option.name in {*OF_THE_PROGRAM, "patch_px", "um_per_px", "further"} or option.default is None:
            continue
        if option.name in defaults:
            assert str(option.default) == str(defaults[option.name]), f"--{option.name}"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of two patients, as `import` would leave them."""
    root = tmp_path_factory.mktemp("run") / "stores"
    root.mkdir()
    for seed, name in enumerate(["A", "B"]):
        sp.datasets.toy(seed=seed, size_um=250.0, sample=name, patient=name).write(root / f"{name}.zarr")
    return root


@pytest.fixture(scope="module")
def finished(stores: Path) -> Path:
    """Directory of a run after every step, each by its command."""
    root = stores.parent
    genes = sp.io.read_signatures("seed")
    sets = root / "sets.json"
    sets.write_text(json.dumps({name: genes[name] for name in ("Immune_T", "Fibroblast")}))
    ae, vit = root / "models" / "autoencoder", root / "models" / "vit"
    steps = [
        ("split", stores, "--n-folds", 2),
        ("train-ae", stores, "--out", ae, "--signatures", sets, "--max-epochs", 1, "--n-latent", 4, "--set", "hidden=[8]"),
        ("embed", stores, "--model", ae),
        ("label", stores, "--signatures", sets, "--patch-px", 28, "--um-per-px", 2, "--stride-um", 28, "--min-cells", 3,
         "--normalize-stain", "--coverage", root / "coverage.csv"),
        ("train", stores, "--out", vit, "--max-epochs", 1, "--batch-size", 16),
        ("predict", stores, "--model", vit),
        ("evaluate", stores, "--model", vit, "--out", root / "evaluation.csv"),
    ]  # fmt: skip
    for step in steps:
        result = call(*step)
        assert result.exit_code == 0, (step[0], result.output, result.exception)
    return root


@pytest.mark.timeout(900)
def test_the_steps_one_by_one_leave_what_a_run_leaves(finished: Path) -> None:
    for path in sorted((finished / "stores").glob("*.zarr")):
        sdata = sd.read_zarr(path)
        assert {_keys.TABLE, _keys.SIGNATURES, _keys.SIGNATURES_PRED} <= set(sdata.tables)
        assert sdata.tables[_keys.SIGNATURES].obsm[_keys.X_AE].shape[1] == 4
    evaluation = pd.read_csv(finished / "evaluation.csv")
    assert evaluation["sample"].nunique() == 1
    assert {"he_only", "fused", "density"} <= set(evaluation["method"])
    assert (finished / "findings.csv").is_file()
    assert "Immune_T" in pd.read_csv(finished / "coverage.csv")["signature"].tolist()


@pytest.mark.timeout(900)
def test_report_of_a_finished_run(finished: Path, tmp_path: Path, monkeypatch) -> None:
    for name in ("DPI", "SAVED_DPI"):
        monkeypatch.setattr(f"spatialsig.report.figures.{name}", 30)
    result = call("report", finished, "--out", tmp_path / "r.html", "--title", "Mine", "--figures")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<h1>Mine</h1>" in page
    assert "Judged on 1 held-out patient" in page  # a finding
    assert "An autoencoder of" in page
    assert {"ladder.svg", "ladder.png", "calibration.svg"} <= {path.name for path in (tmp_path / "figures").iterdir()}
    assert not (finished / "report.html").exists()


@pytest.mark.timeout(900)
def test_predict_cuts_a_slide_that_has_no_patches(finished: Path, tmp_path: Path) -> None:
    he = sp.datasets.toy(seed=7, size_um=250.0, sample="new")
    del he.tables[_keys.TABLE]
    he.write(tmp_path / "new.zarr")
    result = call("predict", tmp_path / "new.zarr", "--model", finished / "models" / "vit")
    assert result.exit_code == 0, result.output
    found = sd.read_zarr(tmp_path / "new.zarr")
    assert found.tables[_keys.SIGNATURES_PRED].n_obs > 0
    assert found.attrs["spatialsig"]["patches"][_keys.PATCHES]["stain"]["method"] == "macenko"  # as the model learned


@pytest.mark.timeout(900)
def test_scores_are_handed_to_other_programs(finished: Path, tmp_path: Path) -> None:
    result = call("export", "geojson", finished / "stores" / "A.zarr", "--out", tmp_path / "a.geojson")
    assert result.exit_code == 0, result.output
    n_patches = len(sd.read_zarr(finished / "stores" / "A.zarr").shapes[_keys.PATCHES])
    assert len(json.loads((tmp_path / "a.geojson").read_text())["features"]) == n_patches
    ae = finished / "models" / "autoencoder"
    refused = call("export", "seed", finished / "stores", "--out", tmp_path / "none", "--autoencoder", ae)
    assert "train one with `linear_path=False" in str(refused.exception)
    result = call("export", "seed", finished / "stores", "--out", tmp_path / "seed")
    assert result.exit_code == 0, (result.output, result.exception)
    assert list((tmp_path / "seed").rglob("*.csv"))


def test_stores_are_checked_and_rewritten(stores: Path) -> None:
    assert call("verify", stores / "A.zarr").exit_code == 0
    assert "nothing to repair" in call("repair", stores / "A.zarr").output
    assert call("optimize", stores / "A.zarr", "--layout", "speed").exit_code == 0
    assert "every image has this layout" in call("optimize", stores / "A.zarr", "--layout", "speed").output


def test_a_damaged_store_exits_with_one(stores: Path, tmp_path: Path) -> None:
    sp.io.write(sp.datasets.toy(size_um=100.0), tmp_path / "s.zarr")
    victim = max((p for p in (tmp_path / "s.zarr").rglob("c/**/*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.unlink()
    assert call("verify", tmp_path / "s.zarr").exit_code == 1
    sp.io.write(sp.datasets.toy(size_um=100.0), tmp_path / "t.zarr")
    both = call("verify", tmp_path)
    assert both.exit_code == 1
    assert {line.split()[0] for line in both.output.splitlines()[1:]} == {"s.zarr", "t.zarr"}
    (tmp_path / "beside").mkdir()
    (tmp_path / "t.zarr").rename(tmp_path / "beside" / "s.zarr")
    (tmp_path / "cohort.csv").write_text("sample,path\nS1,s.zarr\nS2,beside/s.zarr\n")
    named_alike = call("verify", tmp_path / "cohort.csv")
    assert {line.split()[0] for line in named_alike.output.splitlines()[1:]} == {"S1", "S2"}
    (tmp_path / "beside" / "s.zarr").rename(tmp_path / "t.zarr")
    with pytest.raises(
        StoreError, match=r"give one of the 2 in it \(s.zarr, t.zarr\); functions of many slides take `sp.Cohort` of it"
    ):
        sp.io.optimize(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("embed", "none", "--model", "none"), "none does not exist; wanted a store"),
        (("report", "{tmp}"), "is no finished run: ['stores', 'evaluation.csv'] missing"),
        (("import", "{tmp}/b.csv", "--out", "{tmp}/out", "--sample", "S1"), "are columns of the csv"),
        (
            ("train", "{stores}", "--out", "{tmp}/m", "--set", "epochs=3"),
            "`--set epochs=3` has no option `epochs`; did you mean `max_epochs`?",
        ),
        (("train", "{stores}", "--out", "{tmp}/m", "--set", "size=[tiny"), "'[tiny' is not valid YAML"),
        (
            ("label", "{stores}", "--patch-px", "28", "--um-per-px", "2", "--signatures", "{tmp}/none.gmt"),
            "no such file, and the built-in sets are",
        ),
        (
            ("train", "{stores}", "--out", "{tmp}/m", "--set", "seed=5"),
            "`--set seed=5`: give it as `--seed 5`, an option of",
        ),
        (("train", "{fresh}", "--out", "{tmp}/m"), "On the command line: `sp.pp.make_patches` is `spatialsig label`"),
    ],
)
def test_errors_are_one_line(
    words: tuple[str, ...], said: str, stores: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "b.csv").write_text("sample,bundle\n")
    if "{fresh}" in words:
        sp.io.write(sp.datasets.toy(size_um=100.0), tmp_path / "fresh.zarr")
    given = [word.format(tmp=tmp_path, stores=stores, fresh=tmp_path / "fresh.zarr") for word in words]
    monkeypatch.setattr("sys.argv", ["spatialsig", *given])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


@pytest.mark.parametrize(
    ("message", "options", "said"),
    [
        ("pass `use_rep=None`.", ["no_embedding"], "`use_rep=None` is `--no-embedding`."),
        ("Pass `overwrite=True` to.", ["overwrite"], "`overwrite=True` is `--overwrite`."),
        ("use `n_folds=2`.", ["n_folds"], "`n_folds=2` is `--n-folds 2`."),
        ("use `loss='huber'`.", ["further"], "`loss='huber'` is `--set loss='huber'`."),
        ("use `loss='huber'`.", [], ""),
        ("call `sp.pp.qc_patches`.", ["further"], ""),
        ("pass `unit='log1p_cp10k'`.", ["unit"], "`unit='log1p_cp10k'` is `--unit log1p_cp10k`."),
        ("pass `calibration=cohort.subset([...])`.", ["calibration", "further"], ""),
        ("pass `stride_um=...`.", ["stride_um"], "`stride_um=...` is `--stride-um ...`."),
        ("call `sp.tl.predict` again.", [], "`sp.tl.predict` is `spatialsig predict`."),
    ],
)
def test_what_messages_name_is_said_as_it_is_typed(message: str, options: list[str], said: str) -> None:
    assert on_the_command_line(message, options) == (f"On the command line: {said}" if said else "")


def test_every_command_that_messages_are_led_to_exists() -> None:
    for function, command in COMMAND_OF.items():
        name, *flags = command.split()
        assert name in COMMANDS
        assert {flag.removeprefix("--").replace("-", "_") for flag in flags} <= {p.name for p in COMMANDS[name].params}
        room, verb = function.split(".")
        assert verb in getattr(sp, room).__all__


def test_a_second_import_leaves_stores_alone(tmp_path: Path) -> None:
    sp.datasets.synthetic_xenium(tmp_path / "in", n_slides=2, size_um=200.0)
    bundles, out = tmp_path / "in" / "bundles.csv", tmp_path / "out"
    assert call("import", bundles, "--out", out).exit_code == 0
    cells = sp.io.read(out / "S1.zarr")["table"].n_obs
    assert call("import", bundles, "--out", out).exit_code == 0
    refused = call("import", bundles, "--out", out, "--min-counts", 100)
    assert "was imported with {'min_counts': 10}, now" in str(refused.exception)
    assert sp.io.read(out / "S1.zarr")["table"].n_obs == cells
    assert call("import", bundles, "--out", out, "--min-counts", 100, "--overwrite").exit_code == 0
    assert sp.io.read(out / "S1.zarr")["table"].n_obs < cells
    assert "leave `um_per_px` out" in str(
        call("import", tmp_path / "in" / "S1", "--out", out / "a.zarr", "--um-per-px", 1).exception
    )
    folds = call("split", out, "--n-folds", 2).output
    assert sorted(line.split()[1] for line in folds.splitlines()) == ["0:", "1:"]


def test_labelling_checks_every_slide_before_it_cuts_patches(tmp_path: Path) -> None:
    slide = sp.datasets.toy(size_um=150.0)
    sp.io.write(slide, tmp_path / "a.zarr")
    del slide.tables["table"]
    sp.io.write(slide, tmp_path / "b.zarr")
    for name, said in (
        ("a", "has no folds; nothing was changed"),
        ("b", "has no gene expression, so it cannot be labelled"),
    ):
        result = call("label", tmp_path / f"{name}.zarr", "--patch-px", 28, "--um-per-px", 2)
        assert said in str(result.exception)
        assert _keys.PATCHES not in sp.io.read(tmp_path / f"{name}.zarr").shapes


def test_a_wrong_option_exits_with_two(stores: Path) -> None:
    assert call("split", stores, "--by", "random").exit_code == 2
    assert call("train", stores).exit_code == 2  # no --out


def test_the_device_is_chosen_for_every_command(stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sp.settings, "device", "auto")
    for words, env in ((["--device", "cuda:7"], {}), ([], {"SPATIALSIG_DEVICE": "cuda:7"})):
        command = [*words, "train-ae", str(stores), "--out", str(tmp_path / "ae"), "--all-slides", "--quiet"]
        error = CliRunner().invoke(app, command, env=env).exception
        assert "sp.settings.device='cuda:7'" in str(error)


def test_a_configuration_is_given_by_its_fields() -> None:
    found = keywords(["trainer={devices: 2}"], fit_vit)
    assert found == {"trainer": {"devices": 2}}


def test_interruption_is_said(monkeypatch, capsys) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spatialsig.cli.app", stop)
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_further_keywords_are_read_as_yaml() -> None:
    found = keywords(["learning-rate=0.01", "loss=huber", "patience=null"], fit_vit, max_epochs=3, size=None)
    assert found == {"max_epochs": 3, "learning_rate": 0.01, "loss": "huber", "patience": None}
    assert keywords(["learning-rate=1e-3"], fit_vit) == {"learning_rate": 0.001}  # no number in YAML 1.1
    with pytest.raises(InputError, match="is not NAME=VALUE"):
        keywords(["learning_rate"], fit_vit)
    with pytest.raises(InputError, match=r"`max_epochs` was given twice: 3 and '4'"):
        keywords(["max_epochs=4"], fit_vit, max_epochs=3)


def test_stores_or_a_cohort(stores: Path) -> None:
    assert slides_at(stores / "A.zarr") == stores / "A.zarr"
    assert list(slides_at(stores).stores) == ["A", "B"]
    with pytest.raises(FileMissingError, match="does not exist; wanted a store"):
        slides_at(stores / "C.zarr")


def test_the_version_is_an_option_too() -> None:
    for words in (["--version"], ["version"]):
        said = subprocess.run(
            [sys.executable, "-m", "spatialsig", *words], check=True, capture_output=True, text=True
        ).stdout
        assert said.strip() == version("spatialsig")


NUMBERS = [
    (str(command.name), f"--{option.replace('_', '-')}")
    for command in app.registered_commands
    for option, hint in get_type_hints(command.callback).items()
    if {int, float} & {hint, *get_args(hint)}
]


@pytest.mark.parametrize(("name", "flag"), NUMBERS)
def test_a_number_with_a_decimal_comma_is_answered_with_the_right_one(name: str, flag: str) -> None:
    for words in ([flag, "0,5"], [f"{flag}=0,5"]):
        said = CliRunner().invoke(app, [name, "x", *words])
        assert said.exit_code == 2
        assert "write 0.5, with a decimal point" in " ".join(said.output.replace("│", " ").split())


def test_the_same_of_what_python_takes(tmp_path: Path) -> None:
    wanted = "`learning_rate='0,001'` of `sp.tl.train_vit` must be a valid number: write 0.001, with a decimal point"
    options = keywords(["learning_rate=0,001"], sp.tl.train_vit, fit_vit)
    with pytest.raises(InputError, match=wanted):
        sp.tl.train_vit(tmp_path, **options)
    with pytest.raises(InputError, match=r"`um_per_px='0,5'` .* a valid number: write 0\.5, with a decimal point"):
        sp.pp.make_patches(tmp_path, patch_px=28, um_per_px="0,5")
    with pytest.raises(InputError, match=r"`um_per_px='half'` .* must be a valid number\.$"):
        sp.pp.make_patches(tmp_path, patch_px=28, um_per_px="half")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("command", "model"), [("train", "vit"), ("train-ae", "autoencoder")])
def test_a_model_that_is_there_stops_a_training_before_it_begins(finished: Path, command: str, model: str) -> None:
    place = finished / "models" / model
    before = {file: file.stat().st_mtime_ns for file in [*finished.rglob("*"), *place.iterdir()]}
    refused = subprocess.run(
        [sys.executable, "-m", "spatialsig", command, finished / "stores", "--out", place, "--quiet"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "`overwrite=True` is `--overwrite`" in refused.stderr
    assert before == {file: file.stat().st_mtime_ns for file in [*finished.rglob("*"), *place.iterdir()]}
    few = ["--set", "hidden=[8]", "--n-latent", 4] if command == "train-ae" else ["--no-embedding"]
    done = call(command, finished / "stores", "--out", place, "--max-epochs", 1, "--overwrite", *few)
    assert done.exit_code == 0, done.output


def test_a_slide_that_fails_is_answered_with_the_options_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever library parses the words of the command."""
    sp.datasets.toy_model(sp.datasets.toy_study()).save(tmp_path / "vit")
    Image.new("RGB", (300, 300), "pink").save(tmp_path / "a.png")
    words = ["predict", str(tmp_path / "vit"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--quiet"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "`um_per_px=` is `--um-per-px`" in done.output + capsys.readouterr().err
