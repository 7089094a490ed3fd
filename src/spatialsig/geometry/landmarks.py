"""Affine fitted to pairs of points that were marked on the H&E and on the target.

Floor 1, above the ground floor. Used by geometry/affine, pp/_align_he.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

from spatialsig._checks import number_in
from spatialsig.errors import AlignmentError
from spatialsig.geometry.placement import real_numbers

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MIN_POINTS = 3
THINNEST = 1e-3  # width over length of a cloud of points below which it is a line

# columns of the H&E points and of the target points, by who writes them
LAYOUTS = (
    ("alignmentx", "alignmenty", "fixedx", "fixedy"),  # Xenium Explorer
    ("he_x", "he_y", "target_x", "target_y"),
)
_BIGWARP_FIELDS = 6  # name, active, moving x, moving y, fixed x, fixed y; no header


def fit_affine(
    source: ArrayLike, target: ArrayLike, *, name: str = "landmarks"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit the affine that maps ``source`` to ``target`` best, by least squares over all pairs.

    Parameters
    ----------
    source, target
        Points ``(n, 2)`` as x, y; row i of one belongs to row i of the other.
    name
        What the points are, for the message (a file, a slide).

    Returns
    -------
    matrix
        ``(3, 3)`` on columns (x, y, 1).
    residuals
        ``(n, 2)``: target minus mapped source, in the unit of the target. They are exactly 0 for three pairs, which
        any affine can join.

    Raises
    ------
    AlignmentError
        If there are fewer than three pairs, the points lie on a line, are not finite or do not pair up.
    """
    points, goals = (real_numbers(xy, name=repr(name)) for xy in (source, target))
    _check_pairs(points, goals, name)
    centre, middle = points.mean(axis=0), goals.mean(axis=0)
    linear = np.linalg.lstsq(points - centre, goals - middle, rcond=None)[0].T  # (2, 2)
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = middle - linear @ centre
    # without the offsets: numbers of 1e5 px must not cost digits of the residual
    residuals = (goals - middle) - (points - centre) @ linear.T
    return matrix, residuals


def rms_length(residuals: NDArray[np.float64]) -> float:
    """Root mean square length of vectors ``(n, 2)``."""
    return float(np.sqrt((residuals**2).sum(axis=1).mean()))


def parse_keypoints(text: str, *, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Read points ``(n, 2)`` on the H&E and on the target from the text of a csv; None where it holds no keypoints."""
    decimal_comma = ";" in text
    rows = [row for row in csv.reader(text.splitlines(), delimiter=";" if decimal_comma else ",") if any(row)]
    if not rows:
        return None
    columns = point_columns(rows[0])
    if columns is not None:
        rows = rows[1:]
    elif _is_bigwarp(rows[0]):
        columns = [2, 3, 4, 5]
        rows = [row for row in rows if row[1].strip().lower() == "true"]
    else:
        return None
    numbers = np.empty((len(rows), 4))
    for line, row in enumerate(rows):
        try:
            fields = [row[column] for column in columns]
            numbers[line] = [number_in(field.replace(",", ".") if decimal_comma else field) for field in fields]
        except (ValueError, IndexError) as error:
            msg = f"keypoints {name!r}: point {line + 1} reads {row}; wanted four numbers ({error}): correct that line."
            raise AlignmentError(msg) from error
    return numbers[:, :2], numbers[:, 2:]


def point_columns(header: list[str]) -> list[int] | None:
    """Positions of H&E x, y and target x, y among the names of columns; None where the names are not known."""
    names = [str(field).strip().lower() for field in header]
    for layout in LAYOUTS:
        if set(layout) <= set(names):
            return [names.index(column) for column in layout]
    return None


def _is_bigwarp(row: list[str]) -> bool:
    return len(row) == _BIGWARP_FIELDS and row[1].strip().lower() in {"true", "false"}


def _check_pairs(source: NDArray[np.float64], target: NDArray[np.float64], name: str) -> None:
    if source.ndim != 2 or source.shape[1:] != (2,) or source.shape != target.shape:
        msg = f"{name!r}: points of shape {source.shape} and {target.shape}; wanted pairs, (n, 2) and (n, 2)."
        raise AlignmentError(msg)
    if len(source) < MIN_POINTS:
        msg = f"{name!r} has {len(source)} point(s); wanted at least {MIN_POINTS}, better 6 or more spread over the tissue."
        raise AlignmentError(msg)
    broken = ~np.isfinite(np.hstack([source, target])).all(axis=1)
    if broken.any():
        first = int(np.flatnonzero(broken)[0]) + 1
        msg = f"{name!r}: {int(broken.sum())} of {len(source)} points are not finite, first point {first}: remove them."
        raise AlignmentError(msg)
    for points, where in ((source, "the H&E"), (target, "the target")):
        length, width = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if width <= THINNEST * length:
            msg = (
                f"{name!r}: the {len(points)} points lie on a line (or on one spot) on {where}; wanted points spread "
                f"over the tissue in both directions: add one beside the line."
            )
            raise AlignmentError(msg)
