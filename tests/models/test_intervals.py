"""Bounds of predictions from what a model carries, and records that cannot be believed."""

from __future__ import annotations

import numpy as np
import pytest

from spatialsig.errors import InputError
from spatialsig.models.intervals import bounds, checked_intervals

NAMES = ("a", "b", "c")
RECORD = {
    "coverage": 0.9, "guarantee": "slides", "n_views": 1, "scaled": False, "width": [0.5, None, 0], "samples": ["S1"],
}  # fmt: skip


@pytest.mark.parametrize("scaled", [False, True])
def test_bounds_are_a_width_to_either_side_and_nan_where_not_calibrated(scaled: bool) -> None:
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=(4, 3)), rng.uniform(0.1, 2, (4, 3))
    low, high = bounds(RECORD | {"scaled": scaled}, mean, std)
    for i in range(4):
        for k, width in enumerate((0.5, np.nan, 0.0)):
            half = width * std[i, k] if scaled else width
            np.testing.assert_allclose([low[i, k], high[i, k]], [mean[i, k] - half, mean[i, k] + half], rtol=1e-6)
    assert low.dtype == high.dtype == np.float32


def test_widths_of_the_labels_need_no_deviation_and_those_of_the_model_do() -> None:
    mean = np.zeros((2, 3), np.float32)
    assert bounds(RECORD, mean, None)[1][:, 0].tolist() == [0.5, 0.5]
    with pytest.raises(InputError, match="multiples of the model's deviation, and the model gives none"):
        bounds(RECORD | {"scaled": True}, mean, None)


def test_a_whole_record_is_given_back_and_none_is_none() -> None:
    value = {"H&E": RECORD, "H&E + X_ae": RECORD | {"width": [1, 2.5, None]}}
    assert checked_intervals(value, NAMES, where="config.json") == value
    assert checked_intervals(None, NAMES, where="config.json") is None


@pytest.mark.parametrize("value", [[], {}, "H&E", 0.9])
def test_what_is_no_mapping_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="config.json: `intervals` is .*; wanted null or a record per kind of input"):
        checked_intervals(value, NAMES, where="config.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coverage", 1), ("coverage", None), ("guarantee", 3), ("n_views", True), ("n_views", 1.0), ("scaled", 1),
        ("samples", "S1"), ("width", None), ("width", [0.5, 1.0]), ("width", [0.5, 1.0, 1.0, 1.0]),
        ("width", [0.5, 1.0, -0.1]), ("width", [0.5, 1.0, float("inf")]), ("width", [0.5, 1.0, float("nan")]),
        ("width", [0.5, 1.0, True]), ("width", [0.5, 1.0, "1"]),
    ],
)  # fmt: skip
def test_one_wrong_entry_is_named_with_its_kind_of_input(name: str, value: object) -> None:
    damaged = {"H&E": RECORD, "fused": RECORD | {name: value}}
    with pytest.raises(InputError, match=rf"intervals of 'fused' are damaged \(.*{name}.*\); wanted 3 widths"):
        checked_intervals(damaged, NAMES, where="config.json")
