"""Cohorts of slides with cells and slides that are an H&E alone: what needs cells passes over the latter."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from spatialdata import SpatialData
from tests.quick import all_of
from tests.slide.test_each import CALLS, assert_same, contents
from torch import Tensor

import spatialsig as sp
from spatialsig.errors import KeyMissingError
from spatialsig.slide.roles import with_cells, without_cells
from spatialsig.slide.slides import Stores

TAKES_IMAGES = {"pp.find_tissue", "pp.make_patches", "pp.qc_patches", "pp.normalize_stain", "tl.embed_patches", "tl.predict", "tl.attention", "tl.signature_map", "pp.find_nuclei"}  # fmt: skip
SMALL = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))


def _mean_colour(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


MORE: dict[str, Callable[[sp.Cohort, Path], object]] = {
    "pp.split": lambda c, _: sp.pp.split(c, n_folds=2),
    "tl.train_autoencoder": lambda c, _: (
        sp.tl.train_autoencoder(c, signatures="seed", n_latent=4, hidden=(8,), test_fold=None, max_epochs=1).genes
    ),
    "tl.train_vit": lambda c, _: sp.tl.train_vit(c, use_rep=None, size=SMALL, max_epochs=1).run["training_samples"],
    "tl.train_ensemble": lambda c, _: (
        sp.tl.train_ensemble(c, n_members=2, use_rep=None, size=SMALL, max_epochs=1).members[1].run["training_samples"]
    ),
    "tl.train_probe": lambda c, _: sp.tl.train_probe(c, backbone=_mean_colour).run["training_samples"],
    "tl.cross_validate": lambda c, place: sp.tl.cross_validate(
        c, run_dir=place, use_rep=None, size=SMALL, max_epochs=1
    ),
    "tl.calibrate": lambda c, _: sp.tl.calibrate(c, sp.datasets.toy_model(c[next(iter(c))]), fold=0, coverage=0.5),
    "tl.baselines": lambda c, _: sp.tl.baselines(c),
    "tl.findings": lambda c, _: sp.tl.findings(c),
    "pl.coverage": lambda c, _: sp.pl.coverage(c, "seed").shape,
    "pl.calibration": lambda c, _: sp.pl.calibration(c, "Immune_T").shape,
    "pl.alignment": lambda c, _: sp.pl.alignment(c).shape,
    "pl.compare": lambda c, _: sp.pl.compare(c, "Immune_T").shape,
    "pl.scatter": lambda c, _: sp.pl.scatter(c, "Immune_T"),
    "Cohort.panels": lambda c, _: c.panels(),
    "Cohort.genes": lambda c, _: c.genes(),
}
QUICK = {"pp.highly_variable_genes", "tl.aggregate_patches", "pl.compare"}
NEED_CELLS = all_of((*(name for name in CALLS if name not in TAKES_IMAGES), *MORE), quick=QUICK)


def mixed(stores: Path, place: Path) -> sp.Cohort:
    """Cohort of three slides with cells, the second of which is followed by an H&E alone."""
    shutil.copytree(stores, place)
    source = sp.datasets.toy_study(seed=9)
    alone = SpatialData(images=dict(source.images), attrs={"spatialsig": {**source.attrs["spatialsig"], "sample": "H"}})
    alone.attrs["spatialsig"] = {
        k: v for k, v in alone.attrs["spatialsig"].items() if k in ("sample", "um_per_global_px")
    } | {"patient": "H"}
    sp.io.write(alone, place / "H.zarr")
    return sp.Cohort({name: place / f"{name}.zarr" for name in ("A", "B", "H", "C")})


@pytest.fixture(scope="module")
def predicted(stores: Path, models: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("predicted") / "stores"
    shutil.copytree(stores, place)
    sp.tl.predict(sp.Cohort(place), models["vit"])
    return place


@pytest.mark.parametrize("function", NEED_CELLS)
def test_what_needs_cells_passes_over_an_image_alone(
    function: str, predicted: Path, models: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sp.settings, "progress", False)  # it is a message, no bar
    cohort = mixed(predicted, tmp_path / "mixed")
    shutil.copytree(predicted, tmp_path / "others")
    others = sp.Cohort(tmp_path / "others")

    def call(on: sp.Cohort, place: Path) -> object:
        return MORE[function](on, place) if function in MORE else CALLS[function](on, models)

    wanted, before = call(others, tmp_path / "run"), contents(cohort.subset(["H"]))
    capsys.readouterr()
    found = call(cohort, tmp_path / "run_mixed")
    if not function.startswith("Cohort"):
        name = function.split()[0].partition(".")[2]
        assert f"{name}: 1 of 4 slides is an H&E alone and is passed over: H" in capsys.readouterr().err.replace(
            "\n", " "
        )
    if not function.startswith("pl.scatter"):
        assert_same(wanted, found)
    assert contents(cohort.subset(["H"])).keys() == before.keys()
    whole, ours = contents(others), contents(cohort.subset(list("ABC")))
    assert whole.keys() == ours.keys()
    for place, values in whole.items():
        assert_same(values, ours[place])


@pytest.mark.parametrize("function", all_of(sorted(TAKES_IMAGES), quick={"tl.predict"}))
def test_what_needs_no_cells_takes_all(
    function: str,
    stores: Path,
    models: dict[str, object],
    tmp_path: Path,
) -> None:
    cohort = mixed(stores, tmp_path / "mixed")
    if function not in ("pp.find_tissue", "pp.make_patches"):
        sp.pp.make_patches(cohort, patch_px=28, um_per_px=2.0)
    before = contents(cohort.subset(["H"]))
    CALLS[function](cohort, models)
    assert str(contents(cohort.subset(["H"]))) != str(before)


def test_a_slide_of_no_cells_stays_one_after_its_prediction(
    stores: Path,
    models: dict[str, object],
    tmp_path: Path,
) -> None:
    cohort = mixed(stores, tmp_path / "mixed")
    assert without_cells(cohort.stores) == ["H"]
    sp.pp.make_patches(cohort, patch_px=28, um_per_px=2.0)
    sp.tl.embed_patches(cohort, models["vit"])
    sp.tl.predict(cohort, models["vit"])
    assert "signatures_pred" in cohort["H"].tables
    assert without_cells(cohort.stores) == ["H"]
    assert cohort.obs["role"].tolist() == ["measured", "measured", "predict", "measured"]
    assert "H&E alone" in repr(cohort)


def test_cells_that_were_predicted_are_no_measured_ones(
    predicted: Path, models: dict[str, object], tmp_path: Path
) -> None:
    cohort = mixed(predicted, tmp_path / "mixed")
    sp.tl.predict_cells(cohort, models["vit"], cells="detect", method="patch")
    again = sp.Cohort(cohort.stores)
    assert again.obs["role"].to_dict() == {"A": "measured", "B": "measured", "H": "predict", "C": "measured"}
    sp.tl.score_cells(again, "seed", key_added="again")
    with pytest.raises(KeyMissingError, match=r"\['H'\] is an H&E alone|H is an H&E alone"):
        sp.tl.score_cells(sp.io.read(cohort.stores["H"]), "seed")


def test_tables_of_others_and_damaged_stores_are_no_reason_to_pass_over(stores: Path, tmp_path: Path) -> None:
    cohort = mixed(stores, tmp_path / "mixed")
    (cohort.stores["B"] / "zarr.json").write_text("no store")
    assert without_cells(cohort.stores) == ["H"]
    shutil.move(cohort.stores["A"] / "tables" / "table", cohort.stores["A"] / "tables" / "cells")
    assert without_cells(cohort.stores) == ["H"]


@pytest.mark.parametrize("lost", ["tables/table", "tables"])
def test_a_slide_that_lost_its_cells_is_no_image_alone(stores: Path, tmp_path: Path, lost: str) -> None:
    cohort = mixed(stores, tmp_path / "mixed")
    shutil.rmtree(cohort.stores["B"] / lost)
    assert without_cells(cohort.stores) == ["H"]


@pytest.mark.parametrize("column", ["patch_id", "tile_id"])
def test_cells_may_have_columns_of_any_name(stores: Path, tmp_path: Path, column: str) -> None:
    cohort = mixed(stores, tmp_path / "mixed")
    slide = cohort["A"]
    slide["table"].obs[column] = 0
    sp.io.write(slide, tmp_path / "other.zarr")
    assert without_cells({"A": tmp_path / "other.zarr"}) == []


def test_where_no_slide_has_cells_functions_say_what_is_missing(stores: Path, tmp_path: Path) -> None:
    cohort = mixed(stores, tmp_path / "mixed").subset(["H"])
    assert with_cells(cohort) is cohort
    with pytest.raises(sp.errors.KeyMissingError, match="`table_key='table'` is not in the tables of slide 'H'"):
        sp.pp.filter_cells(cohort)


def test_part_of_a_cohort_that_is_an_image_alone_has_nothing_to_do(stores: Path, tmp_path: Path) -> None:
    """Such as the job of an array that comes to this slide."""
    part = mixed(stores, tmp_path / "mixed").part(["H"])
    chosen = with_cells(part)
    assert isinstance(chosen, Stores)
    assert not chosen.stores
    sp.pp.filter_cells(part)
    sp.pp.assign_cells(part)
    assert len(sp.tl.score_cells(part, "seed", test_fold=None)) == len(sp.io.read_signatures("seed"))


ON_CELLS: dict[str, Callable[[object], object]] = {
    "filter_cells": sp.pp.filter_cells,
    "qc_alignment": sp.pp.qc_alignment,
    "highly_variable_genes": sp.pp.highly_variable_genes,
    "normalize": sp.pp.normalize,
    "assign_cells": sp.pp.assign_cells,
    "score_cells": lambda data: sp.tl.score_cells(data, "seed"),  # type: ignore[arg-type]
    "aggregate_patches": sp.tl.aggregate_patches,
    "train_autoencoder": lambda data: sp.tl.train_autoencoder(data, signatures="seed"),  # type: ignore[arg-type]
    "train_vit": sp.tl.train_vit,
    "baselines": sp.tl.baselines,
    "coverage": lambda data: sp.pl.coverage(data, "seed"),  # type: ignore[arg-type]
    "scatter": lambda data: sp.pl.scatter(data, "Immune_T"),  # type: ignore[arg-type]
    "compare": lambda data: sp.pl.compare(data, "Immune_T"),  # type: ignore[arg-type]
}


@pytest.fixture(scope="module")
def alone(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed(stores, tmp_path_factory.mktemp("alone") / "mixed").stores["H"]


@pytest.mark.parametrize("function", list(ON_CELLS))
@pytest.mark.parametrize("form", ["store", "object", "cohort"])
def test_an_image_alone_is_told_its_role_and_what_takes_it(function: str, form: str, alone: Path) -> None:
    data = {"store": alone, "object": sp.io.read(alone), "cohort": sp.Cohort({"H": alone})}[form]
    told = rf"^H is an H&E alone \(role 'predict'\), without cells, and `{function}` needs.*`sp.tl.predict`"
    with pytest.raises(KeyMissingError, match=told):
        ON_CELLS[function](data)


def test_a_slide_with_cells_is_not_told_so(stores: Path) -> None:
    with pytest.raises(KeyMissingError, match=r"^`table_key='cells'`"):
        sp.pp.filter_cells(next(stores.glob("*.zarr")), table_key="cells")
