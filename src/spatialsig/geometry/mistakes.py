"""Readings of an alignment under the usual mistakes, each with what undoes it.

Floor 1, above the ground floor. Used by 7 modules of io, pp, whole_slides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from spatialsig._checks import warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

RESCALED = "he_rescaled"  # reading of a matrix that was made on a copy of any size
TAKEN_AS_PX = "cells_taken_as_px"
COPIES = {"he_half_size": 0.5, "he_double_size": 2.0}  # px of such a copy along an edge, per px of the H&E
SAME_PX = 0.02  # share by which the px of a file and of its alignment may differ; a section shrinks less
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
    copies = [rescaled(matrix, factor, um_per_global=um_per_global, name=name) for name, factor in COPIES.items()]
    return readings + copies + _lengths(matrix, to_um, um_per_global)


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
    ] + [
        Hypothesis(
            f"pixel_size_{times}_too_{wrong}",
            f"the pixel size is {word} times too {wrong}",
            f"set attrs['spatialsig']['um_per_global_px'] = {px * factor:g}",
            _scale(factor) @ to_um @ matrix,
        )
        for times, word in ((10, "ten"), (2, "two"))
        for wrong, factor in (("large", 1 / times), ("small", float(times)))
    ]


def taken_as_px(he_to_global: ArrayLike, *, um_per_px: float) -> Hypothesis:
    """Reading of an image whose cells were given in um, but were multiplied by the size of its px."""
    return Hypothesis(
        TAKEN_AS_PX,
        f"the positions of the cells were um already, and were taken as px of {um_per_px:g} um",
        "read the table again with sp.io.from_anndata(..., spatial_unit='um')",
        _scale(um_per_px) @ np.asarray(he_to_global, np.float64),
        _scale(1 / um_per_px),
    )


def rescaled(he_to_global: ArrayLike, factor: float, *, um_per_global: float, name: str = RESCALED) -> Hypothesis:
    """Reading of an alignment that was made on a copy of the H&E with ``factor`` times its px along an edge."""
    return Hypothesis(
        name,
        f"the matrix was made on a copy of the H&E with {factor:.4g} times its px along an edge",
        f"multiply the matrix from the right by np.diag([{factor:.4g}, {factor:.4g}, 1]) and set it with sp.pp.align_he",
        _scale(um_per_global) @ np.asarray(he_to_global, np.float64) @ _scale(factor),
    )


def warn_of_pixel_size(placed_um: float, file_um: Sequence[float], *, name: str) -> None:
    """Warn with both numbers where an image is placed with px of another size, in um, than its file states.

    ``file_um`` are the edges x and y that the file states; empty where it states none.
    """
    if (
        not len(file_um) or max(abs(placed_um / edge - 1) for edge in file_um) <= SAME_PX
    ):  # each: a mean hides a stretch
        return
    own = float(np.sqrt(np.prod(file_um)))
    edges = [f"{edge:.4g}" for edge in file_um]
    times = f"{placed_um / own:.3g} times that" if len(set(edges)) == 1 else "and square"
    msg = (
        f"image {name!r} says that its px are {' x '.join(dict.fromkeys(edges))} um, but as it is placed they are "
        f"{placed_um:.4g} um, {times}. The place is used as it is: check that the alignment (or "
        f"`um_per_px=`) is for this image at this size, not for a smaller or larger copy; `sp.pp.qc_alignment` tries both."
    )
    warn(msg)


def _affine(a: float, b: float, tx: float, c: float, d: float, ty: float) -> NDArray[np.float64]:
    return np.array([[a, b, tx], [c, d, ty], [0.0, 0.0, 1.0]], np.float64)


def _scale(factor: float) -> NDArray[np.float64]:
    return np.diag([factor, factor, 1.0])
