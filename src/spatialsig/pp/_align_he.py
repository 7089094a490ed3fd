"""The place of the H&E, from a matrix, landmarks, or a file of either.

Floor 7, above evaluation. Called as sp.pp.align_he.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, checked
from spatialsig._checks import check_choice
from spatialsig.errors import AlignmentError, InputError
from spatialsig.geometry.affine import (
    Alignment,
    apply,
    check_alignment,
    fit_landmarks,
    image_um_per_px,
    read_alignment,
    um_to_he_px,
)
from spatialsig.geometry.landmarks import LAYOUTS, point_columns
from spatialsig.geometry.mistakes import warn_of_pixel_size
from spatialsig.geometry.placement import real_numbers
from spatialsig.pp._registration_image import place_image, refuse_patches
from spatialsig.slide.coordinates import full_resolution, image_of, matrix_to_global, positions, um_per_global
from spatialsig.slide.slides import Data, open_slides

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

MIN_INSIDE = 0.8  # share of the cells that must lie on the image
IDENTITY = "identity"

Landmarks: TypeAlias = tuple[ArrayLike, ArrayLike] | pd.DataFrame


@checked
def align_he(
    data: Data,
    *,
    matrix: ArrayLike | str | Mapping[str, Any] | None = None,
    landmarks: Landmarks | Mapping[str, Landmarks] | None = None,
    file: AnyPath | Mapping[str, AnyPath] | None = None,
    target: Literal["global", "um"] = "global",
    image_key: Key = _keys.IMAGE,
    table_key: Key = _keys.TABLE,
) -> pd.DataFrame:
    """Write the transformation of the H&E from a matrix, landmarks or a file; its pixels stay as they are.

    Give exactly one of ``matrix``, ``landmarks`` and ``file``; for several slides, a mapping from the name of each
    slide to its own. Every slide is checked before any is changed.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    matrix
        ``(3, 3)``: full-resolution H&E px (x, y, 1) to ``target``; ``"identity"`` for an H&E that was already warped
        into the pixels of the morphology image.
    landmarks
        Points on the H&E (px) and the same points on the target, two arrays ``(n, 2)`` as x, y (from VALIS, Fiji,
        QuPath, napari), or a DataFrame with columns ``he_x, he_y, target_x, target_y`` (or those of Xenium Explorer).
        The affine that fits all of them best is taken.
    file
        csv with the matrix, with keypoints of Xenium Explorer or of BigWarp, or with ``he_x, he_y, target_x, target_y``.
    target
        Unit and frame of the target: ``"global"`` (morphology px) or ``"um"``.
    image_key
        H&E image.
    table_key
        Table of the cells, to check that they lie on the image; a slide without this table is not checked.

    Returns
    -------
    One row per slide (index: its name): ``kind`` ("matrix", "keypoints"), ``n_points``, ``rmse_um`` (root mean square
    distance of the landmarks from the fit; NaN for a matrix and for three landmarks, which always fit),
    ``he_um_per_px``, ``share_in_image`` (of the cells; NaN without).

    Writes the transformation of ``images[image_key]`` to ``global``, and ``attrs["spatialsig"]["align_he"]``: the same
    numbers, ``image_key``, ``target``, ``source``, ``matrix`` (to ``global``) and ``matrix_before`` (None where there
    was none). A result of ``qc_alignment`` is removed: it described the image where it was.

    Raises
    ------
    KeyMissingError
        If there is no such image, or the mapping lacks a slide.
    AlignmentError
        If the landmarks are fewer than three or lie on a line, the matrix cannot be right, more than 20 % of the cells
        would lie outside the image, or patches were cut already.
    InputError
        If not exactly one alignment is given, or one for several slides.

    Warns
    -----
    SpatialsigWarning
        If the landmarks miss the fit by more than 10 um (root mean square), or the px of the image become more than 2 %
        larger or smaller than its file states.

    Examples
    --------
    >>> import numpy as np
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> cells = sdata["table"]
    >>> marked = [3, 50, 200, 300, 500]
    >>> he_px, um = cells.obsm["he_px"][marked], cells.obsm["spatial"][marked]
    >>> done = sp.pp.align_he(sdata, landmarks=(he_px, um), target="um")
    >>> done["n_points"].item(), round(done["rmse_um"].item(), 3)
    (5, 0.0)
    """
    how, placement = _only_one(matrix, landmarks, file)
    plans = [_plan(slide, how, placement, target, image_key, table_key) for slide in open_slides(data)]
    if len(plans) > 1 and not isinstance(placement, Mapping):
        msg = f"one `{how}` for {len(plans)} slides; give a mapping {{name of the slide: its own {how}}}."
        raise InputError(msg)
    for slide, (alignment, record) in zip(open_slides(data), plans, strict=True):
        own_um = slide.attrs.get(_keys.FILE_UM_PER_PX, {}).get(image_key, [])
        warn_of_pixel_size(record["he_um_per_px"], own_um, name=f"{image_key} of slide {slide.name}")
        place_image(slide, image_key, alignment.matrix)
        slide.attrs["align_he"] = record
        slide.attrs.pop("qc_alignment", None)
        slide.commit_attrs()
    names = [record["sample"] for _, record in plans]
    columns = ["kind", "n_points", "rmse_um", "he_um_per_px", "share_in_image"]
    rows = [[record[column] for column in columns] for _, record in plans]
    table = pd.DataFrame(rows, index=pd.Index(names, name=_keys.SAMPLE), columns=columns)
    return table.astype({"rmse_um": float, "share_in_image": float})


def _only_one(matrix: Any, landmarks: Any, file: Any) -> tuple[str, Any]:
    ways = {"matrix": matrix, "landmarks": landmarks, "file": file}
    used = [(name, value) for name, value in ways.items() if value is not None]
    if len(used) != 1:
        msg = (
            f"wanted exactly one of `matrix`, `landmarks` and `file`; got {[name for name, _ in used]}. For an H&E that "
            f"was already warped into the pixels of the morphology image pass matrix='identity'."
        )
        raise InputError(msg)
    return used[0]


def _plan(
    slide: Slide, how: str, placement: Any, target: str, image_key: str, table_key: str
) -> tuple[Alignment, dict[str, Any]]:
    """Alignment of one slide, checked, and what is kept about it."""
    before = matrix_to_global(image_of(slide, image_key))
    refuse_patches(slide, image_key)
    if isinstance(placement, Mapping):
        if slide.name not in placement:
            msg = f"`{how}` has no entry for slide {slide.name!r}; it has {sorted(placement)}."
            raise InputError(msg)
        placement = placement[slide.name]
    scale = um_per_global(slide)
    name = str(placement) if how == "file" else f"{how} of slide {slide.name}"
    alignment = _alignment(how, placement, um_per_target=1.0 if target == "um" else scale, name=name)
    if target == "um":
        alignment = replace(alignment, matrix=np.diag([1 / scale, 1 / scale, 1.0]) @ alignment.matrix)
    check_alignment(alignment.matrix, pixel_size=scale, name=name)
    record = {
        "sample": slide.name,
        "image_key": image_key,
        "source": name,
        "target": target,
        "kind": alignment.kind,
        "n_points": alignment.n_points,
        "rmse_um": alignment.rmse_um,
        "he_um_per_px": image_um_per_px(alignment.matrix, scale),
        "share_in_image": _share_inside(slide, alignment.matrix, image_key, table_key, name),
        "matrix": alignment.matrix.tolist(),
        "matrix_before": None if before is None or not np.isfinite(before).all() else before.tolist(),
    }
    return alignment, record


def _alignment(how: str, placement: Any, *, um_per_target: float, name: str) -> Alignment:
    if how == "file":
        return read_alignment(placement, pixel_size=um_per_target)
    if how == "landmarks":
        return fit_landmarks(*_points(placement, name), um_per_target=um_per_target, name=name)
    if isinstance(placement, str):
        check_choice(placement, (IDENTITY,), name="matrix")
        placement = np.eye(3)
    return Alignment(real_numbers(placement, name=repr(name)), "matrix", None, 0)


def _points(landmarks: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points ``(n, 2)`` on the H&E and on the target."""
    if isinstance(landmarks, pd.DataFrame):
        columns = point_columns(list(landmarks.columns))
        if columns is None:
            msg = (
                f"{name!r} has columns {list(landmarks.columns)}; wanted one of {[list(layout) for layout in LAYOUTS]}."
            )
            raise InputError(msg)
        numbers = real_numbers(landmarks.iloc[:, columns].to_numpy(object), name=repr(name))
        return numbers[:, :2], numbers[:, 2:]
    if not isinstance(landmarks, tuple | list) or len(landmarks) != 2:
        msg = f"{name!r}: wanted two arrays (n, 2), on the H&E and on the target, or a DataFrame; got {type(landmarks).__name__}."
        raise InputError(msg)
    return real_numbers(landmarks[0], name=repr(name)), real_numbers(landmarks[1], name=repr(name))


def _share_inside(slide: Slide, matrix: NDArray[np.float64], image_key: str, table_key: str, name: str) -> float | None:
    """Share of the cells on the image; None for a slide without cells."""
    if table_key not in slide.sdata.tables or _keys.SPATIAL not in slide.sdata.tables[table_key].obsm:
        return None
    xy_um = positions(slide, table_key)
    xy_um = xy_um[np.isfinite(xy_um).all(axis=1)]
    full = full_resolution(image_of(slide, image_key))
    height, width = full.sizes["y"], full.sizes["x"]
    xy = apply(um_to_he_px(matrix, um_per_global(slide)), xy_um)
    share = float(((xy >= 0) & (xy < (width, height))).all(axis=1).mean())
    if share < MIN_INSIDE:
        msg = (
            f"{name!r} puts {1 - share:.0%} of {len(xy_um)} cells outside image {image_key!r} of {height} x {width} px "
            f"(y, x); wanted at most {1 - MIN_INSIDE:.0%}: check that it maps H&E px (x, y) to the target, and that "
            f"`target` says whether that is in 'um' or in pixels ('global')."
        )
        raise AlignmentError(msg)
    return share
