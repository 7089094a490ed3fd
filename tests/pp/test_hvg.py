from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig._errors import InputError, KeyMissingError


def oracle(sdata: sd.SpatialData, rows: np.ndarray) -> np.ndarray:
    dense = sdata["table"].X.toarray().astype(np.float64)[rows]
    return np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1)).var(axis=0, ddof=1)


def test_variance_equals_the_dense_formula_on_training_cells(toy: sd.SpatialData) -> None:
    sp.pp.split(toy, by="block", block_um=150, buffer_um=20, n_folds=2)
    train = (toy["table"].obs["fold"] == 1).to_numpy()
    sp.pp.highly_variable_genes(toy, n_top_genes=40, test_fold=0)
    variance = oracle(toy, train)
    np.testing.assert_allclose(toy["table"].var["variance"], variance, rtol=1e-9)
    top = set(np.argsort(-variance)[:40])
    assert set(np.flatnonzero(toy["table"].var["highly_variable"])) == top


def test_test_cells_change_nothing(toy: sd.SpatialData) -> None:
    sp.pp.split(toy, by="block", block_um=150, buffer_um=20, n_folds=2)
    sp.pp.highly_variable_genes(toy, n_top_genes=40, test_fold=0)
    before = toy["table"].var["variance"].copy()
    held_out = np.flatnonzero(toy["table"].obs["fold"] != 1)
    x = toy["table"].X.tolil()
    x[held_out] = 7
    toy["table"].X = x.tocsr().astype(np.float32)
    sp.pp.highly_variable_genes(toy, n_top_genes=40, test_fold=0)
    np.testing.assert_array_equal(toy["table"].var["variance"], before)


def test_slides_with_other_panels_share_their_common_genes(toy: sd.SpatialData, tmp_path: Path) -> None:
    other = sp.datasets.toy(seed=1)
    other.attrs["spatialsig"]["sample"] = "other"
    keep = np.random.default_rng(0).permutation(other["table"].n_vars)[:200]
    other["table"] = other["table"][:, keep].copy()
    for name, sdata in {"toy": toy, "other": other}.items():
        sp.io.write(sdata, tmp_path / f"{name}.zarr")
    cohort = sp.Cohort({name: tmp_path / f"{name}.zarr" for name in ("toy", "other")})
    sp.pp.highly_variable_genes(cohort, n_top_genes=30, test_fold=None)
    first, second = cohort["toy"]["table"].var, cohort["other"]["table"].var
    chosen = set(first.index[first["highly_variable"]])
    assert chosen == set(second.index[second["highly_variable"]])
    assert len(chosen) == 30
    assert first["variance"].isna().sum() == len(first) - 200


def test_without_folds_nothing_can_be_held_out(toy: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match=r"Call `sp.pp.split` first, or pass `test_fold=None`"):
        sp.pp.highly_variable_genes(toy)


def test_no_gene_in_common(toy: sd.SpatialData, tmp_path: Path) -> None:
    other = sp.datasets.toy(seed=1)
    other.attrs["spatialsig"]["sample"] = "other"
    other["table"].var_names = [f"mouse-{name}" for name in other["table"].var_names]
    for name, sdata in {"toy": toy, "other": other}.items():
        sp.io.write(sdata, tmp_path / f"{name}.zarr")
    cohort = sp.Cohort({name: tmp_path / f"{name}.zarr" for name in ("toy", "other")})
    with pytest.raises(InputError, match="the 2 slides have no gene in common"):
        sp.pp.highly_variable_genes(cohort, test_fold=None)
