"""Commands on a cohort: some of its slides, several at once, on a cluster; slides that fail end in exit code 1."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import LocalCluster
from spatialdata import SpatialData
from tests.quick import all_of
from tests.slide.test_each import assert_same, contents
from typer.testing import CliRunner

import spatialsig as sp
from spatialsig._settings import settings
from spatialsig.cli import app
from spatialsig.errors import SpatialsigWarning
from spatialsig.slide.ledger import Ledger

SAMPLES = ("A", "B", "C")
LABEL = ("--signatures", "seed", "--patch-px", 28, "--um-per-px", 2, "--min-cells", 3, "--normalize-stain")


def call(*words: object):
    return CliRunner().invoke(app, [*map(str, words), "--quiet"])


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides with folds, as `import` and `split` leave them."""
    root = tmp_path_factory.mktemp("cohort") / "stores"
    root.mkdir()
    for seed, name in enumerate(SAMPLES):
        sp.io.write(sp.datasets.toy(seed=seed, size_um=250.0, sample=name, patient=name), root / f"{name}.zarr")
    assert call("split", root, "--n-folds", 3).exit_code == 0
    return root


@pytest.fixture(scope="module")
def model(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    shutil.copytree(raw, root / "stores")
    assert call("label", root / "stores", *LABEL).exit_code == 0
    sp.tl.train_vit(sp.Cohort(root / "stores"), use_rep=None, fusion="none", size="tiny", max_epochs=1).save(
        root / "vit"
    )
    return root / "vit"


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as found:
        yield found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", all_of(["--index", "--only", "--jobs", "--scheduler"], quick={"--index"}))
def test_every_way_writes_the_same_stores(
    way: str, raw: Path, model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    alone, ours = tmp_path / "alone", tmp_path / "ours"
    for place in (alone, ours):
        shutil.copytree(raw, place)
    words: list[tuple[object, ...]] = [(way, k) for k in (range(3) if way == "--index" else SAMPLES)]
    if way == "--jobs":
        words = [(way, 2)]
    if way == "--scheduler":
        words = [(way, request.getfixturevalue("cluster").scheduler_address)]
    for command in (("label", *LABEL), ("predict", "--model", model)):
        name, *options = command
        assert call(name, alone, *options).exit_code == 0
        for more in words:
            result = call(name, ours, *options, *more)
            assert result.exit_code == 0, (result.output, result.exception)
    assert settings.n_jobs == 1
    theirs = contents(sp.Cohort(ours))
    for place, values in contents(sp.Cohort(alone)).items():
        assert_same(values, theirs[place])


@pytest.mark.timeout(600)
def test_a_bad_slide_is_named_the_others_are_done_and_the_exit_code_is_one(
    raw: Path, model: Path, tmp_path: Path
) -> None:
    stores = tmp_path / "stores"
    shutil.copytree(raw, stores)
    (stores / "B.zarr" / "zarr.json").write_text("no store")
    for command in (("label", *LABEL), ("predict", "--model", model)):
        name, *options = command
        result = call(name, stores, *options)
        assert result.exit_code == 1
        assert "B" in result.output
        assert "wanted the JSON of a Zarr group" in result.output
    cohort = sp.Cohort(stores)
    for sample in ("A", "C"):
        assert {"signatures", "signatures_pred"} <= set(cohort[sample].tables)
    assert call("label", stores, *LABEL, "--only", "A").exit_code == 0  # of which the bad one is no part
    assert call("label", stores, *LABEL, "--only", "B").exit_code == 1


def test_slides_that_there_are_not(raw: Path) -> None:
    for words, said in (
        (("--only", "D"), r"`--only='D'` is not in the cohort; available: ['A', 'B', 'C']"),
        (("--index", 3), "`--index 3`: the cohort has 3 slides, numbered 0 to 2"),
    ):
        result = call("status", raw, *words)
        assert said in str(result.exception)
    assert "choose from the cohort" in str(call("status", raw / "A.zarr", "--index", 0).exception)
    assert call("status", raw, "--index", -1).exit_code == 2
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):  # 30 s otherwise
        silent = call("label", raw, "--scheduler", "tcp://127.0.0.1:1")
    assert "`--scheduler tcp://127.0.0.1:1` does not answer" in str(silent.exception)
    assert "pass one of them" in str(call("label", raw, "--scheduler", "tcp://127.0.0.1:1", "--jobs", 2).exception)


@pytest.mark.timeout(600)
def test_bundles_are_imported_one_by_one(tmp_path: Path) -> None:
    sp.datasets.synthetic_xenium(tmp_path / "in", n_slides=2, size_um=150.0)
    manifest = tmp_path / "in" / "bundles.csv"
    assert call("import", manifest, "--out", tmp_path / "alone").exit_code == 0
    for k in (1, 0):
        assert call("import", manifest, "--out", tmp_path / "ours", "--index", k).exit_code == 0
        assert len(sp.Cohort(tmp_path / "ours")) == 2 - k
    assert (tmp_path / "alone" / "cohort.csv").read_text() == (tmp_path / "ours" / "cohort.csv").read_text()
    for sample in ("S1", "S2"):
        one, other = (sp.Cohort(tmp_path / name)[sample] for name in ("alone", "ours"))
        np.testing.assert_array_equal(one["table"].X.toarray(), other["table"].X.toarray())
    shutil.rmtree(tmp_path / "in" / "S1")
    with pytest.warns(SpatialsigWarning, match="1 of 2 slides could not be read"):
        result = call("import", manifest, "--out", tmp_path / "ours", "--overwrite", "--jobs", 2)
    assert result.exit_code == 1
    assert "failed: S1" in result.output


def test_status_shows_slides_and_functions(raw: Path, tmp_path: Path) -> None:
    stores = tmp_path / "out" / "stores"
    shutil.copytree(raw, stores)
    sp.pp.make_patches(stores / "A.zarr", patch_px=28, um_per_px=2.0)
    sp.pp.find_tissue(stores / "B.zarr", min_area_um2=100.0)
    sp.io.write(SpatialData(attrs={"spatialsig": {"sample": "N"}}), stores / "N.zarr")
    lines = call("status", stores).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["sample", "pp.split", "pp.make_patches", "pp.find_tissue"], ["A", "fresh", "fresh", "-"],
        ["B", "fresh", "-", "fresh"], ["C", "fresh", "-", "-"], ["N", "-", "-", "-"],
    ]  # fmt: skip
    assert "outlines of the tissue" in call("status", stores, "--parts").stdout
    Ledger(tmp_path / "out" / "steps.json").note("import bundles", "0", seconds=3.5, failed={"S9": "no bundle"})
    of_run = call("status", tmp_path / "out")
    assert of_run.exit_code == 1
    first, following, failed, *others = of_run.stdout.splitlines()
    assert (first, failed) == ("done: import bundles (3.5 s)", "failed: S9: no bundle")
    assert following.startswith("next: hold out patients, choose genes; `spatialsig run`")
    assert others == lines


def test_an_image_alone_is_cut_and_predicted_on_beside_slides_with_cells(
    raw: Path, model: Path, tmp_path: Path
) -> None:
    stores = tmp_path / "stores"
    shutil.copytree(raw, stores)
    source = sp.datasets.toy(seed=9, size_um=250.0, sample="H", patient="H")
    alone = SpatialData(images=dict(source.images), attrs=source.attrs)
    sp.io.write(alone, stores / "H.zarr")
    for words in (
        ("split", stores, "--n-folds", 3), ("label", stores, *LABEL), ("label", stores, "--only", "H", *LABEL),
        ("predict", stores, "--model", model), ("evaluate", stores, "--model", model, "--out", tmp_path / "e.csv"),
    ):  # fmt: skip
        result = call(*words)
        assert result.exit_code == 0, (result.output, result.exception)
        assert (
            words[0] != "split" or "H" not in result.stdout
        )  # which lists folds; that it is passed over is said beside
    assert set(sp.io.read(stores / "H.zarr").tables) == {"signatures_pred"}
    assert call("label", stores / "H.zarr", *LABEL).exit_code == 1
