from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
import spatialdata as sd
from scipy import sparse

import spatialsig as sp
from spatialsig.errors import InputError


@pytest.mark.parametrize(("target_sum", "log1p"), [(1e4, True), (100.0, True), (1e4, False)])
def test_layer_equals_scanpy_and_counts_stay(toy: sd.SpatialData, target_sum: float, log1p: bool) -> None:
    before = toy["table"].X.copy()
    sp.pp.normalize(toy, target_sum=target_sum, log1p=log1p)
    adata = ad.AnnData(before.astype(np.float64))
    sc.pp.normalize_total(adata, target_sum=target_sum)
    if log1p:
        sc.pp.log1p(adata)
    layer = toy["table"].layers["lognorm"]
    assert sparse.issparse(layer)
    assert layer.dtype == np.float32
    np.testing.assert_allclose(layer.toarray(), adata.X.toarray(), rtol=1e-5)
    assert (toy["table"].X != before).nnz == 0
    assert ("log1p" in toy["table"].uns) == log1p


def test_layer_is_kept_in_the_store(toy: sd.SpatialData, toy_store: Path) -> None:
    sp.pp.normalize(toy_store, layer="x")
    table = sd.read_zarr(toy_store)["table"]
    sp.pp.normalize(toy, layer="x")
    np.testing.assert_array_equal(table.layers["x"].toarray(), toy["table"].layers["x"].toarray())
    assert table.uns["spatialsig"]["normalize"] == {"target_sum": 1e4, "log1p": True, "layer": "x"}


def test_changing_the_layer_leaves_the_counts(toy: sd.SpatialData) -> None:
    before = toy["table"].X.copy()
    sp.pp.normalize(toy)
    toy["table"].layers["lognorm"].eliminate_zeros()
    toy["table"].layers["lognorm"].indices[:] = 0
    assert (toy["table"].X != before).nnz == 0


def test_normalised_values_are_refused(toy: sd.SpatialData) -> None:
    sp.pp.normalize(toy)
    toy["table"].X = toy["table"].layers.pop("lognorm")
    with pytest.raises(
        InputError, match=r"must hold raw counts \(whole numbers from 0 to 16,777,216\); found values from"
    ):
        sp.pp.normalize(toy)
    assert "lognorm" not in toy["table"].layers


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"layer": "X"}, "would replace the raw counts"), ({"target_sum": 0}, "`target_sum=0` .* must be greater than 0")],
)
def test_errors(toy: sd.SpatialData, kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sp.pp.normalize(toy, **kwargs)
