"""Matrices that can place an image of a slide: it is turned, mirrored, scaled and shifted, never squeezed or sheared.

Floor 1, above the ground floor. Used by 6 modules of geometry, io, pp, slide.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from spatialsig._checks import warn
from spatialsig.errors import AlignmentError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MAX_CONDITION = 1e3
MAX_ANISOTROPY = 1.2  # a section shrinks by a few percent more along one axis; pixels are square
USUAL_ANISOTROPY = 1.1  # up to this nobody need be told


def real_numbers(values: ArrayLike, *, name: str) -> NDArray[np.float64]:
    """An array as float64; :class:`AlignmentError` for truth values, complex numbers, text and masks, which are no numbers here."""
    masked = np.ma.isMaskedArray(values)
    held = [] if masked else np.asarray(values, dtype=object).ravel().tolist()
    other = next((one for one in held if isinstance(one, bool | np.bool_) or not isinstance(one, Real)), None)
    if masked or other is not None:
        found = "is masked" if masked else f"holds {other!r}"
        msg = f"{name} {found}; wanted finite numbers in all places."
        raise AlignmentError(msg)
    return np.asarray(values, dtype=np.float64)


def check_place(matrix: ArrayLike, *, name: str, fix: str, similar: bool = True, min_determinant: float = 0.0) -> None:
    """Refuse a matrix ``(3, 3)`` on (x, y, 1) that cannot place an image of a slide, or what was drawn on one.

    Parameters
    ----------
    matrix
        What maps the pixels of the image, or the units of what was drawn.
    name
        What messages call the matrix, before the verb.
    fix
        What to do about it, in the imperative.
    similar
        Refuse a shear, and axes that are stretched differently: their singular values have the ratio 1.2 or more.
    min_determinant
        Determinant that counts as none.

    Raises
    ------
    AlignmentError
        If the matrix is not 3 x 3, not finite, not affine, singular or nearly so, or not similar.
    """
    values = real_numbers(matrix, name=name)
    if values.shape != (3, 3):
        _refuse(name, f"has shape {values.shape}", "(3, 3)", fix)
    if not np.isfinite(values).all():
        _refuse(name, f"holds {int((~np.isfinite(values)).sum())} NaN or infinite numbers", "finite ones", fix)
    if not np.allclose(values[2], [0, 0, 1], rtol=0, atol=1e-9):
        transposed = "transpose it if rows are columns"
        _refuse(name, f"has last row {values[2].tolist()}", "0, 0, 1 (an affine)", transposed)
    singular = np.linalg.svd(values[:2, :2], compute_uv=False)
    determinant = float(singular[0] * singular[1])
    if determinant <= min_determinant:
        _refuse(name, f"is singular (|det| = {determinant:.3g})", f"|det| > {min_determinant:g}", fix)
    stretch = float(singular[0] / singular[1])
    if stretch >= MAX_CONDITION:
        _refuse(name, f"is nearly singular (condition {stretch:.3g})", f"below {MAX_CONDITION:g}", fix)
    if similar and stretch >= MAX_ANISOTROPY:
        again = "place the keypoints again; an H&E is turned, mirrored and scaled, never squeezed"
        _refuse(name, f"stretches one axis {stretch:.3g} times more than the other", f"below {MAX_ANISOTROPY}", again)


def warn_stretched(matrix: ArrayLike, *, name: str) -> None:
    """Warn of a matrix, checked before, that stretches one axis 10 % more than the other: no section does so by itself."""
    singular = np.linalg.svd(np.asarray(matrix, np.float64)[:2, :2], compute_uv=False)
    stretch = float(singular[0] / singular[1])
    if stretch >= USUAL_ANISOTROPY:
        msg = (
            f"{name} stretches one axis {stretch:.3g} times more than the other, and is used as it is; px of a scan are square, "
            f"and sections shrink by a few percent: look at it with `sp.pl.alignment`, and place the "
            f"keypoints again if they are off."
        )
        warn(msg)


def _refuse(name: str, what: str, allowed: str, fix: str) -> None:
    msg = f"{name} {what}; wanted {allowed}: {fix}."
    raise AlignmentError(msg)
