import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import spatialdata as sd
from scipy.stats import rankdata

import spatialsig as sp
from spatialsig.errors import InputError, SpatialsigWarning
from spatialsig.labels import scorers


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
        ("seed", {"method": "mean"}, InputError, "`method='mean'` is not known; choose one of .*'ucell'"),
        ("seed", {"method": "ucell", "max_rank": 2}, InputError, "`max_rank=2` is smaller than the largest signature"),
        ("seed", {"n_bins": 1}, InputError, "`n_bins=1` of `sp.tl.score_cells` must be"),
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


AUCELL = pytest.param("aucell", marks=pytest.mark.slow)  # decoupler compiles it for a minute


def lognorm(sdata: sd.SpatialData) -> ad.AnnData:
    adata = ad.AnnData(sdata["table"].X.astype(np.float64), var=pd.DataFrame(index=sdata["table"].var_names))
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def test_score_genes_equals_scanpy_with_its_own_controls(toy: sd.SpatialData) -> None:
    genes = ["CD3D", "CD3E", "CD2", "ACTA2"]
    sp.tl.score_cells(toy, {"S": genes}, method="score_genes", test_fold=None, n_controls=10**6)
    adata = lognorm(toy)
    sc.tl.score_genes(adata, genes, ctrl_as_ref=False, ctrl_size=10**6, n_bins=10)
    np.testing.assert_allclose(toy["table"].obsm["signatures"][:, 0], adata.obs["score"], atol=1e-5)


def test_score_genes_equals_scanpy_given_the_same_controls(
    toy: sd.SpatialData, monkeypatch: pytest.MonkeyPatch
) -> None:
    sp.tl.score_cells(toy, "seed", method="score_genes", test_fold=None, n_controls=5)
    scored = toy["table"].uns["spatialsig"]["score_cells"]
    genes, adata = np.array(scored["genes"]), lognorm(toy)
    belong = scored["weights"].any(axis=1)
    for column, name in enumerate(scored["names"]):
        controls = scored["controls"][:, column] > 0
        assert controls.any()
        assert not (controls & belong).any()
        monkeypatch.setattr(
            sys.modules["scanpy.tools._score_genes"],
            "_score_genes_bins",
            lambda *_, controls=controls, **__: [pd.Index(genes[controls])],
        )
        sc.tl.score_genes(adata, list(genes[scored["weights"][:, column] > 0]), score_name=name)
        np.testing.assert_allclose(toy["table"].obsm["signatures"][:, column], adata.obs[name], atol=1e-5)


def test_ucell_ranks_within_the_cell(toy: sd.SpatialData) -> None:
    sp.tl.score_cells(toy, {"T": ["CD3D", "CD3E", "CD2"]}, method="ucell", test_fold=None)
    counts, limit = toy["table"].X.toarray(), toy["table"].uns["spatialsig"]["score_cells"]["max_rank"]
    assert limit == int(np.median((counts > 0).sum(axis=1)))
    ranks = rankdata(-counts, axis=1)[:, toy["table"].var_names.get_indexer(["CD3D", "CD3E", "CD2"])]
    u = np.where(ranks > limit, limit + 1, ranks).sum(axis=1) - 6
    expected = np.where((ranks > limit).all(axis=1), 0, 1 - u / (3 * limit))
    np.testing.assert_allclose(toy["table"].obsm["signatures"][:, 0], expected, atol=1e-6)


def test_one_max_rank_for_slides_of_any_depth(toy: sd.SpatialData, tmp_path: Path) -> None:
    shallow = sp.datasets.toy(seed=1)
    shallow.attrs["spatialsig"]["sample"] = "shallow"
    x = shallow["table"].X
    x.data = np.random.default_rng(0).binomial(x.data.astype(int), 0.3).astype(np.float32)
    x.eliminate_zeros()
    for name, sdata in {"toy": toy, "shallow": shallow}.items():
        del sdata["he_image"]
        sp.io.write(sdata, tmp_path / f"{name}.zarr")
    cohort = sp.Cohort({name: tmp_path / f"{name}.zarr" for name in ("toy", "shallow")})
    sp.tl.score_cells(cohort, "seed", method="ucell", test_fold=None)
    limits = [cohort[name]["table"].uns["spatialsig"]["score_cells"]["max_rank"] for name in ("toy", "shallow")]
    assert limits == [int(np.median(x.getnnz(axis=1)))] * 2


@pytest.mark.parametrize("method", [AUCELL, pytest.param("ulm", marks=pytest.mark.slow)])
def test_decoupler_scores_every_cell_in_our_order(toy: sd.SpatialData, method: str) -> None:
    dc = pytest.importorskip("decoupler")
    sets = sp.io.read_signatures("seed")
    sp.tl.score_cells(toy, sets, method=method, test_fold=None)
    net = pd.DataFrame([(name, gene) for name, genes in sets.items() for gene in genes], columns=["source", "target"])
    adata = lognorm(toy)
    getattr(dc.mt, method)(adata, net, tmin=1, empty=False)
    expected = adata.obsm[f"score_{method}"][list(sets)]
    scores = toy["table"].obsm["signatures"]
    if method == "aucell":  # breaks the ties of a cell by chance, so that only the mean over cells is the same
        np.testing.assert_allclose(scores.mean(axis=0), expected.mean(axis=0), rtol=1e-2)
    else:
        np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)


def test_without_decoupler_the_error_says_how_to_get_it(toy: sd.SpatialData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decoupler", None)
    with pytest.raises(InputError, match="pip install decoupler"):
        sp.tl.score_cells(toy, "seed", method="ulm", test_fold=None)
    assert "signatures" not in toy["table"].obsm


@pytest.mark.parametrize("method", ["zscore", "score_genes", "ucell"])
def test_nothing_is_learnt_from_test_cells(toy: sd.SpatialData, method: str) -> None:
    sp.pp.split(toy, by="block", block_um=150, buffer_um=20, n_folds=2)
    sp.tl.score_cells(toy, "seed", method=method, test_fold=0)
    train = np.flatnonzero(toy["table"].obs["fold"] == 1)
    before = toy["table"].obsm["signatures"][train].copy()
    x = toy["table"].X.tolil()
    x[np.flatnonzero(toy["table"].obs["fold"] != 1)] = 7
    toy["table"].X = x.tocsr().astype(np.float32)
    sp.tl.score_cells(toy, "seed", method=method, test_fold=0)
    np.testing.assert_array_equal(toy["table"].obsm["signatures"][train], before)


@pytest.mark.parametrize("method", ["zscore", "score_genes", "ucell", AUCELL, "ulm"])
def test_every_method_finds_the_planted_cells_and_keeps_its_parameters(
    toy: sd.SpatialData, method: str, tmp_path: Path
) -> None:
    if method in ("aucell", "ulm"):
        pytest.importorskip("decoupler")
    sets = {"T": ["CD3D", "CD3E", "CD2", "CD8A"], "gone": ["a", "b", "c"]}
    with pytest.warns(SpatialsigWarning, match="NaN on every slide: gone"):
        sp.tl.score_cells(toy, sets, method=method, test_fold=None)
    scores = toy["table"].obsm["signatures"]
    assert scores.dtype == np.float32
    assert np.isnan(scores[:, 1]).all()
    t_cell = (toy["table"].obs["cell_type"] == "T_cell").to_numpy()
    auc = (rankdata(scores[:, 0])[t_cell].sum() - t_cell.sum() * (t_cell.sum() + 1) / 2) / (
        t_cell.sum() * (~t_cell).sum()
    )
    assert auc > 0.85
    sp.io.write(sd.SpatialData(tables={"table": toy["table"]}, attrs=toy.attrs), tmp_path / "s.zarr")
    table = sd.read_zarr(tmp_path / "s.zarr")["table"]
    again = scorers.scores_under(table.uns["spatialsig"]["score_cells"], table.X)
    np.testing.assert_allclose(again, scores, rtol=1e-5, atol=1e-6)


SIGNED = {
    "T": {"CD3D": 1.0, "CD3E": 1.0, "CD2": 1.0, "ACTA2": -1.0, "DCN": -1.0},
    "weighted": {"CD3D": 3.0, "CD3E": 1.0, "ACTA2": -2.0},
    "plain": dict.fromkeys(["CD3D", "CD3E", "CD2"], 1.0),
}


def test_zscore_uses_signs_and_weights(toy: sd.SpatialData) -> None:
    sp.tl.score_cells(toy, SIGNED, test_fold=None)
    z, names = zscores(toy, np.ones(toy["table"].n_obs, bool)), toy["table"].var_names
    for column, weights in enumerate(SIGNED.values()):
        w = np.array(list(weights.values()))
        expected = z[:, names.get_indexer(list(weights))] @ w / np.abs(w).sum()
        np.testing.assert_allclose(toy["table"].obsm["signatures"][:, column], expected, rtol=1e-4, atol=1e-5)


def test_score_genes_with_a_minus_is_what_both_parts_give(toy: sd.SpatialData) -> None:
    up, down = ["CD3D", "CD3E", "CD2"], ["ACTA2", "DCN"]
    every = {"method": "score_genes", "test_fold": None, "n_controls": 10**6, "min_genes": 2}
    sp.tl.score_cells(toy, {"up": up, "down": down}, **every)
    alone = toy["table"].obsm["signatures"]
    sp.tl.score_cells(toy, {"S": SIGNED["T"]}, **every)
    np.testing.assert_allclose(
        toy["table"].obsm["signatures"][:, 0], (3 * alone[:, 0] - 2 * alone[:, 1]) / 5, atol=1e-5
    )


def test_ucell_takes_off_what_has_a_minus(toy: sd.SpatialData) -> None:
    up, down = ["CD3D", "CD3E", "CD2"], ["ACTA2", "DCN"]
    sp.tl.score_cells(toy, {"up": up, "down": down, "S": [*up, *(f"{gene}-" for gene in down)]}, method="ucell",
                      test_fold=None, min_genes=2)  # fmt: skip
    alone = toy["table"].obsm["signatures"]
    np.testing.assert_allclose(alone[:, 2], np.maximum(alone[:, 0] - alone[:, 1], 0), atol=1e-6)
    assert (alone[:, 2] < alone[:, 0]).any()


@pytest.mark.slow
def test_ulm_is_that_of_decoupler_with_weights(toy: sd.SpatialData) -> None:
    dc = pytest.importorskip("decoupler")
    sp.tl.score_cells(toy, SIGNED, method="ulm", test_fold=None)
    rows = [(name, gene, weight) for name, weights in SIGNED.items() for gene, weight in weights.items()]
    adata = lognorm(toy)
    dc.mt.ulm(adata, pd.DataFrame(rows, columns=["source", "target", "weight"]), tmin=1, empty=False)
    np.testing.assert_allclose(
        toy["table"].obsm["signatures"], adata.obsm["score_ulm"][list(SIGNED)], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("method", "name", "lost"),
    [("aucell", "T", "genes with a minus"), ("aucell", "weighted", "weights"), ("ucell", "weighted", "weights"),
     ("ucell", "none", "only genes with a minus on the panel")],
)  # fmt: skip
def test_signs_that_a_method_would_lose_are_refused(toy: sd.SpatialData, method: str, name: str, lost: str) -> None:
    signature = SIGNED.get(name, ["CD3D-", "CD3E-", "CD2-"])
    with pytest.raises(InputError, match=f"has {lost}, which `method='{method}'` does not use; choose one of"):
        sp.tl.score_cells(toy, {"S": signature}, method=method, test_fold=None)
    assert "signatures" not in toy["table"].obsm


def test_all_genes_of_a_signed_signature_are_left_out_of_the_embedding(toy: sd.SpatialData) -> None:
    model = sp.tl.train_autoencoder(
        toy, signatures={"S": SIGNED["T"]}, n_latent=2, hidden=(4,), test_fold=None, max_epochs=1
    )
    assert not {"CD3D", "ACTA2"} & set(model.genes)
