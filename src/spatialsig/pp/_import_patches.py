"""Patches from the tiles that squidpy, sopa or LazySlide cut.

Floor 7, above evaluation. Called as sp.pp.import_patches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from spatialsig import _keys
from spatialsig._arguments import Fraction, Key, NewKey, UmPerPx, checked
from spatialsig._checks import check_choice, check_key
from spatialsig.errors import InputError
from spatialsig.geometry.grid import smallest_step
from spatialsig.pp._elements import check_resolution, tissue_of, write_patches
from spatialsig.pp._segmentation import tissue_fraction
from spatialsig.pp._tiles import TOOLS, read_tiles, resolution_of
from spatialsig.slide.added import check_added
from spatialsig.slide.coordinates import image_of, image_um_per_px
from spatialsig.slide.parts import with_place
from spatialsig.slide.patches import level_read
from spatialsig.slide.records import PatchSpec
from spatialsig.slide.slides import Data, open_slides

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide


@checked
def import_patches(
    data: Data,
    source_key: Key,
    *,
    tool: str | None = None,
    um_per_px: UmPerPx | None = None,
    min_tissue: Fraction | None = None,
    tissue_key: Key | None = None,
    image_key: Key = _keys.IMAGE,
    key_added: NewKey = _keys.PATCHES,
) -> None:
    """Make patches of the tiles that another tool cut, so that every later function works on them.

    Read are tiles of ``squidpy.experimental.im.make_tiles``, patches of ``sopa.make_image_patches``, tiles of LazySlide
    (wsidata), and shapes of any other origin that are squares of one size. Of sopa's patches, whose geometries are cut along
    the tissue, the whole squares are taken that its column ``bboxes`` holds.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    source_key
        Shapes element with the tiles.
    tool
        ``"squidpy"``, ``"sopa"`` or ``"lazyslide"``; ``None`` tells by the columns.
    um_per_px
        Resolution the model will see, µm/px; by default that for which the tool cut (LazySlide's ``mpp``), or that of
        the scan.
    min_tissue
        Smallest share of tissue in a patch, 0 to 1. ``None`` keeps the tool's own choice: of squidpy's tiles those that
        are classified as tissue, of the others all.
    tissue_key
        Shapes or labels that say where tissue is, as in :func:`make_patches`.
    image_key
        H&E image the tiles lie on, ``(c, y, x)`` uint8.
    key_added
        Name of the shapes element; an element of that name is replaced.

    Returns
    -------
    Nothing; writes ``shapes[key_added]`` and ``attrs["spatialsig"]["patches"][key_added]`` as :func:`make_patches` does,
    in the order of the tiles. Tiles that the border of the image cuts are left out; ``made_by`` says how many came from
    which tool.

    Raises
    ------
    KeyMissingError
        If there are no shapes ``source_key``.
    InputError
        If the tiles are not squares of one size, finer than the scan, or none is left, if two are the same, or columns say
        that they lie elsewhere than their geometries or are of another size.
    AlignmentError
        If they lie off the image, or their transformation squeezes, shears or cannot be inverted.

    Warns
    -----
    SpatialsigWarning
        If every one of sopa's ``bboxes`` is larger than its geometry, which the tissue alone does not explain.

    Examples
    --------
    >>> import geopandas as gpd
    >>> import shapely
    >>> from spatialdata.models import ShapesModel
    >>> from spatialdata.transformations import get_transformation
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> frames = get_transformation(sdata["he_image"], get_all=True)
    >>> tiles = gpd.GeoDataFrame(geometry=[shapely.box(x, 200, x + 56, 256) for x in (200, 256, 312)])
    >>> sdata["tiles"] = ShapesModel.parse(tiles, transformations=frames)
    >>> sp.pp.import_patches(sdata, "tiles")
    >>> sdata["patches"]["x0"].tolist()
    [200, 256, 312]
    """
    if tool is not None:
        check_choice(tool, TOOLS, name="tool")
    for slide in open_slides(data):
        check_key(slide.sdata.shapes, source_key, name="source_key", where=f"the shapes of slide {slide.name!r}")
        check_added(slide, key_added, made_by="pp.import_patches")
    for slide in open_slides(data):
        _import(
            slide, source_key, _tool(slide, source_key, tool), um_per_px, min_tissue, tissue_key, image_key, key_added
        )


def _tool(slide: Slide, source_key: str, tool: str | None) -> str:
    columns = slide.sdata.shapes[source_key].columns
    if tool is None:
        return next((name for name, column in TOOLS.items() if column in columns), "shapes")
    if TOOLS[tool] not in columns:
        msg = (
            f"slide {slide.name!r}: shapes {source_key!r} are not of {tool}: no column {TOOLS[tool]!r} among "
            f"{list(columns)}; leave `tool` out to take them as plain squares."
        )
        raise InputError(msg)
    return tool


def _import(
    slide: Slide, source_key: str, tool: str, um_per_px: float | None, min_tissue: float | None, tissue_key: str | None,
    image_key: str, key_added: str,
) -> None:  # fmt: skip
    image_of(slide, image_key)
    tiles = slide.sdata.shapes[source_key]
    chosen = np.ones(len(tiles), bool)
    if tool == "squidpy" and min_tissue is None and "tile_classification" in tiles:
        chosen = (tiles["tile_classification"] == "tissue").to_numpy()
    origins, size, whole = read_tiles(slide, source_key, image_key, tool)
    spec = _spec(slide, tool, source_key, image_key, size, origins[whole], um_per_px, min_tissue)
    mask, used = tissue_of(slide, image_key, tissue_key)
    tissue = tissue_fraction(mask, origins, size=size)
    keep = whole & chosen & (tissue >= spec.min_tissue)
    if not keep.any():
        msg = (
            f"slide {slide.name!r}: of {len(tiles)} tiles in {source_key!r}, {whole.sum()} lie whole on the image, "
            f"{chosen.sum()} were chosen by {tool}, and the most tissue in one is {tissue.max(initial=0):.0%}; none is "
            "left. Pass `min_tissue=` to choose by the share of tissue."
        )
        raise InputError(msg)
    spec = replace(spec, tissue_key=used, made_by=f"{tool}: {keep.sum()} of {len(tiles)} {source_key!r}")
    write_patches(
        slide, key_added, spec, origins[keep], tissue[keep], "pp.import_patches", sources=with_place(source_key)
    )


def _spec(
    slide: Slide, tool: str, source_key: str, image_key: str, size: int, origins: NDArray[np.int64],
    um_per_px: float | None, min_tissue: float | None,
) -> PatchSpec:  # fmt: skip
    scan = image_um_per_px(slide, image_key)
    if um_per_px is None and tool == "lazyslide":
        um_per_px = resolution_of(slide, source_key, size, scan)
    resolution = um_per_px or scan
    check_resolution(slide, resolution, scan)
    patch_px = max(1, round(size * scan / resolution))
    level, resample = level_read(slide, image_key, size_l0=size, out_px=patch_px)
    return PatchSpec(
        image_key=image_key, patch_px=patch_px, um_per_px=size * scan / patch_px, size_l0=size,
        stride_l0=smallest_step(origins, size), image_um_per_px=scan, min_tissue=min_tissue or 0.0, level=level,
        resample=resample,
    )  # fmt: skip
