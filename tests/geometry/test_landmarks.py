from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from spatialsig.errors import AlignmentError, SpatialsigWarning
from spatialsig.geometry.affine import apply, fit_landmarks, read_alignment
from spatialsig.geometry.landmarks import fit_affine, parse_keypoints

RNG = np.random.default_rng(0)
HE = RNG.uniform(0, 3e4, (8, 2))
TRUTH = np.array([[0.0018, 0.644, 1154.5], [-0.644, 0.0018, 13229.6], [0, 0, 1]])


def xenium_explorer(he: np.ndarray, fixed: np.ndarray) -> str:
    rows = [f"{fx!r},{fy!r},{ax!r},{ay!r}" for (ax, ay), (fx, fy) in zip(he.tolist(), fixed.tolist(), strict=True)]
    return "\n".join(["fixedX,fixedY,alignmentX,alignmentY", *rows, ""])


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.integers(0, 2**31), st.integers(3, 20), st.floats(0, 1e5))
def test_exact_points_give_the_matrix_back(linear, seed, n_points, far) -> None:
    rng = np.random.default_rng(seed)
    source = far + rng.uniform(0, 1e4, (n_points, 2))
    planted = np.eye(3)
    planted[:2, :2] = np.reshape(linear, (2, 2)) + 5 * np.eye(2)  # never singular
    planted[:2, 2] = rng.uniform(-1e5, 1e5, 2)
    if np.linalg.svd(source - source.mean(axis=0), compute_uv=False)[1] < 100:
        return
    matrix, residuals = fit_affine(source, apply(planted, source))
    np.testing.assert_allclose(apply(matrix, source), apply(planted, source), atol=1e-4)
    np.testing.assert_allclose(matrix[:2, :2], planted[:2, :2], atol=1e-6)
    assert np.abs(residuals).max() < 1e-4


def test_noisy_points_give_the_least_squares_of_an_independent_minimiser() -> None:
    source, noise = RNG.uniform(0, 10, (9, 2)), RNG.normal(size=(9, 2))
    target = apply(TRUTH, source) + noise

    def loss(p: np.ndarray) -> float:
        mapped = np.stack(
            [p[0] * source[:, 0] + p[1] * source[:, 1] + p[2], p[3] * source[:, 0] + p[4] * source[:, 1] + p[5]], 1
        )
        return float(((mapped - target) ** 2).sum())

    best = minimize(loss, TRUTH[:2].ravel(), method="BFGS", tol=1e-10)
    matrix, residuals = fit_affine(source, target)
    np.testing.assert_allclose(matrix[:2].ravel(), best.x, rtol=1e-3, atol=1e-3)
    assert (residuals**2).sum() == pytest.approx(best.fun, rel=1e-9)
    np.testing.assert_allclose(residuals, target - apply(matrix, source), atol=1e-9)


def test_all_points_count_not_the_first_three() -> None:
    target = apply(TRUTH, HE)
    target[7] += [400, 0]
    matrix, residuals = fit_affine(HE, target)
    first_three, _ = fit_affine(HE[:3], target[:3])
    assert np.abs(matrix - first_three).max() > 1e-3
    assert np.abs(residuals[7]).max() > 50


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (HE[:2], HE[:2], r"'pts' has 2 point\(s\); wanted at least 3"),
        (np.outer(np.arange(5), [1, 2]), RNG.random((5, 2)), "'pts': the 5 points lie on a line .* on the H&E"),
        (RNG.random((5, 2)), np.outer(np.arange(5), [1, 2]), "lie on a line .* on the target"),
        (np.ones((4, 2)), HE[:4], "lie on a line"),
        (HE[:4], HE[:5], r"shape \(4, 2\) and \(5, 2\); wanted pairs"),
        (np.vstack([HE[:3], [[np.nan, 1]]]), HE[:4], "1 of 4 points are not finite, first point 4"),
    ],
)
def test_points_that_fix_no_affine_are_refused(source, target, message) -> None:
    with pytest.raises(AlignmentError, match=message):
        fit_affine(source, target, name="pts")


def test_keypoints_of_xenium_explorer(tmp_path) -> None:
    file = tmp_path / "slide_keypoints.csv"
    file.write_text(xenium_explorer(HE, apply(TRUTH, HE)))
    he, fixed = parse_keypoints(file.read_text(), name="k")
    np.testing.assert_array_equal(he, HE)
    np.testing.assert_array_equal(fixed, apply(TRUTH, HE))
    alignment = read_alignment(file, pixel_size=0.2125)
    np.testing.assert_allclose(alignment.matrix, TRUTH, atol=1e-6)
    assert (alignment.kind, alignment.n_points) == ("keypoints", 8)
    assert alignment.rmse_um == pytest.approx(0, abs=1e-6)


def test_rmse_is_in_micrometres(tmp_path) -> None:
    # a square whose corners are pushed out in turn: no affine can follow, every corner keeps its 20 px
    square = np.array([[0, 0], [1000, 0], [1000, 1000], [0, 1000.0]])
    pushed = square + 20 * np.array([[1, 0], [-1, 0], [1, 0], [-1, 0]])
    file = tmp_path / "k.csv"
    file.write_text(xenium_explorer(square, pushed))
    alignment = read_alignment(file, pixel_size=0.2125)
    assert alignment.rmse_um == pytest.approx(20 * 0.2125)
    np.testing.assert_allclose(alignment.matrix, np.eye(3), atol=1e-9)
    with pytest.warns(
        SpatialsigWarning, match=r"k.csv': 4 points miss .* by 20.0 um .*wanted at most 10.*the worst is point"
    ):
        read_alignment(file, pixel_size=1.0)


def test_worst_point_is_named() -> None:
    target = apply(TRUTH, HE)
    target[5] += [300, 0]
    with pytest.warns(SpatialsigWarning, match=r"the worst is point 6 with"):
        fit_landmarks(HE, target, um_per_target=0.2125, name="a")


def test_three_points_have_no_rmse(tmp_path) -> None:
    alignment = fit_landmarks(
        HE[:3], apply(TRUTH, HE[:3]) + RNG.normal(scale=50, size=(3, 2)), um_per_target=1, name="a"
    )
    assert alignment.rmse_um is None
    assert alignment.n_points == 3


def test_matrix_file_has_no_rmse(tmp_path) -> None:
    np.savetxt(tmp_path / "m.csv", TRUTH, delimiter=",")
    alignment = read_alignment(tmp_path / "m.csv", pixel_size=0.2125)
    assert (alignment.kind, alignment.rmse_um, alignment.n_points) == ("matrix", None, 0)
    np.testing.assert_array_equal(alignment.matrix, TRUTH)


@pytest.mark.parametrize(
    "text",
    [
        "name,target_y,target_x,he_x,he_y\na,4,3,1,2\nb,40,30,10,20\n",
        "alignmentY;fixedX;fixedY;alignmentX\n2,0;3;4;1\n20;30;40;10,0\n",
        '"Pt-0","true","1","2","3","4"\n"Pt-1","false","Infinity","7","8","9"\n"Pt-2","true","10","20","30","40"\n',
        "\ufeff FixedX , FixedY , AlignmentX , AlignmentY \r\n3,4,1,2\r\n\r\n30,40,10,20\r\n",
    ],
    ids=["own names in any order", "decimal comma", "bigwarp", "bom and blanks"],
)
def test_layouts(tmp_path, text) -> None:
    file = tmp_path / "k.csv"
    file.write_text(text, encoding="utf-8", newline="")
    he, target = parse_keypoints(file.read_text(encoding="utf-8-sig"), name="k")
    np.testing.assert_array_equal(he, [[1, 2], [10, 20]])
    np.testing.assert_array_equal(target, [[3, 4], [30, 40]])


@pytest.mark.parametrize("text", ["x,y\n1,2\n", ""])
def test_other_tables_hold_no_keypoints(text) -> None:
    assert parse_keypoints(text, name="k") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fixedX,fixedY,alignmentX,alignmentY\n1,2,3,4\n1,2,3,b\n", "k.csv': point 2 reads .*correct that line"),
        ("fixedX,fixedY,alignmentX,alignmentY\n1,2,3\n", "point 1 reads"),
    ],
)
def test_broken_points_are_named(tmp_path, text, message) -> None:
    (tmp_path / "k.csv").write_text(text)
    with pytest.raises(AlignmentError, match=message):
        read_alignment(tmp_path / "k.csv", pixel_size=0.2125)


def test_too_few_keypoints_name_the_file(tmp_path) -> None:
    file = tmp_path / "two.csv"
    file.write_text(xenium_explorer(HE[:2], HE[:2]))
    with pytest.raises(AlignmentError, match=r"two.csv' has 2 point\(s\)"):
        read_alignment(file, pixel_size=0.2125)
