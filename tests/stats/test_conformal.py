"""Coverage of conformal intervals, against simulation and against closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom

from spatialsig.errors import InputError
from spatialsig.stats.conformal import conformal_quantile, left_out_coverage, slides_needed


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=60), st.floats(0.02, 0.98))
def test_the_order_statistic_by_hand(errors: list[float], coverage: float) -> None:
    rank = math.ceil((len(errors) + 1) * coverage - 1e-9)
    expected = sorted(errors)[rank - 1] if rank <= len(errors) else math.inf
    assert conformal_quantile(np.array(errors), coverage=coverage) == expected


@given(st.integers(1, 6), st.integers(1, 12), st.floats(0.05, 0.9), st.integers(0, 99))
def test_slides_of_one_size_change_nothing(n_slides: int, size: int, coverage: float, seed: int) -> None:
    errors = np.random.default_rng(seed).random(n_slides * size)
    slide = np.repeat(np.arange(n_slides), size)
    assert conformal_quantile(errors, coverage=coverage, groups=slide) == conformal_quantile(errors, coverage=coverage)


def test_coverage_is_exact_where_patches_are_exchangeable() -> None:
    """The number of new patches held follows a beta-binomial law, whatever the errors are like."""
    n, new, coverage, repeats = 39, 200, 0.9, 1500
    rng, held = np.random.default_rng(0), []
    for _ in range(repeats):
        draws = rng.standard_t(2, n + new) ** 2
        held.append(int((draws[n:] <= conformal_quantile(draws[:n], coverage=coverage)).sum()))
    rank = math.ceil((n + 1) * coverage)
    law = betabinom(new, rank, n + 1 - rank)
    standard_error = law.std() / math.sqrt(repeats)
    assert abs(np.mean(held) - law.mean()) < 4 * standard_error
    assert np.mean(held) / new == pytest.approx(coverage, abs=0.005)
    assert np.std(held) == pytest.approx(law.std(), rel=0.08)


def covered_on_new_slides(guarantee: str | None, *, n_slides: int, repeats: int = 1500) -> float:
    """Share of patches of a new slide held, where slides have errors of very different size."""
    rng, held = np.random.default_rng(1), []
    for _ in range(repeats):
        size = rng.integers(5, 40, n_slides + 1)
        scale = np.exp(rng.normal(scale=1.5, size=n_slides + 1))
        slide = np.repeat(np.arange(n_slides + 1), size)
        errors = np.abs(rng.normal(size=size.sum())) * scale[slide]
        known = slide < n_slides
        width = conformal_quantile(
            errors[known], coverage=0.8, groups=slide[known], **({"guarantee": guarantee} if guarantee else {})
        )
        held.append(float((errors[~known] <= width).mean()))
    return float(np.mean(held))


def test_only_the_guarantee_over_slides_holds_on_new_slides() -> None:
    assert covered_on_new_slides("slides", n_slides=9) > 0.8  # promised: at least 0.8
    assert covered_on_new_slides("patches", n_slides=2, repeats=2500) < 0.78  # a standard error is 0.006
    assert covered_on_new_slides("patches", n_slides=40, repeats=500) == pytest.approx(0.8, abs=0.04)


def test_a_large_slide_does_not_outvote_the_others() -> None:
    errors = np.r_[np.full(1000, 1.0), np.full(10, 5.0), np.full(10, 5.0)]
    slide = np.repeat(["large", "b", "c"], [1000, 10, 10])
    assert conformal_quantile(errors, coverage=0.8) == 1.0
    assert conformal_quantile(errors, coverage=0.8, groups=slide) == 5.0


def test_too_few_for_the_promise_is_infinite() -> None:
    assert conformal_quantile(np.ones(18), coverage=0.95) == math.inf
    assert conformal_quantile(np.ones(19), coverage=0.95) == 1.0
    assert conformal_quantile(np.full(3, np.nan), coverage=0.5) == math.inf
    slides = np.repeat(np.arange(18), 50)
    assert conformal_quantile(np.ones(900), coverage=0.95, groups=slides, guarantee="slides") == math.inf
    slides = np.repeat(np.arange(19), 50)
    assert conformal_quantile(np.ones(950), coverage=0.95, groups=slides, guarantee="slides") == 1.0
    assert (slides_needed(0.95), slides_needed(0.8), slides_needed(0.5)) == (19, 4, 1)


def test_unknown_truth_is_left_out() -> None:
    errors = np.array([3.0, np.nan, 1.0, 2.0, np.nan])
    assert conformal_quantile(errors, coverage=0.5) == 2.0
    assert conformal_quantile(errors, coverage=0.5, groups=np.array([0, 0, 0, 1, 1])) == 2.0


def test_each_slide_is_judged_by_the_others() -> None:
    rng = np.random.default_rng(0)
    errors = np.r_[rng.random(500), rng.random(500), 2 * rng.random(500)]
    slide = np.repeat(["a", "b", "c"], 500)
    held = left_out_coverage(errors, slide, coverage=0.9)
    assert held["c"] == pytest.approx(0.45, abs=0.05)  # the others' errors end at 1, its own at 2
    assert held["a"] == 1.0
    assert left_out_coverage(errors[:500], slide[:500], coverage=0.9) == {}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"coverage": 1.0}, "`coverage` must lie between 0 and 1, both excluded; got 1.0"),
        ({"coverage": 0.9, "guarantee": "cells"}, "`guarantee='cells'` is not known"),
    ],
)
def test_errors(kwargs: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        conformal_quantile(np.ones(3), **kwargs)
    with pytest.raises(InputError, match="errors must be at least 0; got -1"):
        conformal_quantile(np.array([1.0, -1.0]), coverage=0.5)
