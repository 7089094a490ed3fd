"""Membership of cells in patches, through the alignment of the H&E.

Floor 7, above evaluation. Called as sp.pp.assign_cells; used by cli/slide_commands, datasets/_toy, pipeline/run_steps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._arguments import checked
from spatialsig._checks import warn
from spatialsig.errors import AlignmentError
from spatialsig.geometry.grid import points_in_patches
from spatialsig.slide.coordinates import (
    full_resolution,
    image_of,
    image_um_per_px,
    positions,
    um_per_global,
    um_to_image,
)
from spatialsig.slide.each import map_slides
from spatialsig.slide.parts import obsm_of, place_of
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

MIN_INSIDE = 0.05  # with fewer cells on the image the alignment must be wrong
WARN_INSIDE = 0.8
MOST_INSIDE = 0.95  # share that must lie on the image where positions are taken for px
# share of its width and height that they must then reach over: made small enough, anything fits on an image
SPAN = 0.4
SAME_PX = 0.02  # relative: px of this size and µm are the same
CONFIRMED = ("good", "shifted")  # verdicts of qc_alignment that speak for the positions as they are


@checked
@needs_cells
def assign_cells(data: Data, *, patches_key: str = _keys.PATCHES, table_key: str = _keys.TABLE) -> None:
    """Record which patches contain each cell, from the positions of the cells and the alignment of the H&E.

    Cell positions (µm) go through the alignment into H&E pixels. Patches are half open (left and top edge in, right and
    bottom edge out), so a cell lies in exactly one patch of a grid without overlap.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    patches_key
        Shapes element with the patches.
    table_key
        Table of the cells, positions in µm in ``obsm["spatial"]``.

    Returns
    -------
    Nothing; writes ``tables[table_key].obsm["patch_membership"]``, CSR ``(n_cells, n_patches)`` of 0 and 1, and
    ``uns["spatialsig"]["assign_cells"]`` with the share of cells on the image and in a patch.

    Raises
    ------
    AlignmentError
        If under 5 % of the cells lie on the image; or under 80 % do, as positions in µm, but at least 95 % as positions in
        px, and :func:`qc_alignment` has not found the cells on their nuclei.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.make_patches(sdata, patch_px=56, um_per_px=2.0)
    >>> sp.pp.assign_cells(sdata)
    >>> sdata["table"].obsm["patch_membership"].shape == (sdata["table"].n_obs, len(sdata["patches"]))
    True
    """
    map_slides(data, partial(_assign, patches_key=patches_key, table_key=table_key), "assign cells")


def _assign(slide: Slide, *, patches_key: str, table_key: str) -> None:
    patches = slide.patches(patches_key)
    image_key = patches.spec.image_key
    xy_um = positions(slide, table_key)
    xy = um_to_image(slide, image_key, xy_um)
    on_image = _inside(slide, image_key, xy)
    _check_on_image(slide, image_key, xy_um, on_image)
    membership = points_in_patches(xy, patches.origins, size=patches.spec.size_l0)
    table = slide.table(table_key)
    table.obsm[_keys.MEMBERSHIP] = membership
    slide.params(table_key)["assign_cells"] = {
        "patches_key": patches_key,
        "share_on_image": on_image,
        "share_in_patches": float((membership.getnnz(axis=1) > 0).mean()),
    }
    slide.commit_table(
        table_key,
        obsm=[_keys.MEMBERSHIP],
        steps=["assign_cells"],
        made_by="pp.assign_cells",
        sources=[obsm_of(table_key, _keys.SPATIAL), patches_key, place_of(image_key)],
    )


def _inside(slide: Slide, image_key: str, xy_px: NDArray[np.float64]) -> float:
    """Share of the positions ``(n, 2)``, px, that lie on the image."""
    full = full_resolution(image_of(slide, image_key))
    xy = xy_px[np.isfinite(xy_px).all(axis=1)]
    inside = (xy >= 0).all(axis=1) & (xy[:, 0] < full.sizes["x"]) & (xy[:, 1] < full.sizes["y"])
    return float(inside.mean())


def _check_on_image(slide: Slide, image_key: str, xy_um: NDArray[np.float64], share: float) -> None:
    if share >= WARN_INSIDE:
        return
    finding = f"slide {slide.name!r}: {share:.1%} of the cells lie on image {image_key!r}"
    px = _as_px(slide, image_key, xy_um)
    if px and slide.attrs.get("qc_alignment", {}).get("verdict") not in CONFIRMED:
        factor, share_px, what = px
        msg = (
            f"{finding}, but {share_px:.1%} do if obsm['spatial'] holds {what}, not µm: multiply it by {factor:g}. Where the "
            f"image shows a part of the section only, `sp.pp.qc_alignment` can confirm that; then call this again."
        )
        raise AlignmentError(msg)
    fix = "check the alignment file, and that `obsm['spatial']` is in µm, not pixels"
    if share < MIN_INSIDE:
        msg = f"{finding}; {fix}."
        raise AlignmentError(msg)
    warn(f"{finding}, fewer than {WARN_INSIDE:.0%}; {fix}.")


def _as_px(slide: Slide, image_key: str, xy_um: NDArray[np.float64]) -> tuple[float, float, str] | None:
    """Factor to µm, share on the image and name of the px that positions are likely to be in; None if they fit as no px."""
    image_um, platform_um = image_um_per_px(slide, image_key), um_per_global(slide)
    sizes = full_resolution(image_of(slide, image_key)).sizes
    readings = [
        (image_um, xy_um, f"px of the image ({image_um:.4g} µm)"),
        (platform_um, um_to_image(slide, image_key, xy_um * platform_um), f"px of the platform ({platform_um:.4g} µm)"),
    ]
    tried = [
        (um, _inside(slide, image_key, xy), what)
        for um, xy, what in readings
        if abs(np.log(um)) > SAME_PX and (_extent(xy) > SPAN * np.array([sizes["x"], sizes["y"]])).all()
    ]
    best = max(tried, key=lambda reading: reading[1], default=None)
    return best if best is not None and best[1] >= MOST_INSIDE else None


def _extent(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Width and height of the box around finite positions ``(n, 2)``."""
    return np.asarray(np.nanmax(xy, axis=0) - np.nanmin(xy, axis=0))
