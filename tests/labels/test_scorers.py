"""Scorers learn from the training cells alone, and score by the formulas of their papers."""

import numpy as np
import pytest
import spatialdata as sd
from scipy.stats import rankdata

import spatialsig as sp
from spatialsig.errors import InputError
from spatialsig.labels.scorers import METHODS, SIGNED, WEIGHTED, ScorerFit, check_weights, fit_method, scores_under
from spatialsig.slide.counts import counts_of
from spatialsig.slide.folds import folds_of
from spatialsig.slide.slides import Slide

SIZES = (4, 6, 0)  # genes of three signatures; the last is not measured


@pytest.fixture
def split(toy: sd.SpatialData) -> sd.SpatialData:
    sp.pp.split(toy, by="block", block_um=150, buffer_um=40, n_folds=2)
    return toy


def fit_of(sdata: sd.SpatialData, **changes: object) -> ScorerFit:
    options = {"test_fold": 0, "max_rank": None, "n_bins": 4, "n_controls": 5, "seed": 0} | changes
    return ScorerFit(list(sdata["table"].var_names), table_key="table", **options)


def weights_of(n_genes: int) -> np.ndarray:
    rng, weights = np.random.default_rng(3), np.zeros((n_genes, len(SIZES)))
    order = rng.permutation(n_genes)
    for k, size in enumerate(SIZES):
        weights[order[10 * k : 10 * k + size], k] = 1 / max(size, 1)
    return weights


def learnt(sdata: sd.SpatialData, method: str, **changes: object) -> dict:
    weights = weights_of(sdata["table"].n_vars)
    return {"method": method} | fit_method(method, weights, weights.any(axis=1), sdata, fit_of(sdata, **changes))


def normalised(sdata: sd.SpatialData) -> np.ndarray:
    counts = sdata["table"].to_df().to_numpy(np.float64)
    return np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def training(sdata: sd.SpatialData) -> np.ndarray:
    """Cells of fold 1; those of the buffer and of fold 0 are not learnt from."""
    return folds_of(Slide(sdata), sdata["table"].obsm["spatial"]) == 1


def test_zscore_is_scaled_by_the_training_cells(split: sd.SpatialData) -> None:
    params, x = learnt(split, "zscore"), normalised(split)
    used, of_training = params["weights"].any(axis=1), x[training(split)]
    std = of_training.std(axis=0)
    np.testing.assert_allclose(params["mean"][used], of_training.mean(axis=0)[used], rtol=1e-6)
    np.testing.assert_allclose(params["std"][used], np.where(std > 0, std, 1)[used], rtol=1e-6)
    scores = scores_under(params, counts_of(Slide(split), "table"))
    expected = ((x - of_training.mean(axis=0)) / np.where(std > 0, std, 1)) @ params["weights"]
    np.testing.assert_allclose(scores[:, :2], expected[:, :2], rtol=1e-3, atol=1e-4)


def test_score_genes_takes_off_controls_that_are_in_no_signature(split: sd.SpatialData) -> None:
    params, x = learnt(split, "score_genes"), normalised(split)
    weights, controls = params["weights"], params["controls"]
    in_any = weights.any(axis=1)
    np.testing.assert_allclose(controls.sum(axis=0)[:2], 1)
    assert not controls[in_any].any()
    scores = scores_under(params, counts_of(Slide(split), "table"))
    np.testing.assert_allclose(scores[:, :2], (x @ weights - x @ controls)[:, :2], rtol=1e-3, atol=1e-4)
    again = learnt(split, "score_genes", seed=1)
    assert not np.array_equal(again["controls"], controls)
    np.testing.assert_array_equal(learnt(split, "score_genes")["controls"], controls)


def test_ucell_is_the_u_statistic_of_the_ranks(split: sd.SpatialData) -> None:
    params = learnt(split, "ucell", max_rank=15)
    assert params["max_rank"] == 15
    scores = scores_under(params, counts_of(Slide(split), "table"))
    ranks = rankdata(-split["table"].to_df().to_numpy(), axis=1)
    for k, n in enumerate(SIZES[:2]):
        of_genes = ranks[:, params["weights"][:, k] > 0]
        u = np.where(of_genes > 15, 16, of_genes).sum(axis=1) - n * (n + 1) / 2
        expected = np.where((of_genes > 15).all(axis=1), 0, 1 - u / (n * 15))
        assert expected.std() > 0.05
        np.testing.assert_allclose(scores[:, k], expected, atol=1e-6)


def test_max_rank_is_the_median_of_detected_genes_of_the_training_cells(split: sd.SpatialData) -> None:
    detected = (split["table"].to_df().to_numpy() > 0).sum(axis=1)
    expected = max(int(np.median(detected[training(split)])), max(SIZES))
    assert learnt(split, "ucell")["max_rank"] == expected


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("aucell", "ulm")])
def test_a_signature_that_is_not_measured_is_missing_and_the_test_fold_unseen(
    split: sd.SpatialData, method: str
) -> None:
    params = learnt(split, method)
    scores = scores_under(params, counts_of(Slide(split), "table"))
    assert scores.dtype == np.float32
    assert np.isfinite(scores[:, :2]).all()
    assert np.isnan(scores[:, 2]).all()
    counts = split["table"].X
    unseen = np.repeat(~training(split), np.diff(counts.indptr))
    counts.data[unseen] += 7
    again = learnt(split, method)
    for name in params.keys() - {"method"}:
        np.testing.assert_array_equal(params[name], again[name])
    everything = learnt(split, method, test_fold=None)
    if method == "zscore":
        assert not np.array_equal(everything["mean"], params["mean"])


@pytest.mark.parametrize("method", ["zscore", "ucell"])
def test_no_training_cell_is_an_error(split: sd.SpatialData, method: str) -> None:
    Slide(split).attrs["split"] = {"by": "slide", "fold": 0, "n_folds": 2, "seed": 0}
    with pytest.raises(InputError, match="`test_fold=0` leaves 0 training cells; choose another fold"):
        learnt(split, method)


@pytest.mark.parametrize("method", [*METHODS, "one that says nothing of itself"])
def test_a_method_uses_weights_and_signs_or_refuses_them(method: str) -> None:
    cases = {"has weights": ([2.0, 1.0, 0.0], WEIGHTED), "has genes with a minus": ([1.0, 1.0, -1.0], SIGNED)}
    for message, (weights, methods) in cases.items():
        if method in methods:
            check_weights(method, np.array(weights)[:, None], ["T"])
        else:
            with pytest.raises(InputError, match=f"signature 'T' {message}, which `method='{method}'` does not use"):
                check_weights(method, np.array(weights)[:, None], ["T"])
    check_weights(method, np.array([1.0, 1.0, 0.0])[:, None], ["T"])
