"""Cells drawn over the H&E, near enough to judge by eye whether they lie on their nuclei.

Floor 7, above evaluation. Called as sp.pl.alignment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Count, Key, Micrometres, checked
from spatialsig._checks import check_choice
from spatialsig.errors import InputError
from spatialsig.pl.drawing.canvas import FAINT, INK, canvas, save_figure
from spatialsig.pl.drawing.slide_panels import background, draw_image, frame, scale_bar
from spatialsig.slide.coordinates import full_resolution, image_of, image_to_um, positions, um_to_image
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data, open_slides
from spatialsig.store.stored.damage import computed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from spatialsig.pl.drawing.slide_panels import Box
    from spatialsig.slide.slides import Slide

CELLS = "#00e0ff"  # seen on pink, on purple and on glass
ARROWS = "#111111"
WIDTH_IN, HEIGHT_IN = 12.5, 6.4
N_WINDOWS = (1, 2, 3, 4)
NUCLEUS_UM = 7.0  # diameter of the circles
SMOOTH_UM = 40.0  # of the density of cells
LONGEST_ARROW = 0.6  # of the distance between two arrows
FULL_ARROW_UM = 5.0  # so that a fraction of a µm does not look like a shift
SHOW_UM = 2.0  # shorter shifts are not drawn into the windows
VISIBLE = 0.25  # a window narrower than this share of its quadrant is not searched more finely


@checked
@needs_cells
def alignment(
    data: Data,
    *,
    n_windows: Count = 4,
    window_um: Micrometres = 120.0,
    image_key: Key = _keys.IMAGE,
    table_key: Key = _keys.TABLE,
    figure: Figure | None = None,
    save: AnyPath | None = None,
) -> NDArray[Any]:
    """Draw the cells of each slide over its H&E: on the whole slide, and in windows at full detail.

    On the left the whole slide with contours of the density of cells and, after ``sp.pp.qc_alignment``, the map of
    shifts: arrows point from the cells to their nuclei on the H&E. On the right a circle around every cell in a few
    windows. On a slide that is aligned well, each circle holds a nucleus; otherwise all miss theirs in the same
    direction, which the arrow in the corner shows in its true length.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort (one row per slide); not modified.
    n_windows
        Number of windows, 1 to 4, spread over the cells.
    window_um
        Edge of a window, µm.
    image_key
        H&E image.
    table_key
        Table of the cells, with positions in ``obsm["spatial"]`` (µm).
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    Axes ``(n_slides, 1 + n_windows)``: the overview, then the windows, all in level-0 px of the H&E. Nothing is written
    to ``data``.

    Raises
    ------
    KeyMissingError
        If the image, the table or the positions are missing; the message names the slide.
    AlignmentError
        If the image has no transformation to ``global``.
    InputError
        If no cell lies on the image, or a number is out of range.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy()
    >>> sp.pl.alignment(sdata, n_windows=2).shape
    (1, 3)
    """
    check_choice(n_windows, N_WINDOWS, name="n_windows")
    slides = list(open_slides(data))
    cells = [_cells_px(slide, image_key, table_key) for slide in slides]
    drawing = canvas(figure, width_in=WIDTH_IN, height_in=HEIGHT_IN * len(slides))
    parts = np.ravel(drawing.subfigures(len(slides), 1, squeeze=False))
    rows = [
        _draw_slide(part, slide, xy, image_key, n_windows, window_um)
        for part, slide, xy in zip(parts, slides, cells, strict=True)
    ]
    save_figure(drawing, save)
    return np.stack(rows)


def _cells_px(slide: Slide, image_key: str, table_key: str) -> NDArray[np.float64]:
    """Cells ``(n, 2)`` in level-0 px; refuses a slide where all lie beside the image."""
    xy = um_to_image(slide, image_key, positions(slide, table_key))
    x0, y0, x1, y1 = _whole(slide, image_key)
    inside = ((xy >= (x0, y0)) & (xy < (x1, y1))).all(axis=1)
    if not inside.any():
        msg = (
            f"slide {slide.name!r}: none of {len(xy)} cells lies on image {image_key!r}; `sp.pp.qc_alignment` tries the "
            f"usual mistakes, `sp.pp.align_he` places the image."
        )
        raise InputError(msg)
    kept: NDArray[np.float64] = xy[inside]
    return kept


def _whole(slide: Slide, image_key: str) -> Box:
    full = full_resolution(image_of(slide, image_key))
    return 0.0, 0.0, float(full.sizes["x"]), float(full.sizes["y"])


def _draw_slide(
    part: SubFigure, slide: Slide, xy: NDArray[np.float64], image_key: str, n_windows: int, window_um: float
) -> NDArray[Any]:
    to_um = image_to_um(slide, image_key)
    um_per_px = float(np.sqrt(abs(np.linalg.det(to_um[:2, :2]))))
    qc = slide.attrs.get("qc_alignment", {})
    qc = qc if qc.get("image_key") == image_key else {}
    boxes = _windows(xy, _whole(slide, image_key), n_windows, window_um / um_per_px)
    names = "ABCD"[: len(boxes)]
    grid = [["whole", "whole", *names[:2]], ["whole", "whole", *(names[2:] or names[:2])]]
    if len(names) == 1:
        grid = [["whole", "whole", "A", "A"]]
    elif len(names) == 3:
        grid[1][3] = "."
    axes = part.subplot_mosaic(grid)
    _draw_overview(axes["whole"], slide, image_key, xy, um_per_px)
    for name, box in zip(names, boxes, strict=True):
        _mark(axes["whole"], name, box)
        _draw_window(axes[name], slide, image_key, xy, box, um_per_px)
        axes[name].set_title(name, loc="left", fontsize=10, fontweight="bold", color=INK)
        if qc.get("shift_um") is not None:
            _draw_true_shift(axes[name], box, _to_px(to_um, [[qc["dx_um"], qc["dy_um"]]])[0], qc["shift_um"])
    if qc:
        _draw_map(axes["whole"], qc, to_um, um_per_px)
    part.suptitle(_title(slide, qc), x=0.01, ha="left", fontsize=12, color=INK)
    return np.array([axes["whole"], *(axes[name] for name in names)], dtype=object)


def _draw_overview(axes: Axes, slide: Slide, image_key: str, xy: NDArray[np.float64], um_per_px: float) -> None:
    box = _whole(slide, image_key)
    shown = background(image_of(slide, image_key), box, slide=slide.name)
    draw_image(axes, shown, grey=False)
    step = SMOOTH_UM / um_per_px / 4
    edges = [np.arange(low, high + step, step) for low, high in ((box[1], box[3]), (box[0], box[2]))]
    density = gaussian_filter(np.histogram2d(xy[:, 1], xy[:, 0], bins=edges)[0], 4, mode="constant")
    middles = [edge[:-1] + step / 2 for edge in edges]
    levels = density.max() * np.array([0.15, 0.5])
    lines = axes.contour(middles[1], middles[0], density, levels=levels, colors=CELLS, linewidths=1.1)
    lines.set_path_effects([withStroke(linewidth=2.2, foreground=INK, alpha=0.5)])
    frame(axes, box)
    scale_bar(axes, box, um_per_px=um_per_px)
    axes.set_title("H&E, contours: density of the cells", loc="left", fontsize=10, color=INK)


def _mark(axes: Axes, name: str, box: Box) -> None:
    x0, y0, x1, y1 = box
    axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=INK, linewidth=1.3))
    text = axes.text(x0, y0, name, fontsize=10, fontweight="bold", color=INK, ha="left", va="bottom")
    text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _draw_window(axes: Axes, slide: Slide, image_key: str, xy: NDArray[np.float64], box: Box, um_per_px: float) -> None:
    x0, y0, x1, y1 = (int(edge) for edge in box)
    pixels = computed(full_resolution(image_of(slide, image_key))[:3, y0:y1, x0:x1])
    axes.imshow(np.moveaxis(pixels, 0, -1), extent=(x0, x1, y1, y0), origin="upper", interpolation="bicubic", zorder=0)
    reach = NUCLEUS_UM / um_per_px
    near = xy[((xy > (x0 - reach, y0 - reach)) & (xy < (x1 + reach, y1 + reach))).all(axis=1)]
    for colour, width in ((INK, 2.0), (CELLS, 1.1)):
        circles = EllipseCollection(
            [reach], [reach], [0], units="xy", offsets=near, transOffset=axes.transData,
            facecolors="none", edgecolors=colour, linewidths=width, alpha=0.45 if colour == INK else 1.0,
        )  # fmt: skip
        axes.add_collection(circles)
    frame(axes, (x0, y0, x1, y1))
    scale_bar(axes, (x0, y0, x1, y1), um_per_px=um_per_px)


def _draw_true_shift(axes: Axes, box: Box, shift_px: NDArray[np.float64], shift_um: float) -> None:
    """Draw the shift from the circles to the nuclei, in its true length, in the upper right corner."""
    x0, y0, x1, y1 = box
    if shift_um < SHOW_UM:
        return
    middle = np.array([x0 + 0.82 * (x1 - x0), y0 + 0.18 * (y1 - y0)])
    start, end = middle - shift_px / 2, middle + shift_px / 2
    disc = 0.5 * float(np.hypot(*shift_px)) + 0.05 * (x1 - x0)
    axes.add_collection(
        EllipseCollection([2 * disc], [2 * disc], [0], units="xy", offsets=[middle], transOffset=axes.transData,
                          facecolors="white", edgecolors="none", alpha=0.85, zorder=4)
    )  # fmt: skip
    axes.annotate(
        "", xytext=tuple(start), xy=tuple(end), zorder=5,
        arrowprops={"arrowstyle": "-|>,head_width=0.25,head_length=0.5", "color": ARROWS, "linewidth": 2,
                    "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def _draw_map(axes: Axes, qc: dict[str, Any], to_um: NDArray[np.float64], um_per_px: float) -> None:
    """Arrows of the shifts in the boxes where one was clear, small crosses elsewhere."""
    from_um = np.linalg.inv(to_um)
    regions = qc["regions"]
    middles = np.array([[r["x_um"], r["y_um"]] for r in regions]) @ from_um[:2, :2].T + from_um[:2, 2]
    clear = np.array([r["dx_um"] is not None for r in regions])
    axes.plot(*middles[~clear].T, "x", markersize=4, color=FAINT, zorder=6)
    if not clear.any():
        return
    shifts = _to_px(to_um, [[r["dx_um"], r["dy_um"]] for r in regions if r["dx_um"] is not None])
    longest_um = um_per_px * float(np.hypot(*shifts.T).max())
    spacing = float(np.ptp(middles, axis=0).max()) / max(qc["n_regions"] - 1, 1) or 1.0
    stretch = LONGEST_ARROW * spacing * um_per_px / max(longest_um, FULL_ARROW_UM)
    axes.quiver(
        *middles[clear].T, *(shifts * stretch).T, angles="xy", scale_units="xy", scale=1, color=ARROWS, width=0.006,
        edgecolor="white", linewidth=0.6, zorder=7, minlength=0,
    )  # fmt: skip
    title = f"H&E, contours: density of the cells; arrows: to the nuclei, longest {longest_um:.1f} µm"
    axes.set_title(title, loc="left", fontsize=10, color=INK)


def _to_px(to_um: NDArray[np.float64], shift_um: Any) -> NDArray[np.float64]:
    """Shifts ``(n, 2)`` from µm to px of the image."""
    shifts: NDArray[np.float64] = np.asarray(shift_um, np.float64) @ np.linalg.inv(to_um)[:2, :2].T
    return shifts


def _title(slide: Slide, qc: dict[str, Any]) -> str:
    if not qc:
        return f"{slide.name}: shift not measured (sp.pp.qc_alignment)"
    if qc["shift_um"] is None:
        return f"{slide.name}: {qc['verdict']}" + (f", {qc['mistake']}" if qc["mistake"] else "")
    dx, dy = (round(qc[axis], 1) + 0.0 for axis in ("dx_um", "dy_um"))  # never "-0.0"
    shift = f"H&E {qc['shift_um']:.1f} µm off the cells (x {dx:+.1f}, y {dy:+.1f})"
    return f"{slide.name}: {qc['verdict']}, {shift}"


def _windows(xy: NDArray[np.float64], whole: Box, n_windows: int, edge: float) -> list[Box]:
    """Boxes of ``edge`` px, each in its own part of the slide, where there are many cells but not the most."""
    edge = min(edge, whole[2], whole[3])
    low, high = xy.min(axis=0), xy.max(axis=0)
    middle = np.median(xy, axis=0)
    if n_windows == 1:
        return [_window_in(xy, low, high, whole, edge)]
    corners = [(0, 0), (1, 0), (0, 1), (1, 1)][:n_windows] if n_windows != 2 else [(0, 0), (1, 1)]
    return [
        _window_in(xy, np.where(corner, middle, low), np.where(corner, high, middle), whole, edge) for corner in corners
    ]


def _window_in(
    xy: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64], whole: Box, edge: float
) -> Box:
    """Box whose middle lies between ``low`` and ``high`` and that holds a typical number of cells."""
    steps = max(2, min(12, int(np.ceil((high - low).max() / (VISIBLE * edge)))))
    places = [np.linspace(a + (b - a) * 0.15, b - (b - a) * 0.15, steps) for a, b in zip(low, high, strict=True)]
    middles = np.stack(np.meshgrid(*places), axis=-1).reshape(-1, 2)
    corner = np.clip(middles - edge / 2, 0, np.array(whole[2:]) - edge)
    counts = np.array([((xy >= c) & (xy < c + edge)).all(axis=1).sum() for c in corner])
    typical = np.quantile(counts[counts > 0], 0.7) if (counts > 0).any() else 0
    x0, y0 = np.floor(corner[np.abs(counts - typical).argmin()])
    return float(x0), float(y0), float(x0 + np.floor(edge)), float(y0 + np.floor(edge))
