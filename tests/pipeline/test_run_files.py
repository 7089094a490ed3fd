"""What a run was made of: fingerprints that follow the bytes, a record that holds every input, steps that lost their result."""

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from spatialsig._hashing import END_BYTES, file_ends_hash
from spatialsig.errors import FileMissingError, InputError
from spatialsig.pipeline import read_config, report_of
from spatialsig.pipeline.run_config import RunConfig
from spatialsig.pipeline.run_files import RunFiles, input_fingerprints, read_json, write_record
from spatialsig.pipeline.run_steps import Job, Step
from spatialsig.slide.ledger import Ledger

run_module = importlib.import_module("spatialsig.pipeline.run")  # the package gives its name to the function


def test_a_fingerprint_follows_both_ends_and_the_size(tmp_path: Path) -> None:
    path = tmp_path / "a"
    whole = bytearray(3 * END_BYTES)
    path.write_bytes(whole)
    first = file_ends_hash(path)
    (tmp_path / "copy").write_bytes(whole)
    assert file_ends_hash(tmp_path / "copy") == first
    for changed in (whole[:-1] + b"x", b"x" + whole[1:], whole + b"\0"):
        path.write_bytes(changed)
        assert file_ends_hash(path) != first


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    bundle = tmp_path / "in" / "S1"
    bundle.mkdir(parents=True)
    (bundle / "cells.parquet").write_text("cells")
    (tmp_path / "in" / "he.tif").write_text("image")
    (tmp_path / "in" / "bundles.csv").write_text("sample,bundle,he_image\nS1,S1,he.tif\n")
    return RunConfig(bundles=tmp_path / "in" / "bundles.csv", out=tmp_path / "out", seed=4)


def test_every_input_of_a_slide_is_covered(config: RunConfig) -> None:
    first = input_fingerprints(config.bundles)
    assert set(first["S1"]) == {"cells.parquet", "he.tif"}
    (config.bundles.parent / "he.tif").write_text("other")
    assert input_fingerprints(config.bundles)["S1"]["he.tif"] != first["S1"]["he.tif"]
    assert input_fingerprints(config.out) == {}


def _add(path: Path) -> None:
    path.with_name("new").write_text("new")


def _touch(path: Path) -> None:
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    "place", ["S1/focus/a.tif", "S1/deep/deeper/a", "he.zarr/0/c/0/0", "he.mrxs", "he/Data0.dat", "m/matrix.csv"]
)
@pytest.mark.parametrize(
    "change", [lambda path: path.write_text("longer"), Path.unlink, _add, _touch], ids=["size", "gone", "new", "time"]
)
def test_every_file_of_every_input_counts(config: RunConfig, place: str, change: Callable[[Path], object]) -> None:
    """In folders of any depth; files themselves, of which both ends are read, not by their time."""
    home = config.bundles.parent
    image = "he.mrxs" if place.startswith(("he.mrxs", "he/")) else "he.zarr"
    config.bundles.write_text(f"sample,bundle,he_image,he_alignment\nS1,S1,{image},m\n")
    for name in (place, "he.zarr/zarr.json", "he.mrxs", "he/Data1.dat", "m/matrix.csv"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("pixels")
    before = input_fingerprints(config.bundles)
    assert input_fingerprints(config.bundles) == before
    change(home / place)
    read = place in ("he.mrxs", "m/matrix.csv")
    untouched = (read and change is _touch) or (place == "he.mrxs" and change is _add)
    assert (input_fingerprints(config.bundles) == before) == untouched


def test_two_inputs_of_one_name_count_both(config: RunConfig) -> None:
    home = config.bundles.parent
    (home / "S1" / "he.tif").write_text("another image")
    before = input_fingerprints(config.bundles)["S1"]
    assert len(before) == 3
    for file in (home / "he.tif", home / "S1" / "he.tif"):
        file.write_text(f"changed {file}")
        assert input_fingerprints(config.bundles)["S1"] != before
        before = input_fingerprints(config.bundles)["S1"]


def test_the_record_holds_versions_parameters_and_hashes(config: RunConfig) -> None:
    config.out.mkdir()
    files = RunFiles(config.out)
    files.table("evaluation").write_text("a\n1\n")
    model = files.models / "vit"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "run.json").write_text('{"sha256": {"weights": "ab"}, "run": {"seed": 9}}')
    record = read_json(write_record(config, files, inputs=input_fingerprints(config.bundles), seconds={"import": 1.0}))
    assert record["seeds"] == {"run": 4, "image model": 9}
    assert record["models"] == {"image model": {"weights": "ab"}}
    assert record["tables"] == {"evaluation": file_ends_hash(files.table("evaluation"))}
    assert RunConfig(**record["parameters"]) == config
    assert {"python", "spatialsig", "torch", "spatialdata"} <= set(record["versions"])


class Played(Job):
    """A job of two steps that only write files."""

    def __init__(self, config: RunConfig) -> None:
        self.config, self.files, self.inputs, self.done = config, RunFiles(config.out), {}, []
        self.ledger = Ledger(self.files.ledger)

    def given(self, ledger: Ledger) -> "Played":
        self.ledger = ledger
        return self

    def steps(self) -> list[Step]:
        def write(name: str) -> None:
            self.done.append(name)
            (self.config.out / name).write_text(name)

        made = {name: self.config.out / name for name in "ab"}
        return [Step(n, self.config.seed, lambda n=n: write(n), (path,)) for n, path in made.items()]


def test_a_result_that_was_removed_is_made_again(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.out.mkdir()
    job = Played(config)
    monkeypatch.setattr(run_module, "Job", lambda _, ledger: job.given(ledger))
    monkeypatch.setattr(run_module, "report_on", lambda *_, **__: config.out / "report.html")
    monkeypatch.setattr(run_module, "check_manifest", lambda _: None)  # it lists one slide, of one patient
    run_module.run(config)
    run_module.run(config)
    assert job.done == ["a", "b"]
    (config.out / "b").unlink()
    run_module.run(config)
    assert job.done == ["a", "b", "b"]
    (config.out / "a").unlink()  # what was made of it is not trusted either
    run_module.run(config)
    assert job.done == ["a", "b", "b", "a", "b"]
    (config.out / "a").write_text("by hand")
    with pytest.raises(InputError, match="a in '.*' changed since the step 'a' of this run left it.*Remove it"):
        run_module.run(config)
    assert RunFiles(config.out).changed(Ledger(RunFiles(config.out).ledger).values("left")["a"]) == ([], ["a"])


def test_genes_in_a_file_beside_the_configuration_decide(config: RunConfig, tmp_path: Path) -> None:
    sets = tmp_path / "sets.json"
    sets.write_text(json.dumps({"T": ["CD3D", "CD3E"]}))
    (tmp_path / "c.yaml").write_text("bundles: in/bundles.csv\nout: out\nlabels: {signatures: sets.json}\n")
    read = read_config(tmp_path / "c.yaml")
    assert read.labels.signatures == str(sets)

    def decides() -> object:
        return Job(read, Ledger(tmp_path / "steps.json")).steps()[2].parameters

    before = decides()
    sets.write_text(json.dumps({"T": ["CD3D", "CD2"]}))
    assert decides() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "evaluation.csv' is empty"),
        (b"m\xe9thode,x\n", "is not UTF-8 text"),
        (b'method,"x\n1,2\n', "cannot be read as csv"),
    ],
)
def test_an_evaluation_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "stores").mkdir()
    (tmp_path / "evaluation.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        report_of(tmp_path)


def test_an_unfinished_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match=r"is no finished run: \['stores', 'evaluation.csv'\] missing"):
        report_of(tmp_path)
    (tmp_path / "run.json").write_text("[1]")
    with pytest.raises(InputError, match="must hold an object; got list"):
        read_json(tmp_path / "run.json")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_json(tmp_path / "run.json")
