"""Kernel regression on the embedding: the sums of scikit-learn, and settings chosen on patches held out."""

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from spatialsig.nn.stacking import gaussian_kernel
from spatialsig.train import expression_ridge
from spatialsig.train.expression_ridge import ExpressionRidge, fit_expression_ridge

PENALTY = 0.01  # per patch


def planted(n: int = 120, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(n, d))
    return codes, np.c_[codes @ [1.0, -0.5, 0.2], np.sin(2 * codes[:, 0])] + 0.1 * rng.normal(size=(n, 2))


def scores(fit: ExpressionRidge, codes: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(codes)
    return (fit.offset + x @ fit.linear + gaussian_kernel(x, fit.landmarks, fit.width) @ fit.weights).numpy()


@pytest.mark.parametrize("width", [0.0, 0.7])
def test_scores_and_held_out_scores_are_those_of_scikit_learn(width: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression_ridge, "WIDTHS", (width,))
    monkeypatch.setattr(expression_ridge, "PENALTIES", (PENALTY,))
    codes, targets = planted()
    fold = np.arange(len(codes)) % 3

    def oracle(rows: np.ndarray, asked: np.ndarray) -> np.ndarray:
        x, y = codes[rows] / np.sqrt(codes.shape[1]), targets[rows]
        if not width:
            return Ridge(PENALTY * len(x)).fit(x, y).predict(asked / np.sqrt(codes.shape[1]))
        # an intercept for a kernel: its features are centred on the patches that are learned from
        k = np.exp(-width * ((x[:, None] - x[None]) ** 2).sum(axis=2))
        other = np.exp(-width * ((asked[:, None] / np.sqrt(codes.shape[1]) - x[None]) ** 2).sum(axis=2))
        centred = k - k.mean(axis=0) - k.mean(axis=1)[:, None] + k.mean()
        centred_other = other - k.mean(axis=0) - other.mean(axis=1)[:, None] + k.mean()
        model = KernelRidge(alpha=PENALTY * len(x), kernel="precomputed").fit(centred, y - y.mean(axis=0))
        return model.predict(centred_other) + y.mean(axis=0)

    fit = fit_expression_ridge(codes, targets, fold, seed=0)
    np.testing.assert_allclose(scores(fit, codes), oracle(np.arange(len(codes)), codes), atol=1e-6)
    for k in range(3):
        expected = oracle(np.flatnonzero(fold != k), codes[fold == k])
        # landmarks of all patches span a little more than those that are learned from
        np.testing.assert_allclose(fit.held_out[fold == k], expected, atol=1e-6)


def test_a_straight_score_needs_no_kernel_and_a_bent_one_does() -> None:
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(400, 3))
    noise = 0.3 * rng.normal(size=(400, 1))
    fold = np.arange(400) % 4
    straight = fit_expression_ridge(codes, codes[:, :1] + noise, fold, seed=0)
    bent = fit_expression_ridge(codes, np.abs(codes[:, :1]) + noise, fold, seed=0)
    assert straight.width <= 0.1 < bent.width
    asked = rng.normal(size=(200, 3))
    assert np.corrcoef(scores(straight, asked)[:, 0], asked[:, 0])[0, 1] > 0.99
    assert np.corrcoef(scores(bent, asked)[:, 0], np.abs(asked[:, 0]))[0, 1] > 0.9


def test_landmarks_of_many_patches_say_what_all_would() -> None:
    codes, targets = planted(3000)
    fit = fit_expression_ridge(codes, targets, np.arange(3000) % 4, seed=0)
    assert fit.landmarks.shape == (expression_ridge.N_LANDMARKS, 3)
    asked, truth = planted(500)
    left = truth - scores(fit, asked)
    assert (left.std(axis=0) < 0.12).all()  # the noise planted is .1


def test_missing_codes_and_scores() -> None:
    codes, targets = planted()
    codes[::10], targets[1::10, 0] = np.nan, np.nan
    fit = fit_expression_ridge(codes, targets, np.arange(len(codes)) % 3, seed=0)
    missing = np.isnan(codes).any(axis=1)
    assert np.isnan(fit.held_out[missing]).all()
    assert np.isfinite(fit.held_out[~missing]).all()
    assert all(torch.isfinite(part).all() for part in (fit.landmarks, fit.linear, fit.weights, fit.offset))


def test_the_penalty_is_the_largest_within_a_standard_error_of_the_best() -> None:
    errors = torch.full((4, len(expression_ridge.PENALTIES), 1), 100.0, dtype=torch.float64)
    errors[:, 2], errors[:, 6] = 1.0, 1.0
    errors[0, 6] += 0.5  # worse in one fold of four: no more than chance
    errors[:, 9] = 2.0  # worse in all
    assert float(expression_ridge._cautious(errors)) == expression_ridge.PENALTIES[6]


def test_one_patient_with_an_embedding_is_cut_in_two() -> None:
    codes, targets = planted()
    codes[60:] = np.nan
    fit = fit_expression_ridge(codes, targets, np.repeat([0, 1], 60), seed=0)
    assert np.isfinite(fit.held_out[:60]).all()
