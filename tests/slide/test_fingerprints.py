"""Fingerprints: one and the same for the same content in any order and form, others for others, with any value."""

from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from spatialsig.slide.fingerprints import Names, Numbers, of_column

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(0.5, (90, 12)).astype(np.float32)
WITH = {"numbers": 1.0, "NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf, "minus zero": -0.0}


def numbers(values: np.ndarray | sparse.csr_matrix, order: np.ndarray) -> Numbers:
    table = ad.AnnData(values[order])
    table.obs_names = [f"cell {i}" for i in order]
    found = Numbers.of(table, "X", rows=Names(table.obs_names), columns=Names(table.var_names))
    assert found is not None
    return found


def holding(value: float) -> np.ndarray:
    values = COUNTS.copy()
    values[::7] = value
    return values


@pytest.mark.parametrize("value", WITH.values(), ids=WITH)
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_any_value_is_recorded_and_known_again(value: float, form: type) -> None:
    """Also by other software's JSON: rows without a label are NaN."""
    before = numbers(holding(value), np.arange(90))
    spots = json.loads(json.dumps(before.spots, allow_nan=False))
    assert numbers(form(holding(value)), RNG.permutation(90)).is_selection(spots)
    assert numbers(form(holding(value)), np.arange(0, 90, 2)).is_selection(spots)
    other = holding(value)
    other[1:] += 1
    assert not numbers(form(other), RNG.permutation(90)).is_selection(spots)
    assert not numbers(form(other), np.arange(0, 90, 2)).is_selection(spots)


def test_one_value_that_no_spot_holds_shows_in_the_sum() -> None:
    spots = numbers(holding(np.nan), np.arange(90)).spots
    changed = holding(np.nan)
    places = set(zip(spots["row"], spots["column"], strict=True))
    free = next(i for i in range(90) if (f"cell {i}", "5") not in places and np.isfinite(changed[i, 5]))
    changed[free, 5] += 1
    assert not numbers(changed, RNG.permutation(90)).is_selection(spots)


def test_a_table_without_cells_has_no_spots() -> None:
    assert numbers(COUNTS, np.arange(0)).spots == {}


@pytest.mark.parametrize("values", [["a", "b", None], [1.5, None, 2], [True, False, True]])
def test_a_column_has_one_fingerprint_whatever_kind_of_text_pandas_uses(values: list[object]) -> None:
    prints = set()
    for infer in (False, True):
        with pd.option_context("future.infer_string", infer):
            obs = pd.DataFrame({"x": values}, index=pd.Index(["c1", "c2", "c3"]))
            obs["kind"] = obs["x"].astype("category")
            table = ad.AnnData(np.zeros((3, 1)), obs=obs)
            prints.add((of_column(table.obs, "x"), of_column(table.obs, "kind")))
    assert len(prints) == 1
