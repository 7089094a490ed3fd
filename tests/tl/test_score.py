import numpy as np
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig._errors import InputError, SpatialsigWarning


def zscores(sdata: sd.SpatialData, train: np.ndarray) -> np.ndarray:
    dense = sdata["table"].X.toarray().astype(np.float64)
    x = np.log1p(1e4 * dense / np.maximum(dense.sum(axis=1, keepdims=True), 1))
    mean, std = x[train].mean(axis=0), x[train].std(axis=0)
    return (x - mean) / np.where(std > 0, std, 1)


def test_score_is_the_mean_zscore_under_the_training_scaler(toy: sd.SpatialData) -> None:
    sp.pp.split(toy, by="block", block_um=150, buffer_um=20, n_folds=2)
    coverage = sp.tl.score_cells(toy, "seed", test_fold=0)
    z = zscores(toy, (toy["table"].obs["fold"] == 1).to_numpy())
    names = toy["table"].var_names
    for column, (name, genes) in enumerate(sp.io.read_signatures("seed").items()):
        measured = [gene for gene in genes if gene in names]
        expected = z[:, names.get_indexer(measured)].mean(axis=1)
        np.testing.assert_allclose(toy["table"].obsm["signatures"][:, column], expected, rtol=1e-4, atol=1e-5)
        assert coverage.loc[name, "n_genes_measured"] == len(measured)


def test_poorly_covered_signature_is_nan_and_said(toy: sd.SpatialData) -> None:
    sets = {"good": ["CD3D", "CD3E", "CD2"], "bad": ["CD3D", "Xist", "Foo", "Bar"]}
    with pytest.warns(SpatialsigWarning, match=r"NaN on every slide: bad \(1 genes measured, 3 wanted\)"):
        sp.tl.score_cells(toy, sets, test_fold=None)
    scores = toy["table"].obsm["signatures"]
    assert np.isfinite(scores[:, 0]).all()
    assert np.isnan(scores[:, 1]).all()


@pytest.mark.parametrize(
    ("signatures", "kwargs", "error", "message"),
    [
        ({"mouse": ["Cd3d", "Cd3e", "Cd2"]}, {}, InputError, r"Without any gene on the panel: \['mouse'\]"),
        ("seed", {"method": "ulm"}, InputError, "`method='ulm'` is not known"),
    ],
)
def test_errors_write_nothing(
    toy: sd.SpatialData, signatures: object, kwargs: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sp.tl.score_cells(toy, signatures, test_fold=None, **kwargs)
    assert "signatures" not in toy["table"].obsm


def test_gene_without_counts_adds_nothing(toy: sd.SpatialData) -> None:
    x = toy["table"].X.tolil()
    gene = toy["table"].var_names.get_loc("CD3D")
    x[:, gene] = 0
    toy["table"].X = x.tocsr().astype(np.float32)
    sp.tl.score_cells(toy, {"T": ["CD3D", "CD3E", "CD2"]}, test_fold=None)
    z = zscores(toy, np.ones(toy["table"].n_obs, bool))
    expected = z[:, toy["table"].var_names.get_indexer(["CD3D", "CD3E", "CD2"])].mean(axis=1)
    np.testing.assert_allclose(toy["table"].obsm["signatures"][:, 0], expected, rtol=1e-4, atol=1e-5)
