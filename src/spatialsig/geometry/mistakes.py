"""Readings of an alignment under the usual mistakes, each with what undoes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

SWAP = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])


@dataclass(frozen=True)
class Hypothesis:
    """One way to read an alignment."""

    name: str  # short name; ``as_set`` for the alignment as it is
    mistake: str  # what would have gone wrong, a sentence without a full stop
    fix: str  # what to do about it, in the imperative
    he_to_um: NDArray[np.float64]  # ``(3, 3)``: H&E px (x, y, 1) -> um, if this is what happened
    # ``(3, 3)``: positions of the cells as they are given -> um
    cells_to_um: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))


def hypotheses(he_to_global: ArrayLike, *, um_per_global: float, shape: tuple[int, int]) -> list[Hypothesis]:
    """All ways to read the alignment of an H&E, the one that is set first.

    Parameters
    ----------
    he_to_global
        ``(3, 3)``: H&E px (x, y, 1) -> ``global`` (morphology px).
    um_per_global
        Micrometres per unit of ``global``.
    shape
        Height and width of the H&E, px.

    Returns
    -------
    Hypotheses; each holds its own affine to um.
    """
    matrix = np.asarray(he_to_global, np.float64)
    to_um = _scale(um_per_global)
    readings = [Hypothesis("as_set", "nothing", "leave it", to_um @ matrix)]
    for name, mistake, turn in _turns(*shape):
        fix = f"multiply the matrix from the right by {turn.astype(int).tolist()} and set it with sp.pp.align_he"
        readings.append(Hypothesis(name, mistake, fix, to_um @ matrix @ turn))
    readings.append(
        Hypothesis(
            "cells_swapped",
            "x and y of the cells (or of the matrix' target) are swapped",
            "swap the first two rows of the matrix, or the columns of obsm['spatial'] if those are y, x",
            to_um @ SWAP @ matrix,
        )
    )
    inverse = np.linalg.inv(matrix)
    inverse[2] = (0.0, 0.0, 1.0)
    readings.append(
        Hypothesis(
            "inverse",
            "the matrix maps morphology px to H&E px instead of H&E px to morphology px",
            "set np.linalg.inv(matrix) with sp.pp.align_he",
            to_um @ inverse,
        )
    )
    return readings + _lengths(matrix, to_um, um_per_global)


def _turns(height: int, width: int) -> list[tuple[str, str, NDArray[np.float64]]]:
    """Names, mistakes and ``(3, 3)`` maps of the image onto the flipped or turned image the matrix was made for."""
    h, w = float(height), float(width)
    return [
        ("axes_swapped", "x and y of the H&E are swapped in the matrix", SWAP),
        ("flipped_x", "the matrix was made on the H&E mirrored left to right", _affine(-1, 0, w, 0, 1, 0)),
        ("flipped_y", "the matrix was made on the H&E mirrored top to bottom", _affine(1, 0, 0, 0, -1, h)),
        ("rotated_90", "the matrix was made on the H&E turned by 90 degrees clockwise", _affine(0, -1, h, 1, 0, 0)),
        ("rotated_180", "the matrix was made on the H&E turned by 180 degrees", _affine(-1, 0, w, 0, -1, h)),
        ("rotated_270", "the matrix was made on the H&E turned by 270 degrees clockwise", _affine(0, 1, 0, -1, 0, w)),
        ("anti_transposed", "the matrix was made on the H&E mirrored along a diagonal", _affine(0, -1, h, -1, 0, w)),
    ]


def _lengths(matrix: NDArray[np.float64], to_um: NDArray[np.float64], um_per_global: float) -> list[Hypothesis]:
    """Micrometres for pixels, and a wrong pixel size."""
    px = um_per_global
    smaller, larger = f"{px / 10:g}", f"{px * 10:g}"
    where = "attrs['spatialsig']['um_per_global_px']"
    return [
        Hypothesis(
            "um_as_px",
            "the matrix maps to um instead of morphology px",
            f"set it with sp.pp.align_he(..., target='um'), which divides it by the pixel size of {px:g} um",
            matrix,
        ),
        Hypothesis(
            "px_as_um",
            "the matrix was divided by the pixel size once too often",
            f"multiply its first two rows by the pixel size of {px:g} um",
            _scale(px) @ to_um @ matrix,
        ),
        Hypothesis(
            "cells_in_px",
            "the positions of the cells are morphology px instead of um",
            f"multiply obsm['spatial'] by the pixel size of {px:g} um",
            to_um @ matrix,
            to_um,
        ),
        Hypothesis(
            "pixel_size_10_too_large",
            "the pixel size is ten times too large",
            f"set {where} = {smaller}",
            _scale(0.1) @ to_um @ matrix,
        ),
        Hypothesis(
            "pixel_size_10_too_small",
            "the pixel size is ten times too small",
            f"set {where} = {larger}",
            _scale(10.0) @ to_um @ matrix,
        ),
    ]


def _affine(a: float, b: float, tx: float, c: float, d: float, ty: float) -> NDArray[np.float64]:
    return np.array([[a, b, tx], [c, d, ty], [0.0, 0.0, 1.0]], np.float64)


def _scale(factor: float) -> NDArray[np.float64]:
    return np.diag([factor, factor, 1.0])
