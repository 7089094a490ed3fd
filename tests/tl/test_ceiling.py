from itertools import combinations

import numpy as np
import pytest
import spatialdata as sd
from scipy import sparse

import spatialsig as sp
from spatialsig import _keys


@pytest.fixture
def rates(toy: sd.SpatialData) -> np.ndarray:
    """Expected counts of the cells of ``toy``: the first five genes vary in waves over the slide; patches are cut."""
    xy = toy["table"].obsm["he_px"]
    rates = np.full(toy["table"].shape, 0.15)
    rates[:, :5] *= np.exp(0.5 * (np.sin(xy[:, 0] / 90) + np.cos(xy[:, 1] / 70)))[:, None]
    sp.pp.make_patches(toy, patch_px=40, um_per_px=1.0)
    sp.pp.assign_cells(toy)
    return rates


def test_ceiling_is_the_correlation_of_labels_with_the_truth(toy: sd.SpatialData, rates: np.ndarray) -> None:
    """Poisson counts around known rates: the labels' correlation with the noiseless rates is the ceiling."""
    table, genes = toy["table"], list(toy["table"].var_names[:5])
    member = table.obsm[_keys.MEMBERSHIP].toarray().astype(float)
    truth = member.T @ rates[:, 0] / member.sum(axis=0).clip(1)
    estimates, actual = [], []
    for seed in range(12):
        table.X = sparse.csr_matrix(np.random.default_rng(seed).poisson(rates).astype(np.float32))
        sp.tl.score_cells(toy, {"field": genes}, test_fold=None)
        sp.tl.aggregate_patches(toy, min_cells=3, use_rep=None)
        estimates.append(sp.tl.noise_ceiling(toy)["ceiling"][0])
        label = toy["signatures"].X[:, 0]
        seen = np.isfinite(label)
        actual.append(np.corrcoef(label[seen], truth[seen])[0, 1])
    assert 0.4 < np.mean(actual) < 0.95
    assert abs(np.mean(estimates) - np.mean(actual)) < 0.03


def test_unmeasured_signature_has_no_ceiling(patched: sd.SpatialData) -> None:
    table = patched["signatures"]
    scored = table.uns["spatialsig"]["score_cells"]
    scored["weights"] = scored["weights"].copy()
    scored["weights"][:, 0] = 0
    ceiling = sp.tl.noise_ceiling(patched, n_repeats=1)
    assert np.isnan(ceiling["ceiling"][0])
    assert ceiling["ceiling"][1:].between(0.3, 1).all()


@pytest.mark.parametrize(
    ("method", "stat"),
    [("zscore", "median"), ("zscore", "sum"), ("zscore", "pseudobulk"), ("ucell", "mean"), ("score_genes", "mean")],
)
def test_ceiling_follows_scorer_and_statistic(toy: sd.SpatialData, rates: np.ndarray, method: str, stat: str) -> None:
    """The oracle measures the same tissue again and again: reliability is the correlation of two measurements."""
    table, genes = toy["table"], list(toy["table"].var_names[:5])
    estimates, labels = [], []
    for seed in range(6):
        table.X = sparse.csr_matrix(np.random.default_rng(seed).poisson(rates).astype(np.float32))
        sp.tl.score_cells(toy, {"field": genes}, test_fold=None, method=method)
        sp.tl.aggregate_patches(toy, stat=stat, min_cells=3, use_rep=None)
        estimates.append(sp.tl.noise_ceiling(toy, n_repeats=2)["ceiling"][0])
        labels.append(toy["signatures"].X[:, 0])
    seen = np.isfinite(labels).all(axis=0)
    rs = [np.corrcoef(a[seen], b[seen])[0, 1] for a, b in combinations(labels, 2)]
    assert abs(np.mean(estimates) - np.sqrt(np.mean(rs))) < 0.08


def test_a_ceiling_belongs_to_its_signature_whatever_the_order(patched: sd.SpatialData) -> None:
    by_name = sp.tl.noise_ceiling(patched).set_index("signature")["ceiling"]
    whole = patched["signatures"]
    for columns in (slice(None, None, -1), [0, 2], []):
        del patched.tables["signatures"]
        patched["signatures"] = whole[:, columns].copy()
        found = sp.tl.noise_ceiling(patched).set_index("signature")["ceiling"]
        assert list(found.index) == list(whole.var_names[columns])
        np.testing.assert_array_equal(found, by_name[found.index])
