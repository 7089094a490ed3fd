"""Square patches of a fixed physical size, cut from the H&E.

Floor 7, above evaluation. Called as sp.pp.make_patches; used by 5 modules of cli, datasets, pipeline, whole_slides.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._arguments import Count, Fraction, Key, Micrometres, Natural, NewKey, UmPerPx, checked
from spatialsig.errors import InputError
from spatialsig.geometry.grid import patch_origins, points_in_patches
from spatialsig.pp._elements import patch_spec, tissue_of, write_patches
from spatialsig.pp._segmentation import tissue_fraction
from spatialsig.slide.added import check_added
from spatialsig.slide.coordinates import full_resolution, image_of, positions, um_to_image
from spatialsig.slide.each import map_slides
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.records import PatchSpec
    from spatialsig.slide.slides import Slide

PATCH_PX, UM_PER_PX = 224, 0.5


@checked
def make_patches(
    data: Data,
    *,
    patch_px: Count | None = None,
    um_per_px: UmPerPx | None = None,
    patch_um: Micrometres | None = None,
    stride_um: Micrometres | None = None,
    overlap: Fraction | None = None,
    around: Key | None = None,
    min_tissue: Fraction = 0.25,
    tissue_key: Key | None = None,
    min_cells: Natural = 0,
    table_key: Key = _keys.TABLE,
    image_key: Key = _keys.IMAGE,
    key_added: NewKey = _keys.PATCHES,
) -> None:
    """Cut the H&E into square patches: a grid over its tissue, or one patch around each spot.

    Only whole patches are kept: on a grid, the right and bottom rims narrower than a patch are not covered.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    patch_px, um_per_px, patch_um
        Edge of a patch as the model will see it, px; resolution the model will see, µm/px; edge of a patch on the slide,
        µm. Any two give the third; with fewer, ``um_per_px`` is 0.5 and ``patch_px`` 224, which covers 112 µm.
    stride_um, overlap
        Step between neighbouring patches, µm, or the share of a patch that its neighbour covers too, 0 up to (not
        including) 1; one or the other. Neither means no overlap and no gap.
    around
        Table whose rows are the centres of the patches, for technologies with spots (Visium, legacy ST); ``None``
        (default) lays a grid.
    min_tissue
        Smallest share of tissue in a patch, 0 to 1.
    tissue_key
        Shapes or labels that say where tissue is: of :func:`find_tissue`, squidpy (``detect_tissue``), sopa or LazySlide.
        ``None`` takes ``shapes["tissue"]`` if :func:`find_tissue` made it on this image, otherwise finds tissue with
        its defaults. What was used is recorded.
    min_cells
        Smallest number of cells in a patch; above 0 it needs ``table_key``.
    table_key
        Table of the cells, positions in µm in ``obsm["spatial"]``; read only where ``min_cells`` is above 0.
    image_key
        H&E image, ``(c, y, x)`` uint8.
    key_added
        Name of the shapes element; an element of that name is replaced.

    Returns
    -------
    Nothing; writes ``shapes[key_added]``, ``n_patches`` squares in H&E pixels that carry all transformations of the
    image, indexed ``0..n_patches - 1``, with columns ``y0``, ``x0`` (level-0 px), ``row``, ``col`` (of the grid; whole
    strides around spots) and ``tissue_fraction``; and ``attrs["spatialsig"]["patches"][key_added]`` with the sizes, the ``level`` of the pyramid that will be read, its px per
    px of a patch (``resample``) and the ``tissue_key`` used.

    Raises
    ------
    KeyMissingError
        If there is no image ``image_key``, tissue ``tissue_key`` or table ``table_key``.
    InputError
        If sizes contradict each other, the patch does not fit the image, is finer than the scan, or no patch holds enough tissue and cells.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pp.make_patches(sdata, patch_px=56, um_per_px=2.0)
    >>> sdata["patches"].columns.tolist()
    ['geometry', 'y0', 'x0', 'row', 'col', 'tissue_fraction']
    """
    size = _size(patch_px, um_per_px, patch_um)
    stride = _stride(size, stride_um, overlap)
    cells = (table_key, min_cells) if min_cells > 0 else None
    asked = _Asked(size, stride, min_tissue, image_key, around, tissue_key, cells, key_added)
    map_slides(data, partial(_cut, asked=asked), "patches")


def _cut(slide: Slide, *, asked: _Asked) -> None:
    check_added(slide, asked.key_added, made_by="pp.make_patches")
    spec = patch_spec(
        slide,
        patch_px=asked.size.px,
        um_per_px=asked.size.um_per_px,
        stride_um=asked.stride_um,
        min_tissue=asked.min_tissue,
        image_key=asked.image_key,
    )
    _lay(slide, spec, _origins(slide, spec, asked.around), asked.tissue_key, asked.cells, asked.key_added)


@dataclass(frozen=True)
class _Size:
    """Edge of a patch in px of the model, and the µm of such a px."""

    px: int
    um_per_px: float

    @property
    def um(self) -> float:
        return self.px * self.um_per_px


@dataclass(frozen=True)
class _Asked:
    """What all slides are cut by."""

    size: _Size
    stride_um: float
    min_tissue: float
    image_key: str
    around: str | None
    tissue_key: str | None
    cells: tuple[str, int] | None  # table of the cells, and how many a patch holds at least
    key_added: str


def _size(patch_px: int | None, um_per_px: float | None, patch_um: float | None) -> _Size:
    """Size from any two of the three, or the defaults."""
    if um_per_px is None:
        um_per_px = UM_PER_PX if patch_um is None or patch_px is None else patch_um / patch_px
    if patch_px is None:
        patch_px = PATCH_PX if patch_um is None else max(1, round(patch_um / um_per_px))
        # the px are whole: the resolution gives way, so that the patch covers what was asked for
        um_per_px = um_per_px if patch_um is None else patch_um / patch_px
    if patch_um is not None and abs(patch_px * um_per_px - patch_um) > um_per_px / 2:
        msg = (
            f"`patch_px={patch_px}` at `um_per_px={um_per_px}` is {patch_px * um_per_px:g} µm, which contradicts "
            f"`patch_um={patch_um}`; leave one of the three out."
        )
        raise InputError(msg)
    return _Size(patch_px, um_per_px)


def _stride(size: _Size, stride_um: float | None, overlap: float | None) -> float:
    if stride_um is not None and overlap is not None:
        msg = f"`stride_um={stride_um}` and `overlap={overlap}` say the same thing; pass one of them."
        raise InputError(msg)
    if overlap is not None:
        if not 0 <= overlap < 1:
            msg = f"`overlap` must lie between 0 and 1, 1 not included; got {overlap!r}."
            raise InputError(msg)
        return size.um * (1 - overlap)
    if stride_um is not None:
        return stride_um
    return size.um


def _origins(slide: Slide, spec: PatchSpec, around: str | None) -> NDArray[np.int64]:
    """Corners ``(n, 2)`` as y0, x0 of the patches that lie wholly on the image."""
    full = full_resolution(image_of(slide, spec.image_key))
    height, width, size = full.sizes["y"], full.sizes["x"], spec.size_l0
    if around is None:
        return patch_origins(height, width, patch_px=size, stride_px=spec.stride_l0)
    slide.table(around, name="around")
    centres = um_to_image(slide, spec.image_key, positions(slide, around))
    centres = centres[np.isfinite(centres).all(axis=1)]
    origins = np.rint(centres[:, ::-1] - size / 2).astype(np.int64)
    return origins[(origins >= 0).all(axis=1) & (origins + size <= (height, width)).all(axis=1)]


def _lay(
    slide: Slide, spec: PatchSpec, origins: NDArray[np.int64], tissue_key: str | None, cells: tuple[str, int] | None,
    key_added: str,
) -> None:  # fmt: skip
    mask, used = tissue_of(slide, spec.image_key, tissue_key)
    tissue = tissue_fraction(mask, origins, size=spec.size_l0)
    keep = tissue >= spec.min_tissue
    if not keep.any():
        msg = (
            f"slide {slide.name!r}: none of {len(origins)} patches has {spec.min_tissue:.0%} tissue (the most is "
            f"{tissue.max(initial=0):.0%}); lower `min_tissue` or look at the image."
        )
        raise InputError(msg)
    if cells is not None:
        keep &= _enough_cells(slide, spec, origins, keep, *cells)
    write_patches(slide, key_added, replace(spec, tissue_key=used), origins[keep], tissue[keep], "pp.make_patches")


def _enough_cells(
    slide: Slide, spec: PatchSpec, origins: NDArray[np.int64], candidates: NDArray[np.bool_], table_key: str,
    min_cells: int,
) -> NDArray[np.bool_]:  # fmt: skip
    slide.table(table_key)
    xy = um_to_image(slide, spec.image_key, positions(slide, table_key))
    count = np.asarray(points_in_patches(xy, origins, size=spec.size_l0).getnnz(axis=0))
    enough: NDArray[np.bool_] = count >= min_cells
    if not (enough & candidates).any():
        msg = (
            f"slide {slide.name!r}: none of {candidates.sum()} patches on tissue holds {min_cells} cells of table "
            f"{table_key!r} (the most is {count.max(initial=0)}); lower `min_cells` or check the alignment."
        )
        raise InputError(msg)
    return enough
