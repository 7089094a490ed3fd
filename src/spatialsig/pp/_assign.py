"""Membership of cells in patches, through the alignment of the H&E."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._arguments import checked
from spatialsig._checks import warn
from spatialsig.errors import AlignmentError
from spatialsig.geometry.grid import points_in_patches
from spatialsig.slide.coordinates import full_resolution, image_of, positions, um_to_image
from spatialsig.slide.lineage import obsm_of, place_of
from spatialsig.slide.slides import Data, open_slides

if TYPE_CHECKING:
    from spatialsig.slide.slides import Slide

MIN_INSIDE = 0.05  # with fewer cells on the image the alignment must be wrong
WARN_INSIDE = 0.8


@checked
def assign_cells(data: Data, *, patches_key: str = _keys.PATCHES, table_key: str = _keys.TABLE) -> None:
    """Write which patches hold each cell, from the positions of the cells and the alignment of the H&E.

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
        If under 5 % of the cells lie on the image.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.make_patches(sdata, patch_px=56, um_per_px=2.0)
    >>> sp.pp.assign_cells(sdata)
    >>> sdata["table"].obsm["patch_membership"].shape == (sdata["table"].n_obs, len(sdata["patches"]))
    True
    """
    for slide in open_slides(data):
        _assign(slide, patches_key, table_key)


def _assign(slide: Slide, patches_key: str, table_key: str) -> None:
    patches = slide.patches(patches_key)
    image_key = patches.spec.image_key
    xy = um_to_image(slide, image_key, positions(slide, table_key))
    on_image = _share_on_image(slide, image_key, xy)
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


def _share_on_image(slide: Slide, image_key: str, xy: np.ndarray) -> float:
    full = full_resolution(image_of(slide, image_key))
    xy = xy[np.isfinite(xy).all(axis=1)]
    inside = (xy >= 0).all(axis=1) & (xy[:, 0] < full.sizes["x"]) & (xy[:, 1] < full.sizes["y"])
    share = float(inside.mean())
    finding = f"slide {slide.name!r}: {share:.1%} of the cells lie on image {image_key!r}"
    fix = "check the alignment file, and that `obsm['spatial']` is in µm, not pixels"
    if share < MIN_INSIDE:
        msg = f"{finding}; {fix}."
        raise AlignmentError(msg)
    if share < WARN_INSIDE:
        warn(f"{finding}, fewer than {WARN_INSIDE:.0%}; {fix}.")
    return share
