"""Conformal risk control against an explicit search, and the promise against simulation."""

import math

import numpy as np
import pytest

from spatialsig.stats.conformal import left_out_risk, patients_needed, risk_threshold


def by_loop(scores: np.ndarray, wrong: np.ndarray, patients: np.ndarray, rate: float) -> set[int]:
    """Slides that the largest allowed threshold takes, by trying every one."""
    names = sorted(set(patients))
    best: set[int] = set()
    for threshold in [*sorted(set(scores[np.isfinite(scores)])), math.inf]:
        losses = [np.mean([wrong[i] and scores[i] < threshold for i in np.flatnonzero(patients == p)]) for p in names]
        if (sum(losses) + 1) / (len(names) + 1) <= rate + 1e-9:
            best = {i for i in range(len(scores)) if scores[i] < threshold}
    return best


@pytest.mark.parametrize("seed", range(60))
def test_threshold_is_that_of_an_explicit_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    scores = rng.integers(0, 12, n) / 4.0  # with ties
    scores[rng.random(n) < 0.1] = np.inf
    wrong, patients = rng.random(n) < 0.3, np.array([f"P{k}" for k in rng.integers(0, max(1, n // 2), n)])
    rate = float(rng.choice([0.05, 0.1, 0.2, 0.5]))
    threshold = risk_threshold(scores, wrong, patients, rate=rate)
    assert {i for i in range(n) if scores[i] < threshold} == by_loop(scores, wrong, patients, rate)


@pytest.mark.parametrize(("rate", "n"), [(0.05, 19), (0.1, 9), (0.2, 4), (0.5, 1), (0.3, 3)])
def test_fewer_patients_than_the_rate_needs_take_nothing(rate: float, n: int) -> None:
    assert patients_needed(rate) == n
    names = np.array([f"P{k}" for k in range(n)])
    right = np.zeros(n, bool)
    assert risk_threshold(np.ones(n), right, names, rate=rate) == math.inf
    assert risk_threshold(np.ones(n - 1), right[1:], names[1:], rate=rate) == -math.inf


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_new_patients_are_taken_and_wrong_no_more_often_than_stated(rate: float) -> None:
    rng = np.random.default_rng(7)
    risk, taken, measured = [], [], []
    for _ in range(600):
        score = rng.normal(size=41)
        wrong = rng.random(41) < 1 / (1 + np.exp(1 - 2 * score))
        names = np.array([f"P{k}" for k in range(40)])
        threshold = risk_threshold(score[:40], wrong[:40], names, rate=rate)
        risk.append(score[40] < threshold and wrong[40])
        taken.append(score[40] < threshold)
        if len(measured) < 60:
            measured.append(left_out_risk(score[:40], wrong[:40], names, rate=rate)[0])
    limit = 3 * math.sqrt(rate * (1 - rate) / 600)
    assert rate - 1 / 40 - limit - 1 / 41 <= np.mean(risk) <= rate + limit
    assert np.mean(taken) > 0.2
    assert np.mean(measured) == pytest.approx(np.mean(risk), abs=0.03)


def test_slides_of_one_patient_count_as_one_draw() -> None:
    """Nine right slides of one patient do not make up for two wrong ones of others."""
    scores = np.arange(13.0)
    wrong = np.array([False] * 9 + [True, True, False, False])
    patients = np.array(["A"] * 9 + ["B", "C", "D", "E"])
    assert risk_threshold(scores, wrong, patients, rate=0.4) == 10.0  # (1 + 1) / (5 + 1) is within, (2 + 1) / 6 is not
    assert math.isnan(left_out_risk(scores, wrong, patients, rate=0.15)[0])
