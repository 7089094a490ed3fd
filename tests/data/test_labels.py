"""Labels of several slides joined: rows in the order of the slides, and errors that name the slide."""

from __future__ import annotations

import numpy as np
import pytest

from spatialsig.data.labels import checked_weight, stacked
from spatialsig.data.patches import ImageLevel, PatchSource
from spatialsig.errors import InputError

IMAGE = ImageLevel(np.zeros((3, 40, 40), np.uint8), (40, 40))
SOURCES = [PatchSource(name, (IMAGE,), np.zeros((n, 2), np.int64), 8, 8) for name, n in (("A", 3), ("B", 2), ("C", 1))]


def test_rows_follow_the_slides_and_what_is_not_measured_stays_nan() -> None:
    parts = [10.0 * k + np.arange(2 * len(source)).reshape(-1, 2) for k, source in enumerate(SOURCES)]
    parts[1][1, 0] = np.nan
    joined = stacked(SOURCES, parts, name="targets", ndim=2)
    assert joined.dtype == np.float32
    np.testing.assert_array_equal(joined, [[0, 1], [2, 3], [4, 5], [10, 11], [np.nan, 13], [20, 21]])
    assert stacked(SOURCES, [np.ones(len(s)) for s in SOURCES], name="weights", ndim=1).shape == (6,)


@pytest.mark.parametrize(
    ("shapes", "ndim", "message"),
    [
        ([(3, 2), (2, 2)], 2, "`ae` holds 2 arrays for 3 slides"),
        ([(3, 2), (1, 2), (1, 2)], 2, r"slide 'B': `ae` of shape \(1, 2\); wanted 2 rows of \(2,\)\."),
        ([(3, 2), (2, 2), (1, 4)], 2, r"slide 'C': `ae` of shape \(1, 4\); wanted 1 rows of \(2,\)\."),
        ([(3,), (2,), (1,)], 2, r"slide 'A': `ae` of shape \(3,\); wanted 3 rows of \(\)\."),
        ([(3,), (2,), (1, 1)], 1, r"slide 'C': `ae` of shape \(1, 1\); wanted 1 rows\."),
    ],
)
def test_what_does_not_fit_is_told_with_its_slide(shapes: list[tuple[int, ...]], ndim: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        stacked(SOURCES, [np.zeros(shape) for shape in shapes], name="ae", ndim=ndim)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39])  # the last is no float32
def test_infinite_values_are_refused(value: float) -> None:
    parts = [np.zeros(3), np.array([0.0, value]), np.zeros(1)]
    with pytest.raises(InputError, match="`targets` holds infinite values; use NaN"), np.errstate(over="ignore"):
        stacked(SOURCES, parts, name="targets", ndim=1)


@pytest.mark.parametrize(
    ("weight", "fine"),
    [([0, 0, 2], True), ([0, 0, 0], False), ([1, -1e-9, 1], False), ([1, np.nan, 1], False), ([1, np.inf, 1], False)],
)
def test_weights_are_finite_never_negative_and_not_all_zero(weight: list[float], fine: bool) -> None:
    given = np.array(weight, np.float32)
    if fine:
        assert checked_weight(given) is given
        return
    with pytest.raises(InputError, match="`weights` must be finite, at least 0, and not all 0"):
        checked_weight(given)
