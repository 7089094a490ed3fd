"""Distances from training patches against scipy, and thresholds against simulated patients."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from spatialsig.stats.domain import SHRINK, Distance, fit_distance


def patients(n: int, *, rows: int = 60, d: int = 5, between: float = 0.3, seed: int = 0) -> np.ndarray:
    """Rows of patients that differ in their mean, ``(n, rows, d)``, some numbers going together."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(d, d))
    return (rng.normal(size=(n, rows, d)) + between * rng.normal(size=(n, 1, d))) @ mix


def fitted(groups: np.ndarray, share: float = 0.05) -> tuple[Distance, float]:
    names = np.repeat([f"P{k}" for k in range(len(groups))], groups.shape[1])
    return fit_distance(np.concatenate(groups), names, names, floor=0.1, n_axes=groups.shape[2], share=share)


def test_distance_is_that_of_mahalanobis() -> None:
    groups = patients(4)
    distance = Distance.fit(list(groups), floor=0.1, n_axes=5)
    middle = np.mean([np.median(rows, axis=0) for rows in groups], axis=0)
    covariance = np.mean([(rows - middle).T @ (rows - middle) / len(rows) for rows in groups], axis=0)
    covariance = (1 - SHRINK) * covariance + SHRINK * np.diag(np.diag(covariance)) + 0.01 * np.eye(5)
    values, vectors = np.linalg.eigh(covariance)
    inverse = np.linalg.inv(vectors @ np.diag(values + SHRINK * values.mean()) @ vectors.T)
    x = np.random.default_rng(1).normal(size=(20, 5)) * 3
    wanted = [mahalanobis(row, middle, inverse) / np.sqrt(5) for row in x]
    np.testing.assert_allclose(distance(x), wanted, rtol=1e-9)
    assert np.isnan(distance(np.full((1, 5), np.nan))).all()


def test_what_lies_off_the_kept_axes_counts() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(3, 200, 10)) * ([3, 2, 1] + [0.01] * 7)
    distance = Distance.fit(list(flat), floor=1e-6, n_axes=3)
    off = np.zeros((1, 10))
    off[0, 6] = 1.0
    assert distance(off)[0] > 20
    assert np.sqrt((distance(flat[0]) ** 2).mean()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("n", [2, 4, 10])
def test_slides_of_new_patients_seldom_have_more_than_the_share_outside(n: int) -> None:
    """In all of them, over training sets and patients; thresholds are not so wide that nothing else would lie outside."""
    broken, found = [], []
    for seed in range(40):
        distance, threshold = fitted(patients(n, seed=seed))
        new = patients(20, seed=1000 + seed)
        broken += [(distance(rows) > threshold).mean() > 0.05 for rows in new]
        found += [(distance(rows + 12) > threshold).mean() > 0.2 for rows in new]
    assert np.mean(broken) <= 0.05
    assert np.mean(found) == 1


def test_one_patient_gets_a_wide_threshold_as_nothing_is_known_of_others() -> None:
    groups = patients(1, rows=400)
    distance, threshold = fitted(groups)
    assert threshold > 2 * np.quantile(distance(groups[0]), 0.95)


def test_patients_weigh_the_same_however_many_patches_they_have() -> None:
    one, other = patients(2, rows=50, between=4)
    few = Distance.fit([one, other], floor=0.1, n_axes=5)
    many = Distance.fit([np.repeat(one, 9, axis=0), other], floor=0.1, n_axes=5)
    np.testing.assert_allclose(few(one), many(one))
