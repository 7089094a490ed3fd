import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import spatialdata as sd
from scipy import sparse

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError


def oracle(sdata: sd.SpatialData, rows: np.ndarray) -> np.ndarray:
    dense = sdata["table"].X.toarray().astype(np.float64)[rows]
    return np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1)).var(axis=0, ddof=1)


def write_cells(sdata: sd.SpatialData, path: Path) -> None:
    """Store without the image, which takes most of the time and which nothing here looks at."""
    sp.io.write(sd.SpatialData(tables={"table": sdata["table"]}, attrs=sdata.attrs), path)


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
        write_cells(sdata, tmp_path / f"{name}.zarr")
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
        write_cells(sdata, tmp_path / f"{name}.zarr")
    cohort = sp.Cohort({name: tmp_path / f"{name}.zarr" for name in ("toy", "other")})
    with pytest.raises(InputError, match="the 2 slides have no gene in common"):
        sp.pp.highly_variable_genes(cohort, test_fold=None)


@pytest.fixture
def pair(toy: sd.SpatialData, tmp_path: Path) -> sp.Cohort:
    """Two slides of other depth; a gene without counts on the second."""
    other = sp.datasets.toy(seed=1)
    other.attrs["spatialsig"]["sample"] = "other"
    x = other["table"].X.tolil()
    x[:, 5] = 0
    other["table"].X = sparse.csr_matrix(x, dtype=np.float32)
    for name, sdata in {"toy": toy, "other": other}.items():
        write_cells(sdata, tmp_path / f"{name}.zarr")
    return sp.Cohort({name: tmp_path / f"{name}.zarr" for name in ("toy", "other")})


def by_scanpy(cohort: sp.Cohort, flavor: str, n_top_genes: int) -> pd.DataFrame:
    tables = {name: cohort[name]["table"] for name in cohort.stores}
    x = sparse.vstack([table.X for table in tables.values()]).tocsr().astype(np.float64)
    batch = np.repeat(list(tables), [table.n_obs for table in tables.values()])
    obs = pd.DataFrame({"batch": pd.Categorical(batch)}, index=np.arange(len(batch)).astype(str))
    adata = ad.AnnData(x, obs=obs, var=pd.DataFrame(index=next(iter(tables.values())).var_names))
    if flavor != "seurat_v3":
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, flavor=flavor, n_top_genes=n_top_genes, batch_key="batch")
    return adata.var


@pytest.mark.parametrize("flavor", ["seurat_v3", pytest.param("seurat", marks=pytest.mark.slow)])
def test_a_cohort_agrees_with_scanpy_on_the_slides_put_together(pair: sp.Cohort, flavor: str) -> None:
    if flavor == "seurat_v3":
        pytest.importorskip("skmisc")
    sp.pp.highly_variable_genes(pair, flavor=flavor, n_top_genes=30, test_fold=None)
    expected = by_scanpy(pair, flavor, 30)
    for name in pair.stores:
        var = pair[name]["table"].var
        np.testing.assert_allclose(var["means"], expected["means"], rtol=1e-8)
        np.testing.assert_array_equal(var["highly_variable_nbatches"], expected["highly_variable_nbatches"])
        np.testing.assert_array_equal(var["highly_variable"], expected["highly_variable"])


def test_union_takes_each_gene_where_it_is_measured(pair: sp.Cohort) -> None:
    short = sd.read_zarr(pair.stores["other"])
    kept, dropped = list(short["table"].var_names[:-40]), list(short["table"].var_names[-40:])
    short["table"] = short["table"][:, kept].copy()
    cut = pair.stores["other"].with_name("cut.zarr")
    write_cells(short, cut)
    cohort = sp.Cohort({"toy": pair.stores["toy"], "other": cut})

    sp.pp.highly_variable_genes(cohort, n_top_genes=50, test_fold=None)
    var = cohort["toy"]["table"].var
    assert var.loc[dropped, "variance"].isna().all()
    assert not var.loc[dropped, "highly_variable"].any()

    sp.pp.highly_variable_genes(cohort, n_top_genes=50, test_fold=None, panel="union")
    var, other = cohort["toy"]["table"].var, cohort["other"]["table"].var
    variance = oracle(sd.read_zarr(pair.stores["toy"]), slice(None))
    np.testing.assert_allclose(var.loc[dropped, "variance"], variance[-40:], rtol=1e-9)
    chosen = set(var.index[var["highly_variable"]])
    assert len(chosen) == 50
    assert set(other.index[other["highly_variable"]]) == chosen & set(kept)
    params = cohort["toy"]["table"].uns["spatialsig"]["highly_variable_genes"]
    assert (params["n_genes_common"], params["n_genes_any"]) == (len(kept), len(kept) + 40)


def test_without_loess_the_error_says_how_to_get_it(toy: sd.SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skmisc.loess", None)
    with pytest.raises(InputError, match="pip install scikit-misc"):
        sp.pp.highly_variable_genes(toy, flavor="seurat_v3", test_fold=None)
    assert "highly_variable" not in toy["table"].var


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"flavor": "best"}, "`flavor='best'` is not known; choose one of .*'seurat_v3'"),
        ({"panel": "any"}, "`panel='any'` is not known"),
        ({"span": 0}, "`span=0` .* must be greater than 0"),
    ],
)
def test_errors(toy: sd.SpatialData, kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sp.pp.highly_variable_genes(toy, test_fold=None, **kwargs)
