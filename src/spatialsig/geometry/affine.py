"""Alignments of H&E images read, checked and applied: the matrix that places an H&E over the cells.

Three spaces meet here: micrometres, Xenium morphology pixels (``global``) and H&E pixels. An *alignment* is a
3 x 3 matrix on column vectors ``(x, y, 1)`` that maps full-resolution H&E pixels to morphology pixels.

Floor 1, above the ground floor. Used by 14 modules of datasets, evaluation, io, maps, pl, pp, slide.
"""

from __future__ import annotations

import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from spatialsig._checks import check_files, check_positive, first_few, number_in, warn
from spatialsig._files import content_hint
from spatialsig._text import decoded
from spatialsig.errors import AlignmentError, InputError
from spatialsig.geometry.landmarks import fit_affine, parse_keypoints, rms_length
from spatialsig.geometry.placement import check_place, warn_stretched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

MIN_DETERMINANT = 1e-6
HE_UM_PER_PX = (0.1, 2.0)  # what a slide scanner delivers
MAX_RMSE_UM = 10.0  # labels of 112-um patches lose little below this residual

_WANTED = (
    "three rows of three numbers without a header, H&E px (x, y) to morphology px (x, y), or keypoints with the columns "
    "fixedX, fixedY, alignmentX, alignmentY"
)
_EXPORT_AGAIN = "export the alignment matrix of the H&E from Xenium Explorer again"
_EXPORTED = ("matrix.csv", "keypoints.csv")  # what Xenium Explorer puts into one zip, the better one first


@dataclass(frozen=True)
class Alignment:
    """Alignment read from a file."""

    matrix: NDArray[np.float64]  # ``(3, 3)``: full-resolution H&E px (x, y, 1) -> morphology px
    kind: Literal["matrix", "keypoints"]  # whether the file held the matrix or keypoints
    # root mean square distance of the keypoints from the fit, um; None for a matrix, and for three keypoints, which
    # any affine joins exactly
    rmse_um: float | None
    n_points: int  # number of keypoints; 0 for a matrix


def fit_landmarks(he_px: ArrayLike, target_px: ArrayLike, *, um_per_target: float, name: str) -> Alignment:
    """Alignment from pairs of points, ``(n, 2)`` each; ``um_per_target`` is the length of a unit of the target.

    Raises
    ------
    AlignmentError
        If there are fewer than three pairs, or they lie on a line.

    Warns
    -----
    SpatialsigWarning
        If the points miss the fit by more than 10 um (root mean square); the worst one is named.
    """
    check_positive(um_per_target=um_per_target)
    matrix, residuals = fit_affine(he_px, target_px, name=name)
    if len(residuals) == 3:
        return Alignment(matrix, "keypoints", None, 3)
    rmse_um = um_per_target * rms_length(residuals)
    if rmse_um > MAX_RMSE_UM:
        lengths = um_per_target * np.hypot(*residuals.T)
        msg = (
            f"{name!r}: {len(residuals)} points miss the affine that fits them best by {rmse_um:.1f} um (root mean "
            f"square; wanted at most {MAX_RMSE_UM:g}); the worst is point {int(lengths.argmax()) + 1} with "
            f"{lengths.max():.1f} um: place it again, or leave it out."
        )
        warn(msg)
    return Alignment(matrix, "keypoints", rmse_um, len(residuals))


def read_alignment(path: str | Path, *, pixel_size: float) -> Alignment:
    """Read the alignment of an H&E: a headerless 3 x 3 ``*_he_imagealignment.csv``, or keypoints of Xenium Explorer.

    The zip that Xenium Explorer exports, and the folder that it becomes, stand for their ``matrix.csv``, or else their
    ``keypoints.csv``; where both are there, the matrix has to fit the keypoints.
    Decimal points with commas (or blanks, tabs) between the numbers, and decimal commas with semicolons, are read.
    Keypoints (``fixedX, fixedY, alignmentX, alignmentY``; any order, other columns are ignored) are joined by least
    squares over all of them. Keypoints with the header ``he_x, he_y, target_x, target_y`` and landmarks of BigWarp (H&E
    moving, target fixed; inactive points are left out) are read as well.

    Parameters
    ----------
    path
        File to read, a zip or a folder.
    pixel_size
        Micrometres per morphology px.

    Returns
    -------
    The matrix, and how well keypoints fit it. Only the form is checked here; see :func:`check_alignment` for the values.

    Raises
    ------
    FileMissingError
        If there is no such file.
    AlignmentError
        If the file holds anything else than 3 x 3 numbers or keypoints, or the keypoints are fewer than three or lie
        on a line; if a zip or folder holds no alignment, or more than one.

    Warns
    -----
    SpatialsigWarning
        If keypoints miss the fit, or the matrix that they were exported with, by more than 10 um (root mean square).
    """
    path = Path(path)
    check_positive(pixel_size=pixel_size)
    check_files([path], what="alignment of the H&E", fix="Give the path of the *_he_imagealignment.csv.")
    file, *keypoints = _exported(path)
    text = _read_text(file)
    pairs = parse_keypoints(text, name=str(file))
    if pairs is not None:
        return fit_landmarks(*pairs, um_per_target=pixel_size, name=str(file))
    matrix = _parse_matrix(text, file)
    if keypoints:
        _compare(matrix, file, keypoints[0], pixel_size)
    return Alignment(matrix, "matrix", None, 0)


def _exported(path: Path) -> list[Path | zipfile.Path]:
    """File itself, or the matrix and the keypoints, as far as they are there, in the zip or folder of an export."""
    if path.is_dir():
        files: Sequence[Path | zipfile.Path] = sorted(file for file in path.iterdir() if file.is_file())
    elif zipfile.is_zipfile(path):
        with _naming_damage(path), zipfile.ZipFile(path) as zipped:
            names = [name for name in zipped.namelist() if not name.startswith("__MACOSX/")]
            files = [zipfile.Path(path, name) for name in names]
    else:
        return [path]
    found = [[file for file in files if file.name.lower() == name] for name in _EXPORTED]
    if not any(found) or any(len(same) > 1 for same in found):
        has = (
            f"{max(map(len, found))} alignments"
            if any(found)
            else f"{first_few([file.name for file in files]) or 'nothing'}"
        )
        msg = (
            f"alignment {str(path)!r} is a {'folder' if path.is_dir() else 'zip'} with {has}; wanted one matrix.csv or "
            f"keypoints.csv, as Xenium Explorer exports them: give the path of the csv itself."
        )
        raise AlignmentError(msg)
    return [file for same in found for file in same]


def _compare(
    matrix: NDArray[np.float64], file: Path | zipfile.Path, keypoints: Path | zipfile.Path, pixel_size: float
) -> None:
    """Warn if a matrix does not place the keypoints that it was exported with."""
    pairs = parse_keypoints(_read_text(keypoints), name=str(keypoints))
    if pairs is None:
        return
    rmse_um = pixel_size * rms_length(apply(matrix, pairs[0]) - pairs[1])
    if not rmse_um <= MAX_RMSE_UM:  # NaN as well
        msg = (
            f"alignment {str(file)!r} misses the points of {keypoints.name} beside it by {rmse_um:.1f} um (root mean square; "
            f"wanted at most {MAX_RMSE_UM:g}); the matrix is used. If the points are right, give {keypoints.name} itself."
        )
        warn(msg)


def _read_text(path: Path | zipfile.Path) -> str:
    with _naming_damage(path):
        try:
            return decoded(path)
        except InputError as error:
            msg = f"alignment {str(path)!r} is not a text file; wanted {_WANTED}: {_EXPORT_AGAIN}.{content_hint(path)}"
            raise AlignmentError(msg) from error


@contextmanager
def _naming_damage(path: Path | zipfile.Path) -> Iterator[None]:
    """Turn what a zip raises that is damaged or locked into an :class:`AlignmentError` that names the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        msg = f"alignment {str(path)!r} cannot be unpacked ({error}): unpack it by hand, or {_EXPORT_AGAIN}."
        raise AlignmentError(msg) from error


def _parse_matrix(text: str, path: Path | zipfile.Path) -> NDArray[np.float64]:
    rows = [_fields(line) for line in text.splitlines() if line.strip()]
    shape = (len(rows), sorted({len(row) for row in rows}))
    try:
        numbers = [[number_in(field) for field in row] for row in rows]
    except ValueError as error:
        msg = f"alignment {str(path)!r} holds text ({error}); wanted {_WANTED}: remove the header, or {_EXPORT_AGAIN}.{content_hint(path)}"
        raise AlignmentError(msg) from error
    if shape != (3, [3]):
        msg = f"alignment {str(path)!r} has {shape[0]} row(s) of {shape[1]} numbers; wanted {_WANTED}: {_EXPORT_AGAIN}."
        raise AlignmentError(msg)
    return np.array(numbers, dtype=np.float64)


def _fields(line: str) -> list[str]:
    """Split one line; a semicolon between numbers means that commas are decimal."""
    line = line.replace('"', "")
    if ";" in line:
        return [field.strip().replace(",", ".") for field in line.strip().strip(";").split(";")]
    return line.replace(",", " ").split()


def check_alignment(matrix: ArrayLike, *, pixel_size: float, name: str) -> None:
    """Refuse a matrix that cannot be the alignment of an H&E.

    Parameters
    ----------
    matrix
        ``(3, 3)``: H&E px -> morphology px.
    pixel_size
        Micrometres per morphology px.
    name
        What the matrix belongs to, for the message (a file, a slide).

    Returns
    -------
    None

    Raises
    ------
    AlignmentError
        If the matrix is not 3 x 3, not finite, not affine, singular, nearly singular, stretched, or implies an H&E
        pixel outside 0.1-2 um.
    InputError
        If ``pixel_size`` is not a finite number above 0.

    Warns
    -----
    SpatialsigWarning
        If it stretches one axis by 10 % more than the other, or shears as much.
    """
    check_positive(pixel_size=pixel_size)
    name = f"alignment {name!r}"
    check_place(matrix, name=name, fix=_EXPORT_AGAIN, min_determinant=MIN_DETERMINANT)
    he_px = image_um_per_px(matrix, pixel_size)
    if not HE_UM_PER_PX[0] <= he_px <= HE_UM_PER_PX[1]:
        range_um = f"{HE_UM_PER_PX[0]}-{HE_UM_PER_PX[1]} um"
        fix = (
            f"check pixel_size={pixel_size:g} um in experiment.xenium, that the matrix maps H&E px to morphology px "
            f"(not to um), and that it was made on the full-resolution image"
        )
        msg = f"{name} implies an H&E pixel of {he_px:.3g} um; wanted {range_um}: {fix}."
        raise AlignmentError(msg)
    warn_stretched(matrix, name=name)


def apply(matrix: ArrayLike, xy: ArrayLike) -> NDArray[np.float64]:
    """Map points ``(n, 2)`` (x, y) through a ``(3, 3)`` affine; returns ``(n, 2)`` in the unit of the target."""
    values = np.asarray(matrix, dtype=np.float64)
    points = np.asarray(xy, dtype=np.float64)
    mapped: NDArray[np.float64] = points @ values[:2, :2].T + values[:2, 2]
    return mapped


def um_to_he_px(matrix: ArrayLike, pixel_size: float) -> NDArray[np.float64]:
    """Affine ``(3, 3)`` um -> full-resolution H&E px, from an alignment ``(3, 3)`` H&E px -> morphology px."""
    to_um = np.diag([pixel_size, pixel_size, 1.0]) @ np.asarray(matrix, dtype=np.float64)
    inverse: NDArray[np.float64] = np.linalg.inv(to_um)
    inverse[2] = (0.0, 0.0, 1.0)  # exact, so that products of affines stay affine
    return inverse


def image_um_per_px(matrix: ArrayLike, pixel_size: float) -> float:
    """Micrometres per H&E px: ``pixel_size * sqrt(|det A|)`` of the ``(3, 3)`` alignment."""
    values = np.asarray(matrix, dtype=np.float64)
    return float(pixel_size * np.sqrt(abs(np.linalg.det(values[:2, :2]))))
