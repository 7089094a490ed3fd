"""The size of the copy of an H&E that its alignment was made on, found from the nuclei alone.

Floor 7, above evaluation. Used by pp/_qc_alignment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig.geometry.mistakes import rescaled
from spatialsig.pp._registration_fits import MIN_CELLS, sample_groups

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from spatialsig.geometry.mistakes import Hypothesis
    from spatialsig.pp._registration_fits import Fit, Fitter

WIDEST = 3.0  # copies with a third to three times the px along an edge
COARSE, FINE = 0.05, 0.005  # steps of the factor: half a coarse one blurs the squares by less than a nucleus
SQUARE_UM = 350.0


def find_rescaled(
    fitter: Fitter, matrix: NDArray[np.float64], xy: NDArray[np.float64], *, um_per_global: float, max_shift_um: float
) -> Hypothesis | None:
    """Reading of the alignment for the copy of whatever size on which the nuclei fit the cells; None where none does.

    The factor is found on one square of cells, in coarse and in fine steps, and then made exact by how the shifts of
    other squares grow with their distance from the corner of the image, which no copy moves.
    """
    squares = [group for group in sample_groups(xy, square_um=SQUARE_UM) if len(group) >= MIN_CELLS]
    if not squares:
        return None
    square = max(squares, key=len)

    def tried(factors: Iterable[float], step: float) -> tuple[float, Fit]:
        fits = {}
        for factor in factors:
            reading = rescaled(matrix, factor, um_per_global=um_per_global)
            from_corner = np.hypot(*(reading.he_to_um[:2, :2] @ fitter.in_px(reading)[square].mean(axis=0)))
            fits[factor] = fitter.local(reading, square, max_shift_um=max_shift_um + step / 2 * from_corner)
        best = max(fits, key=lambda factor: fits[factor].height)
        return best, fits[best]

    n = int(np.log(WIDEST) / np.log1p(COARSE))
    factor, fit = tried(((1 + COARSE) ** k for k in range(-n, n + 1)), COARSE)
    if not fit.clear:
        return None
    factor, _ = tried((factor * (1 + FINE * k) for k in range(-6, 7)), FINE)
    found = rescaled(matrix, factor, um_per_global=um_per_global)
    return rescaled(matrix, factor * _growth(fitter, found, xy), um_per_global=um_per_global)


def _growth(fitter: Fitter, reading: Hypothesis, xy: NDArray[np.float64]) -> float:
    """Factor on the factor of a reading by which the shifts of squares all over the slide become one."""
    groups = sample_groups(xy)
    _, fits = fitter.whole(reading, groups)
    clear = [(xy[group].mean(axis=0), fit) for group, fit in zip(groups, fits, strict=True) if fit.clear]
    if len(clear) < 3:
        return 1.0
    places = np.array([place for place, _ in clear])
    shifts = np.array([(fit.dx_um, fit.dy_um) for _, fit in clear])
    places, shifts = places - places.mean(axis=0), shifts - shifts.mean(axis=0)
    return float(1 / (1 + (places * shifts).sum() / (places**2).sum()))
