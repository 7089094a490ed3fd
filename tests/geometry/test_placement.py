"""A matrix places an image if it turns, mirrors, scales and shifts; whatever else it does is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialsig.errors import AlignmentError, SpatialsigWarning
from spatialsig.geometry.placement import MAX_ANISOTROPY, USUAL_ANISOTROPY, check_place, warn_stretched

ANGLES = st.floats(-4, 4)


def matrix(angle: float, first: float, second: float, turn: float, mirror: bool) -> np.ndarray:
    """Of any linear map: a turn, the stretch of each axis, and another turn."""

    def rotation(by: float) -> np.ndarray:
        return np.array([[np.cos(by), -np.sin(by)], [np.sin(by), np.cos(by)]])

    out = np.eye(3)
    out[:2, :2] = rotation(angle) @ np.diag([first, -second if mirror else second]) @ rotation(turn)
    out[:2, 2] = 1e6 * angle, -20.0
    return out


@given(ANGLES, st.floats(1e-4, 1e4), st.floats(1, MAX_ANISOTROPY - 1e-6), ANGLES, st.booleans())
def test_similar_ones_place_an_image(angle, scale, stretch, turn, mirror) -> None:
    check_place(matrix(angle, scale, scale * stretch, turn, mirror), name="it", fix="mend it")


@given(ANGLES, st.floats(1e-4, 1e4), st.floats(MAX_ANISOTROPY + 1e-6, 900), ANGLES, st.booleans())
def test_squeezed_and_sheared_ones_do_not(angle, scale, stretch, turn, mirror) -> None:
    one = matrix(angle, scale, scale * stretch, turn, mirror)
    with pytest.raises(AlignmentError, match=r"it stretches one axis .* times more than the other; wanted below 1.2"):
        check_place(one, name="it", fix="mend it")
    check_place(one, name="it", fix="mend it", similar=False)  # what is drawn on an image may be


@pytest.mark.parametrize("similar", [True, False])
@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([[1, 0, 0], [0, 0, 0], [0, 0, 1]], "is singular"),
        ([[1, 0, 0], [0, 1e-5, 0], [0, 0, 1]], "is nearly singular"),
        ([[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]], "holds 1 NaN or infinite numbers"),
        ([[1, 0, np.inf], [0, 1, 0], [0, 0, 1]], "holds 1 NaN or infinite numbers"),
        ([[1, 0, 0], [0, 1, 0], [0, 1, 1]], "has last row"),
        ([[1, 0], [0, 1]], r"has shape \(2, 2\)"),
    ],
)
def test_what_has_no_inverse_places_nothing(values, what, similar) -> None:
    with pytest.raises(AlignmentError, match=f"it {what}"):
        check_place(values, name="it", fix="mend it", similar=similar)


def test_a_stretch_within_the_limit_is_told() -> None:
    warn_stretched(np.diag([1, USUAL_ANISOTROPY - 0.01, 1]), name="it")
    with pytest.warns(SpatialsigWarning, match=r"it stretches one axis 1.15 times more .* used as it is"):
        warn_stretched(np.diag([1, 1.15, 1]), name="it")
