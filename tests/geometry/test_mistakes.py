from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialsig.geometry.affine import apply
from spatialsig.geometry.mistakes import hypotheses

PIXEL = 0.2125
SWAP = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])


def planted(matrix: np.ndarray, points: np.ndarray, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """What the wrong matrix says about pixels ``points`` (x, y): the right matrix applied to the wrong points."""
    h, w = shape
    x, y = points.T
    seen_at = {
        "axes_swapped": (y, x),
        "flipped_x": (w - x, y),
        "flipped_y": (x, h - y),
        "rotated_90": (h - y, x),  # the top left corner of the slide is the top right one of the turned image
        "rotated_180": (w - x, h - y),
        "rotated_270": (y, w - x),
        "anti_transposed": (h - y, w - x),
    }
    return {name: apply(matrix, np.stack(xy, axis=1)) for name, xy in seen_at.items()}


@given(st.floats(-3, 3), st.booleans(), st.integers(100, 5000), st.integers(100, 5000))
def test_turned_and_mirrored_images_are_undone(angle, mirror, height, width) -> None:
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.array([[c, -s, 40], [s, c, -7], [0, 0, 1]]) @ np.diag([-1.3 if mirror else 1.3, 1.3, 1])
    points = np.array([[0.0, 0], [width, 0], [3, height], [17, 5]])
    found = {h.name: h for h in hypotheses(matrix, um_per_global=PIXEL, shape=(height, width))}
    for name, expected in planted(matrix, points, (height, width)).items():
        np.testing.assert_allclose(apply(found[name].he_to_um, points), PIXEL * expected, atol=1e-6)


def test_each_mistake_is_undone() -> None:
    """The reading of a wrong matrix places a point where the right matrix does."""
    right = np.array([[0.0, 1.3, 40], [-1.25, 0.02, 900], [0, 0, 1]])
    unit = np.diag([PIXEL, PIXEL, 1])
    wrong = {
        "cells_swapped": SWAP @ right,
        "inverse": np.linalg.inv(right),
        "um_as_px": unit @ right,
        "px_as_um": np.linalg.inv(unit) @ right,
        "he_half_size": right @ np.diag([2.0, 2, 1]),
        "he_double_size": right @ np.diag([0.5, 0.5, 1]),
    }
    he = np.array([[12.0, 34.0], [100, 5]])
    um = PIXEL * apply(right, he)
    for name, matrix in wrong.items():
        (reading,) = [h for h in hypotheses(matrix, um_per_global=PIXEL, shape=(500, 700)) if h.name == name]
        np.testing.assert_allclose(apply(reading.he_to_um, he), um, atol=1e-9)
    units = {f"pixel_size_{n}_too_{word}": n**power for n in (2, 10) for word, power in (("large", 1), ("small", -1))}
    for name, factor in units.items():
        readings = hypotheses(right, um_per_global=PIXEL * factor, shape=(500, 700))
        (reading,) = [h for h in readings if h.name == name]
        np.testing.assert_allclose(apply(reading.he_to_um, he), um, atol=1e-9)
    (reading,) = [h for h in hypotheses(right, um_per_global=PIXEL, shape=(5, 7)) if h.name == "cells_in_px"]
    np.testing.assert_allclose(apply(reading.cells_to_um, um / PIXEL), um)


def test_as_set_comes_first_and_names_are_unique() -> None:
    found = hypotheses(np.eye(3), um_per_global=PIXEL, shape=(5, 7))
    assert found[0].name == "as_set"
    np.testing.assert_allclose(found[0].he_to_um, np.diag([PIXEL, PIXEL, 1]))
    assert len({h.name for h in found}) == len(found) == 19
    assert all(h.mistake and h.fix and not h.fix.endswith(".") for h in found)


@pytest.mark.parametrize(
    ("name", "wanted"), [("pixel_size_10_too_large", "= 0.02125"), ("pixel_size_10_too_small", "= 2.125")]
)
def test_fix_says_the_number(name, wanted) -> None:
    (reading,) = [h for h in hypotheses(np.eye(3), um_per_global=PIXEL, shape=(5, 7)) if h.name == name]
    assert wanted in reading.fix
