"""Alignment of a bundle's H&E, read, checked, and tried on the cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig.errors import AlignmentError, InputError
from spatialsig.geometry.affine import apply, check_alignment, read_alignment, um_to_he_px
from spatialsig.geometry.mistakes import SWAP
from spatialsig.io.images.rgb import MAX_OUTSIDE_IMAGE
from spatialsig.io.xenium.discover import GIVEN, find_alignment

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from spatialsig.io.images.rgb import RgbFile

IDENTITY = "identity"


def read_he_alignment(
    path: Path, image_path: Path | None, he_alignment: str | Path | ArrayLike | None, pixel_size: float
) -> tuple[NDArray[np.float64] | None, dict[str, Any]]:
    """Read and check the matrix of the H&E, with the attributes that say where it comes from and how well it fits."""
    if image_path is None:
        if he_alignment is not None:
            msg = f"`he_alignment` is given but bundle {str(path)!r} has no H&E image; give `he_image=` too."
            raise InputError(msg)
        return None, {"he_alignment": None, "he_alignment_found": None}
    where, fit = GIVEN, {}
    if he_alignment is None:
        he_alignment, where = find_alignment(path, image_path)
    if isinstance(he_alignment, str) and he_alignment == IDENTITY:
        matrix, name = np.eye(3), IDENTITY
    elif isinstance(he_alignment, (str, Path)):
        read = read_alignment(he_alignment, pixel_size=pixel_size)
        matrix, name = read.matrix, str(Path(he_alignment).resolve())
        fit = {"he_alignment_kind": read.kind, "keypoints": read.n_points, "keypoints_rmse_um": read.rmse_um}
    else:
        matrix, name = _as_matrix(he_alignment), "given as a matrix"
    check_alignment(matrix, pixel_size=pixel_size, name=name)
    return matrix, {"he_alignment": name, "he_alignment_found": where} | fit


def _as_matrix(he_alignment: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(he_alignment, dtype=np.float64)
    except (ValueError, TypeError) as error:
        msg = f"`he_alignment` is a {type(he_alignment).__name__} that is no matrix ({error}); wanted (3, 3) numbers or a path."
        raise AlignmentError(msg) from error


def check_inside(
    xy_um: NDArray[np.float64], file: RgbFile, matrix: NDArray[np.float64], pixel_size: float, *, name: str
) -> None:
    """Refuse an alignment that puts cells beside the image; say which usual mistake would explain it."""

    def outside(candidate: NDArray[np.float64]) -> float:
        return float(1 - file.contains(apply(um_to_he_px(candidate, pixel_size), xy_um)).mean())

    share = outside(matrix)
    if share <= MAX_OUTSIDE_IMAGE:
        return
    scaled = np.diag([1 / pixel_size, 1 / pixel_size, 1.0]) @ matrix
    others = {
        "its inverse": np.linalg.inv(matrix),
        "a matrix in um instead of morphology px": scaled,
        "x and y swapped": matrix @ SWAP,
    }
    fitting = [what for what, other in others.items() if outside(other) <= MAX_OUTSIDE_IMAGE]
    hint = f"it fits as {' or '.join(fitting)}" if fitting else "check that image, matrix and bundle are of one slide"
    height, width = file.pixels.shape[:2]
    msg = (
        f"alignment {name!r} puts {share:.0%} of {len(xy_um)} cells outside the H&E of {height} x {width} px (y, x); "
        f"wanted at most {MAX_OUTSIDE_IMAGE:.0%}: {hint}."
    )
    raise AlignmentError(msg)
