"""Patches of a slide drawn over its H&E: their places, and one value of each.

Floor 7, above evaluation. Called as sp.pl.patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Fraction, Key, checked
from spatialsig._checks import check_key
from spatialsig.geometry.affine import apply
from spatialsig.pl.drawing import slide_panels
from spatialsig.pl.drawing.canvas import ACCENT, INK, SCORE_MAP, SECOND, canvas, colour_bar, save_figure
from spatialsig.pl.drawing.maps import cell_corners
from spatialsig.pl.drawing.values import shown_values
from spatialsig.slide.coordinates import full_resolution, image_of, placed, positions, um_to_image
from spatialsig.slide.slides import Data, open_slides

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

    from spatialsig.slide.slides import Slide

PANEL_IN = 5.0
TALLEST_IN = 7.0
MAX_CELLS = 200_000  # more points than a figure has room for are thinned


@checked
def patches(
    data: Data,
    signature: Key | None = None,
    *,
    table_key: Key = _keys.SIGNATURES,
    patches_key: Key = _keys.PATCHES,
    image_key: Key | None = None,
    tissue_key: Key | None = None,
    cells_key: Key | None = None,
    alpha: Fraction = 0.7,
    figure: Figure | None = None,
    save: AnyPath | None = None,
) -> NDArray[Any]:
    """Draw the patches over the H&E, coloured by a signature or by a column when asked.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort (one panel per slide); not modified.
    signature
        What colours the patches: a signature of ``tables[table_key]``, a numeric column of its ``obs``, or a numeric
        column of the patches, such as ``"tissue_fraction"``. None draws outlines.
    table_key
        Table of scores: measured (default) or predicted.
    patches_key
        Shapes element of the patches.
    image_key
        H&E image below; the one the patches were cut from when None.
    tissue_key
        Shapes element of the tissue to outline; None for none.
    cells_key
        Table whose ``obsm["spatial"]`` (µm) is drawn as dots; None for none.
    alpha
        Opacity of the colours, 0 to 1.
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    Axes, ``(n_slides,)``.

    Raises
    ------
    KeyMissingError
        If an element or the signature does not exist; the message lists what does.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> sp.pl.patches(sdata, "Immune_T").shape
    (1,)
    """
    slides = list(open_slides(data))
    values = [None if signature is None else shown_values(s.patches(patches_key), signature, table_key) for s in slides]
    shown = [v for v in values if v is not None]
    norm = slide_panels.robust_limits(shown) if shown else None
    full = [full_resolution(image_of(s, image_key or s.patches(patches_key).spec.image_key)) for s in slides]
    heights = [min(TALLEST_IN, PANEL_IN * level.sizes["y"] / level.sizes["x"]) for level in full]
    drawing = canvas(figure, width_in=PANEL_IN * len(slides), height_in=max(heights) + (1.0 if shown else 0.5))
    axes: NDArray[Any] = drawing.subplots(1, len(slides), squeeze=False)[0]
    for panel, slide, value in zip(axes, slides, values, strict=True):
        _draw_slide(panel, slide, patches_key, image_key, value, norm, alpha)
        if tissue_key is not None:
            _draw_tissue(panel, slide, tissue_key, image_key or slide.patches(patches_key).spec.image_key)
        if cells_key is not None:
            _draw_cells(panel, slide, cells_key, image_key or slide.patches(patches_key).spec.image_key)
    if norm is not None:
        artist = axes[0].collections[0]
        ends = slide_panels.beyond(norm, shown)
        colour_bar(drawing, artist, axes, shrink=0.6, aspect=34, pad=0.02, label=signature, extend=ends)
    save_figure(drawing, save)
    return axes


def _draw_slide(
    panel: Axes, slide: Slide, patches_key: str, image_key: str | None, values: NDArray[np.float64] | None,
    norm: Normalize | None, alpha: float,
) -> None:  # fmt: skip
    patches = slide.patches(patches_key)
    spec = patches.spec
    image = image_of(slide, image_key or spec.image_key)
    level = full_resolution(image)
    box = (0.0, 0.0, float(level.sizes["x"]), float(level.sizes["y"]))
    slide_panels.draw_image(panel, slide_panels.background(image, box, slide=slide.name), grey=values is not None)
    origins = patches.origins
    if values is None or norm is None:
        corners = cell_corners(origins, size=spec.size_l0, stride=spec.size_l0)
        panel.add_collection(PolyCollection(corners, facecolors="none", edgecolors=ACCENT, linewidths=0.6))  # type: ignore[arg-type]
    else:
        corners = cell_corners(origins, size=spec.size_l0, stride=spec.stride_l0)
        slide_panels.draw_patches(panel, corners, values, norm=norm, cmap=SCORE_MAP, alpha=alpha)
    slide_panels.frame(panel, box)
    slide_panels.scale_bar(panel, box, um_per_px=spec.image_um_per_px)
    edge = spec.patch_px * spec.um_per_px
    title = f"{slide.name}: {len(origins):,} patches of {edge:g} µm"
    panel.set_title(title, fontsize=10, loc="left", color=INK)


def _draw_tissue(panel: Axes, slide: Slide, tissue_key: str, image_key: str) -> None:
    lines = outlines(slide, tissue_key, image_key)
    panel.add_collection(PolyCollection(lines, closed=True, facecolors="none", edgecolors=SECOND, linewidths=1.2))


def _draw_cells(panel: Axes, slide: Slide, cells_key: str, image_key: str) -> None:
    slide.table(cells_key, name="cells_key")
    xy = um_to_image(slide, image_key, positions(slide, cells_key))
    step = max(1, len(xy) // MAX_CELLS)
    panel.plot(*xy[::step].T, ".", markersize=0.8, color=INK, alpha=0.6, markeredgewidth=0, rasterized=True)


def outlines(slide: Slide, shapes_key: str, image_key: str) -> list[NDArray[np.float64]]:
    """Every ring, outer ones and holes, of a polygon element, each ``(n_vertices, 2)`` as x, y in image px."""
    check_key(slide.sdata.shapes, shapes_key, name="tissue_key", where=f"the shapes of slide {slide.name!r}")
    slide.lineage.check(shapes_key)
    shapes = slide.sdata.shapes[shapes_key]
    image_to_global = placed(slide, image_of(slide, image_key), f"image {image_key!r}")
    matrix = np.linalg.inv(image_to_global) @ placed(slide, shapes, f"shapes {shapes_key!r}", similar=False)
    rings = shapely.get_rings(shapely.get_parts(shapes.geometry.to_numpy()))
    return [apply(matrix, np.asarray(ring.coords, np.float64)[:, :2]) for ring in rings]
