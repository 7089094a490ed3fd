"""Draw patches over an image. Arrays in, artists out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from spatialsig.pl.drawing.background import greyed
from spatialsig.pl.drawing.canvas import GRID, INK, SERIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from spatialsig.pl.drawing.background import Background, Box

ROBUST = (2, 98)  # percentiles: a few extreme patches must not flatten the map
BAR_SHARE = 0.25  # longest scale bar, as a share of the width


def robust_limits(values: Sequence[NDArray[np.float64]]) -> Normalize:
    """Colour scale over the middle 96 % of all finite values."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    low, high = np.percentile(finite, ROBUST) if finite.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1)


def centred_limits(values: Sequence[NDArray[np.float64]]) -> Normalize:
    """Colour scale from -a to a, where 98 % of all finite values lie within."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    reach = float(np.percentile(np.abs(finite), ROBUST[1])) if finite.size else 1.0
    return Normalize(-(reach or 1.0), reach or 1.0)


def draw_image(axes: Axes, image: Background, *, grey: bool) -> None:
    """Lay the H&E below everything, in level-0 px."""
    x0, y0, x1, y1 = image.box
    axes.imshow(greyed(image.rgb) if grey else image.rgb, extent=(x0, x1, y1, y0), origin="upper", zorder=0)


def draw_patches(
    axes: Axes, corners: NDArray[np.float64], values: NDArray[np.float64], *, norm: Normalize, cmap: str, alpha: float
) -> PolyCollection:
    """Squares coloured by value; those without a value stay transparent."""
    see_through = colormaps[cmap].with_extremes(bad=(0, 0, 0, 0))
    # no outlines and no smoothing of edges: either would draw a lattice over semi-transparent squares
    cells = PolyCollection(
        corners,  # type: ignore[arg-type]  # the stubs do not know that an array is the fast way
        cmap=see_through,
        norm=norm,
        alpha=alpha,
        linewidths=0,
        antialiaseds=False,
        rasterized=True,
    )
    cells.set_array(np.ma.masked_invalid(values))
    axes.add_collection(cells)
    return cells


def frame(axes: Axes, box: Box) -> None:
    """Show ``box`` upright: y runs down, as in the image."""
    x0, y0, x1, y1 = box
    axes.set(xlim=(x0, x1), ylim=(y1, y0), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_color(GRID)


def scale_bar(axes: Axes, box: Box, *, um_per_px: float) -> None:
    """A bar of a round length at the lower left."""
    x0, y0, x1, y1 = box
    length_um = round_length((x1 - x0) * um_per_px * BAR_SHARE)
    length, thick, gap = length_um / um_per_px, 0.012 * (y1 - y0), 0.035 * min(x1 - x0, y1 - y0)
    bar = Rectangle(
        (x0 + gap, y1 - gap - thick), length, thick, facecolor=INK, edgecolor="white", linewidth=1, zorder=5
    )
    axes.add_patch(bar)
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} µm"
    label = axes.text(
        x0 + gap + length / 2, y1 - gap - 2 * thick, text, ha="center", va="bottom", fontsize=8, color=INK
    )
    label.set_path_effects([withStroke(linewidth=3, foreground="white")])
    label.set_zorder(6)


def round_length(longest_um: float) -> float:
    """Largest 1, 2 or 5 times a power of ten that is not longer than ``longest_um``."""
    power = 10.0 ** np.floor(np.log10(longest_um))
    return float(power * max(step for step in (1, 2, 5) if step * power <= longest_um * (1 + 1e-9)))


def beyond(norm: Normalize, values: Sequence[NDArray[np.float64]]) -> str:
    """Ends of a colour bar that need an arrow, because values lie beyond."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    low, high = bool((finite < norm.vmin).any()), bool((finite > norm.vmax).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[low, high]


def series_colour(index: int) -> str:
    """Colour of the ``index``-th slide; they repeat after eight."""
    return SERIES[index % len(SERIES)]
