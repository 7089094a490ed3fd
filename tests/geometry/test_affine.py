from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatialsig.errors import AlignmentError, FileMissingError, InputError, SpatialsigWarning
from spatialsig.geometry.affine import apply, check_alignment, image_um_per_px, read_alignment, um_to_he_px

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "alignment_examples"
PIXEL_SIZE = 0.2125
GOOD = "0.0018,0.644,1154.5\n-0.644,0.0018,13229.6\n0,0,1\n"


def similarity(angle: float, scale: float, shift: tuple[float, float], *, mirror: bool = False) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.array([[c, -s], [s, c]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
    matrix[:2, 2] = shift
    return matrix


MATRICES = st.builds(
    similarity,
    st.floats(-np.pi, np.pi),
    st.floats(0.5, 4.0),
    st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
    mirror=st.booleans(),
)
POINTS = st.lists(st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)), min_size=1, max_size=8).map(np.array)
PIXELS = st.floats(0.1, 0.5)


@given(MATRICES, POINTS, PIXELS)
def test_um_to_he_undoes_he_to_um(matrix, he_px, pixel_size) -> None:
    um = pixel_size * apply(matrix, he_px)
    np.testing.assert_allclose(apply(um_to_he_px(matrix, pixel_size), um), he_px, atol=1e-6)


@given(MATRICES, POINTS)
def test_apply_is_the_product_with_homogeneous_columns(matrix, points) -> None:
    expected = [(matrix @ [x, y, 1.0])[:2] for x, y in points]
    np.testing.assert_allclose(apply(matrix, points), expected, rtol=1e-12, atol=1e-9)


@given(MATRICES, MATRICES, POINTS)
def test_maps_compose_like_matrices(first, second, points) -> None:
    np.testing.assert_allclose(apply(second, apply(first, points)), apply(second @ first, points), rtol=1e-9, atol=1e-6)


@given(MATRICES, PIXELS)
def test_pixel_size_is_the_length_of_one_step(matrix, pixel_size) -> None:
    corner, right, down = apply(matrix, [[0, 0], [1, 0], [0, 1]])
    for step in (right - corner, down - corner):
        # differences of numbers up to 1e5
        assert image_um_per_px(matrix, pixel_size) == pytest.approx(pixel_size * np.hypot(*step), abs=1e-9)


@given(MATRICES)
def test_every_turn_and_mirror_is_accepted(matrix) -> None:
    check_alignment(matrix, pixel_size=PIXEL_SIZE, name="a")


@given(st.floats(0.1, 2.0))
def test_known_point_of_a_quarter_turn(pixel_size) -> None:
    matrix = np.array([[0, 2, 5], [-2, 0, 7], [0, 0, 1.0]])
    np.testing.assert_allclose(apply(matrix, [[3, 4]]), [[13, 1]])
    np.testing.assert_allclose(apply(um_to_he_px(matrix, pixel_size), [[13 * pixel_size, 1 * pixel_size]]), [[3, 4]])


def test_last_row_stays_exact() -> None:
    assert um_to_he_px(similarity(0.3, 0.7, (3e4, 2e4)), PIXEL_SIZE)[2].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace(",", ", "),
        GOOD.replace(",", "\t"),
        GOOD.replace(",", ";").replace(".", ","),
        "\n" + GOOD + "\n\n",
        GOOD.replace("0.0018", "1.8e-3"),
    ],
    ids=["plain", "bom", "crlf", "blanks", "tabs", "decimal comma", "empty lines", "exponents"],
)
def test_numbers_are_read_however_they_are_written(tmp_path, text) -> None:
    file = tmp_path / "a.csv"
    file.write_text(text, encoding="utf-8", newline="")
    expected = [[0.0018, 0.644, 1154.5], [-0.644, 0.0018, 13229.6], [0, 0, 1]]
    np.testing.assert_array_equal(read_alignment(file, pixel_size=PIXEL_SIZE).matrix, expected)
    assert read_alignment(str(file), pixel_size=PIXEL_SIZE).matrix.dtype == np.float64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,0,0\n0,1,0\n", r"has 2 row\(s\) of \[3\] numbers; wanted three rows"),
        ("1,0\n0,1\n0,0\n", r"has 3 row\(s\) of \[2\] numbers"),
        ("1,0,0\n0,1\n0,0,1\n", r"has 3 row\(s\) of \[2, 3\] numbers"),
        ("", r"has 0 row\(s\) of \[\] numbers"),
        ("a,b,c\n" + GOOD, "holds text .*'a'.*remove the header"),
        ("fixedX,fixedY,alignmentX,alignmentY\n1,2,3,4\n", r"has 1 point\(s\); wanted at least 3"),
    ],
    ids=["2x3", "3x2", "ragged", "empty", "header", "keypoints"],
)
def test_other_files_are_refused(tmp_path, text, message) -> None:
    file = tmp_path / "slide_he_imagealignment.csv"
    file.write_text(text)
    with pytest.raises(AlignmentError, match=f"slide_he_imagealignment.csv' {message}"):
        read_alignment(file, pixel_size=PIXEL_SIZE)


def test_binary_and_missing_files_are_named(tmp_path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(AlignmentError, match="is not a text file"):
        read_alignment(tmp_path / "a.csv", pixel_size=PIXEL_SIZE)
    with pytest.raises(FileMissingError, match=r"alignment of the H&E: missing .*b.csv"):
        read_alignment(tmp_path / "b.csv", pixel_size=PIXEL_SIZE)


def altered(**entries: float) -> np.ndarray:
    matrix = similarity(0.3, 0.9, (10, 20))
    for name, value in entries.items():
        matrix[int(name[1]), int(name[2])] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3)[:2], r"has shape \(2, 3\); wanted \(3, 3\)"),
        (altered(m01=np.nan), "holds 1 NaN or infinite numbers; wanted finite"),
        (altered(m12=np.inf), "holds 1 NaN or infinite"),
        (altered(m20=0.001), r"has last row \[0.001, 0.0, 1.0\]; wanted 0, 0, 1"),
        (similarity(0.3, 0.9, (10, 20)).T, "has last row .*transpose it"),
        (np.diag([1e-4, 1e-4, 1]), r"is singular \(\|det\| = 1e-08\); wanted \|det\| > 1e-06"),
        (np.array([[1, 2, 0], [2, 4, 0], [0, 0, 1.0]]), "is singular"),
        (np.diag([2.0, 0.001, 1]), r"is nearly singular \(condition 2e\+03\); wanted below 1000"),
        (np.diag([1.0, 1.25, 1]), "stretches one axis 1.25 times more than the other; wanted below 1.2"),
        (np.diag([0.4, 0.4, 1]), "implies an H&E pixel of 0.085 um; wanted 0.1-2.0 um: check pixel_size=0.2125"),
        (np.diag([10.0, 10.0, 1]), "implies an H&E pixel of 2.13 um"),
    ],
)
def test_impossible_matrices_are_refused(matrix, message) -> None:
    with pytest.raises(AlignmentError, match=f"^alignment 'slide 7' {message}"):
        check_alignment(matrix, pixel_size=PIXEL_SIZE, name="slide 7")


@pytest.mark.parametrize("pixel_size", [0.0, -1.0, np.nan, np.inf])
def test_impossible_pixel_sizes_are_refused(pixel_size) -> None:
    with pytest.raises(InputError, match="`pixel_size` must be a finite number above 0"):
        check_alignment(np.eye(3), pixel_size=pixel_size, name="a")


@pytest.mark.real
def test_real_alignment() -> None:
    if not REAL.exists():
        pytest.skip(f"real data {REAL.name} is not beside the checkout")
    matrix, same = (
        read_alignment(file, pixel_size=PIXEL_SIZE).matrix
        for file in (next(REAL.glob("*_he_imagealignment.csv")), REAL / "alignment_matrix.csv")
    )
    np.testing.assert_array_equal(matrix, same)
    check_alignment(matrix, pixel_size=PIXEL_SIZE, name="melanoma")
    assert image_um_per_px(matrix, PIXEL_SIZE) == pytest.approx(PIXEL_SIZE * 0.644, rel=1e-3)
    # a quarter turn: one step to the right in the H&E goes up in the morphology image
    np.testing.assert_allclose(apply(matrix, [[1, 0]]) - apply(matrix, [[0, 0]]), [[0, -0.644]], atol=2e-3)


PLAIN = "0.9,0,5\n0,0.9,7\n0,0,1\n"
KEYPOINTS = "fixedX,fixedY,alignmentX,alignmentY\n5,7,0,0\n905,7,1000,0\n5,907,0,1000\n905,907,1000,1000\n"
EXPORTS = {
    "both": ({"matrix.csv": PLAIN, "keypoints.csv": KEYPOINTS}, "matrix"),
    "in a folder": ({"align/Matrix.CSV": PLAIN, "__MACOSX/align/matrix.csv": "no", "align/notes.txt": "x"}, "matrix"),
    "matrix": ({"matrix.csv": PLAIN}, "matrix"),
    "keypoints": ({"keypoints.csv": KEYPOINTS}, "keypoints"),
    "two": ({"a/matrix.csv": PLAIN, "b/matrix.csv": PLAIN}, "with 2 alignments; wanted one matrix.csv"),
    "neither": ({"a.csv": PLAIN, "b.csv": "x"}, "with a.csv, b.csv; wanted one matrix.csv or keypoints.csv"),
    "empty": ({}, "with nothing; wanted one matrix.csv"),
    "text": ({"matrix.csv": "a,b,c"}, "matrix.csv' holds text"),
}


def exported(path: Path, files: dict[str, str], *, zipped: bool) -> Path:
    """The same files as a zip, or as a folder of what lies at the top of it."""
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return path
    path.mkdir()
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    nested = path / "align"
    return nested if nested.is_dir() else path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "folder"])
@pytest.mark.parametrize("case", EXPORTS)
def test_what_xenium_explorer_exports_is_read_or_refused_with_what_to_give(tmp_path, case, zipped) -> None:
    files, expected = EXPORTS[case]
    path = exported(tmp_path / "export", files, zipped=zipped)
    if case == "two" and not zipped:
        expected = "with nothing"
    if expected in ("matrix", "keypoints"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read = read_alignment(path, pixel_size=0.2125)
        assert read.kind == expected
        np.testing.assert_allclose(read.matrix, [[0.9, 0, 5], [0, 0.9, 7], [0, 0, 1]], atol=1e-9)
    else:
        with pytest.raises(AlignmentError, match=expected):
            read_alignment(path, pixel_size=0.2125)


def test_a_matrix_that_misses_its_keypoints_is_told(tmp_path) -> None:
    inverse = "\n".join(",".join(map(str, row)) for row in np.linalg.inv([[0.9, 0, 5], [0, 0.9, 7], [0, 0, 1]]))
    path = exported(tmp_path / "e.zip", {"matrix.csv": inverse, "keypoints.csv": KEYPOINTS}, zipped=True)
    with pytest.warns(
        SpatialsigWarning, match=r"e.zip/matrix.csv' misses the points of keypoints.csv beside it by 4\d"
    ):
        read_alignment(path, pixel_size=0.2125)


def test_damaged_and_locked_zips_are_named(tmp_path) -> None:
    path = exported(tmp_path / "e.zip", {"matrix.csv": PLAIN}, zipped=True)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(PLAIN.encode(), PLAIN.replace("5", "6").encode()))
    with pytest.raises(AlignmentError, match=r"e.zip/matrix.csv' cannot be unpacked \(Bad CRC-32"):
        read_alignment(path, pixel_size=0.2125)
    locked = bytearray(whole)
    locked[6] |= 1
    locked[whole.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(locked))
    with pytest.raises(AlignmentError, match=r"cannot be unpacked \(.*password required"):
        read_alignment(path, pixel_size=0.2125)
    path.write_bytes(whole[:-10])
    with pytest.raises(AlignmentError, match="e.zip"):
        read_alignment(path, pixel_size=0.2125)
