"""Every function that works slide by slide: a bad slide leaves the others alone, and a cluster writes the same bits."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from spatialdata import deepcopy
from tests.quick import all_of

import spatialsig as sp
from spatialsig._settings import settings
from spatialsig.errors import SpatialsigError, StoreError
from spatialsig.slide.each import errors_told_once, map_slides
from spatialsig.slide.slides import Slide

# function -> call on a cohort
CALLS: dict[str, Callable[[sp.Cohort, dict[str, object]], object]] = {
    "pp.filter_cells": lambda c, _: sp.pp.filter_cells(c),
    "pp.normalize": lambda c, _: sp.pp.normalize(c),
    "pp.highly_variable_genes": lambda c, _: sp.pp.highly_variable_genes(c, n_top_genes=20, test_fold=None),
    "pp.qc_alignment": lambda c, _: sp.pp.qc_alignment(c, n_regions=1),
    "pp.find_tissue": lambda c, _: sp.pp.find_tissue(c),
    "pp.make_patches": lambda c, _: sp.pp.make_patches(c, patch_px=28, um_per_px=2.0, key_added="others"),
    "pp.qc_patches": lambda c, _: sp.pp.qc_patches(c),
    "pp.normalize_stain": lambda c, _: sp.pp.normalize_stain(c),
    "pp.assign_cells": lambda c, _: sp.pp.assign_cells(c),
    "tl.score_cells": lambda c, _: sp.tl.score_cells(c, "seed", test_fold=None, key_added="again"),
    "tl.score_cells of ranks": lambda c, _: sp.tl.score_cells(c, "seed", method="ucell", test_fold=None),
    "tl.aggregate_patches": lambda c, _: sp.tl.aggregate_patches(c, use_rep=None),
    "tl.embed_cells": lambda c, m: sp.tl.embed_cells(c, m["autoencoder"]),
    "tl.embed_patches": lambda c, m: sp.tl.embed_patches(c, m["vit"]),
    "tl.predict": lambda c, m: sp.tl.predict(c, m["vit"]).drop(columns="seconds"),
    "tl.attention": lambda c, m: sp.tl.attention(c, m["vit"], patches=[0], n_steps=1),
    "pp.find_nuclei": lambda c, _: sp.pp.find_nuclei(c),
    "tl.train_cell_head": lambda c, m: sp.tl.train_cell_head(c, m["vit"], test_fold=None).feature_mean,
    "tl.predict_cells": lambda c, m: sp.tl.predict_cells(c, m["vit"]),
    "tl.signature_map": lambda c, m: sp.tl.signature_map(c, m["vit"], stride_um=56.0),
    "tl.noise_ceiling": lambda c, _: sp.tl.noise_ceiling(c, n_repeats=1),
    "tl.evaluate": lambda c, m: sp.tl.evaluate(c, m["vit"]),
}  # fmt: skip
LEARN_FROM_ALL = {"pp.highly_variable_genes", "pp.qc_patches", "tl.score_cells", "tl.score_cells of ranks", "tl.evaluate", "tl.noise_ceiling", "tl.train_cell_head"}  # fmt: skip
QUICK = {"pp.highly_variable_genes", "pp.make_patches", "tl.score_cells", "tl.predict"}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as found,
    ):
        yield found


def copy(stores: Path, place: Path) -> sp.Cohort:
    shutil.copytree(stores, place)
    return sp.Cohort(place)


def contents(cohort: sp.Cohort) -> dict[str, object]:
    """Everything that functions write, by slide and place."""
    found: dict[str, object] = {}
    for sample in cohort:
        slide = cohort[sample]
        for key, table in slide.tables.items():
            matrix = table.X.toarray() if hasattr(table.X, "toarray") else table.X
            found |= {f"{sample}/{key}/X": matrix, f"{sample}/{key}/var": table.var, f"{sample}/{key}/obs": table.obs}
            for name, values in {**table.obsm, **table.layers}.items():
                found[f"{sample}/{key}/{name}"] = values.toarray() if hasattr(values, "toarray") else values
        found |= {f"{sample}/{key}": pd.DataFrame(shapes) for key, shapes in slide.shapes.items()}
        found |= {f"{sample}/{k}": np.asarray(v) for k, v in slide.images.items() if k == "attention"}
        found |= {
            f"{sample}/{k}": np.asarray(v["scale0"]["image"]) for k, v in slide.images.items() if k == "signature_map"
        }
        ours = slide.attrs["spatialsig"]
        found[f"{sample}/attrs"] = {name: ours.get(name) for name in ("patches", "qc_alignment", "lineage")}
    return found


def assert_same(ours: object, theirs: object) -> None:
    if isinstance(ours, pd.DataFrame):
        pd.testing.assert_frame_equal(pd.DataFrame(ours), pd.DataFrame(theirs))
    elif isinstance(ours, np.ndarray):
        np.testing.assert_array_equal(ours, theirs)
    else:
        np.testing.assert_equal(ours, theirs)


@pytest.mark.parametrize("function", all_of(CALLS, quick=QUICK))
def test_a_cluster_writes_the_same_bits(
    function: str, stores: Path, models: dict[str, object], client: Client, tmp_path: Path
) -> None:
    alone, together = copy(stores, tmp_path / "alone"), copy(stores, tmp_path / "together")
    wanted = CALLS[function](alone, models)
    with client.as_current():
        found = CALLS[function](together, models)
    assert_same(wanted, found)
    before, after = contents(alone), contents(together)
    assert before.keys() == after.keys()
    for place, values in before.items():
        assert_same(values, after[place])


@pytest.mark.parametrize(
    "function", all_of((name for name in CALLS if name not in LEARN_FROM_ALL), quick=QUICK - LEARN_FROM_ALL)
)
def test_a_bad_slide_is_named_and_the_others_are_done(
    function: str, stores: Path, models: dict[str, object], tmp_path: Path
) -> None:
    cohort, whole = copy(stores, tmp_path / "bad"), copy(stores, tmp_path / "good").subset(["A", "C"])
    (cohort.stores["B"] / "zarr.json").write_text("no store")
    with pytest.raises(SpatialsigError, match=r"1 of 3 slides failed, the others are done:\n  B: "):
        CALLS[function](cohort, models)
    CALLS[function](whole, models)
    good = contents(cohort.subset(["A", "C"]))
    for place, values in contents(whole).items():
        assert_same(values, good[place])


@pytest.mark.parametrize("function", sorted(LEARN_FROM_ALL))
def test_what_learns_from_all_slides_writes_nothing_without_one(
    function: str, stores: Path, models: dict[str, object], tmp_path: Path
) -> None:
    cohort = copy(stores, tmp_path / "bad")
    (cohort.stores["B"] / "zarr.json").write_text("no store")
    before = contents(cohort.subset(["A", "C"]))
    with pytest.raises(StoreError, match="B.zarr"):
        CALLS[function](cohort, models)
    for place, values in contents(cohort.subset(["A", "C"])).items():
        assert_same(before[place], values)


def name_of(slide: Slide) -> str:
    return slide.name


def test_one_slide_in_memory_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "n_jobs", 4)
    slide = deepcopy(sp.datasets.toy())
    assert map_slides(slide, name_of, "names") == ["toy"]


def test_every_slide_that_fails_by_one_cause_is_that_error(stores: Path, tmp_path: Path) -> None:
    cohort = copy(stores, tmp_path / "all")
    with pytest.raises(sp.errors.KeyMissingError, match="`table_key='cells'` is not in the tables of slide 'A'"):
        sp.pp.filter_cells(cohort, table_key="cells")


def test_the_same_error_of_many_slides_is_told_once() -> None:
    same = {f"S{k}": f"slide 'S{k}' was made otherwise: 'macenko' wanted" for k in range(10)}
    told = errors_told_once(same | {"T": "another"})
    assert told[0].startswith("S0, S1, S2")
    assert told[0].endswith("S9: slide 'S0' was made otherwise: 'macenko' wanted")
    assert told[1:] == ["T: another"]
