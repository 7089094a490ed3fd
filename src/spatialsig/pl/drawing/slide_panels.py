"""The H&E, small enough to draw, and patches over it. Arrays in, artists out.

Floor 7, above evaluation. Used by 13 modules of atlas, pl, report, whole_slides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from xarray import DataArray, DataTree

from spatialsig.errors import InputError
from spatialsig.pl.drawing.canvas import GRID, INK, SERIES
from spatialsig.store.chunk_files import check_whole
from spatialsig.store.layout import levels_of
from spatialsig.store.stored.damage import computed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MAX_PX = 1500  # longest edge of what is drawn
READ_AT_MOST = 2  # times MAX_PX along the longest edge, before averaging
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in level-0 px
ROBUST = (2, 98)  # percentiles: a few extreme patches must not flatten the map
BAR_SHARE = 0.25  # longest scale bar, as a share of the width


@dataclass(frozen=True)
class Background:
    """RGB pixels ``(h, w, 3)`` uint8 and the box of the slide they show, level-0 px."""

    rgb: NDArray[np.uint8]
    box: Box


def background(image: DataArray | DataTree, box: Box, *, slide: str, max_px: int = MAX_PX) -> Background:
    """Read ``box`` of an H&E from the coarse level that fills ``max_px`` best; a pyramid's finest level is left alone."""
    check_whole(image)
    levels, width_l0 = _levels(image)
    if levels[0].sizes["c"] < 3:
        msg = f"slide {slide!r}: wanted an RGB image; it has {levels[0].sizes['c']} channel(s)."
        raise InputError(msg)
    edge_l0 = max(box[2] - box[0], box[3] - box[1])
    edges = [edge_l0 * level.sizes["x"] / width_l0 for level in levels]
    best = _best_level(edges, max_px)
    level, step = levels[best], int(np.ceil(edges[best] / max_px))
    scale = width_l0 / level.sizes["x"]  # level-0 px per pixel of the level
    x0, y0 = int(box[0] // scale), int(box[1] // scale)
    x1 = min(level.sizes["x"], int(np.ceil(box[2] / scale)))
    y1 = min(level.sizes["y"], int(np.ceil(box[3] / scale)))
    stride = step if edges[best] > READ_AT_MOST * max_px else 1  # far too fine: look at every n-th pixel
    crop = computed(level[:3, y0:y1:stride, x0:x1:stride])
    rgb = to_uint8(block_mean(crop, 1 if stride > 1 else step))
    drawn = scale * step
    return Background(
        rgb, (x0 * scale, y0 * scale, x0 * scale + rgb.shape[1] * drawn, y0 * scale + rgb.shape[0] * drawn)
    )


def greyed(rgb: NDArray[np.uint8], *, strength: float = 0.55) -> NDArray[np.uint8]:
    """Tissue in pale grey, so that colours laid over it keep the meaning the colour bar gives them."""
    grey = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    pale = 255 - strength * (255 - grey)
    return np.repeat(pale.round().astype(np.uint8)[..., None], 3, axis=-1)


def _levels(image: DataArray | DataTree) -> tuple[list[Any], int]:
    if not isinstance(image, DataTree):
        return [image], image.sizes["x"]
    levels = sorted(levels_of(image), key=lambda level: -level.sizes["x"])
    return levels[1:] or levels, levels[0].sizes["x"]


def _best_level(edges: list[float], max_px: int) -> int:
    """Level that leaves most pixels after averaging down to ``max_px``, among those cheap to read; coarsest of equals."""
    cheap = [i for i, edge in enumerate(edges) if edge <= READ_AT_MOST * max_px] or [len(edges) - 1]
    return max(cheap, key=lambda i: (round(edges[i] / np.ceil(edges[i] / max_px)), i))


def block_mean(pixels: NDArray[Any], step: int) -> NDArray[Any]:
    """Means of squares of ``step`` px of an image ``(c, h, w)``; what is left over at the ends is left out."""
    if step == 1:
        return pixels
    c, h, w = pixels.shape[0], pixels.shape[1] // step, pixels.shape[2] // step
    blocks = pixels[:, : h * step, : w * step].reshape(c, h, step, w, step)
    means = blocks.mean(axis=(2, 4), dtype=np.float32)
    averaged: NDArray[Any] = means.round().astype(pixels.dtype) if np.issubdtype(pixels.dtype, np.integer) else means
    return averaged


def to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours ``(h, w, c)`` of an image ``(c, h, w)``."""
    rgb: NDArray[Any] = np.moveaxis(pixels, 0, -1)
    if rgb.dtype == np.uint8:
        return rgb
    top = float(np.iinfo(rgb.dtype).max) if np.issubdtype(rgb.dtype, np.integer) else 1.0
    scaled: NDArray[np.uint8] = (np.clip(rgb.astype(np.float32) / top, 0, 1) * 255).round().astype(np.uint8)
    return scaled


def robust_limits(values: Sequence[NDArray[np.float64]], *, cut: bool = True) -> Normalize:
    """Colour scale over the middle 96 % of all finite values, or over all of them where nothing is ``cut`` off."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    low, high = np.percentile(finite, ROBUST if cut else (0, 100)) if finite.size else (0.0, 1.0)
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
