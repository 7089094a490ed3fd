"""Predicted against measured scores, patch by patch.

Floor 7, above evaluation. Called as sp.pl.scatter; used by report/figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, Natural, checked
from spatialsig.pl.drawing.canvas import FAINT, INK, save_figure
from spatialsig.pl.drawing.values import MAX_NAMED, ScoreTables, collect_pairs, panel_grid, slide_colour
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data
from spatialsig.stats.agreement import agreement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from spatialsig.pl.drawing.values import Pairs

MAX_POINTS = 5_000  # beyond, points hide each other: show their density
MIDDLE = (0.2, 99.8)  # percentiles of the axes: a few extreme patches must not press all others into a corner


@checked
@needs_cells
def scatter(
    data: Data,
    signature: str | Sequence[str] | None = None,
    *,
    signatures_key: Key = _keys.SIGNATURES,
    predictions_key: Key = _keys.SIGNATURES_PRED,
    patches_key: Key = _keys.PATCHES,
    fold: Natural | None = None,
    figure: Figure | None = None,
    save: AnyPath | None = None,
) -> NDArray[Any]:
    """Plot predicted against measured scores of every labelled patch, one panel per signature.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort (one colour per slide); not modified.
    signature
        One name or several; all signatures both tables hold when None.
    signatures_key, predictions_key, patches_key
        Tables of measured and predicted scores, and the shapes element they annotate.
    fold
        Use only patches of this fold (``obs["fold"]``); None uses all.
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    Axes ``(n_rows, n_columns)``; unused ones are invisible. The dashed line is identity; Pearson r of each slide stands
    in the legend. Above 5,000 patches their density is shown instead of points, darker where there are more. Nothing
    is written to ``data``.

    Raises
    ------
    KeyMissingError
        If a table, the patches or the signature is missing; the message names the slide.
    InputError
        If no patch has both a measured and a predicted score.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study(predicted=True)
    >>> sp.pl.scatter(sdata, ["Immune_T", "Immune_B"]).shape
    (1, 2)
    """
    tables = ScoreTables(signatures_key, predictions_key, patches_key, fold)
    axes = draw_scatter(collect_pairs(data, signature, tables), figure)
    save_figure(axes.flat[0].figure, save)
    return axes


def draw_scatter(pairs: Mapping[str, Pairs], figure: Figure | None) -> NDArray[Any]:
    """One panel per signature of scores that were collected before."""
    _, axes = panel_grid(len(pairs), figure, xlabel="measured score", ylabel="predicted score")
    for panel, (name, slides) in zip(axes.flat, pairs.items(), strict=False):
        _panel(panel, name, slides)
    return axes


def _panel(axes: Axes, name: str, slides: Pairs) -> None:
    measured, predicted = (np.concatenate(part) for part in zip(*slides.values(), strict=True))
    low, high = np.percentile([measured, predicted], MIDDLE)
    gap = 0.04 * (high - low) or 1.0
    axes.set(xlim=(low - gap, high + gap), ylim=(low - gap, high + gap))
    axes.axline((low, low), slope=1, color=FAINT, linestyle="--", linewidth=1, zorder=3)
    if dense := len(measured) > MAX_POINTS:
        window = (low - gap, high + gap, low - gap, high + gap)
        axes.hexbin(measured, predicted, gridsize=45, bins="log", cmap="Blues", mincnt=1, linewidths=0.1, extent=window)
    else:
        _points(axes, slides, measured, predicted)
    axes.legend(
        handles=_handles(slides, dense=dense), fontsize=7.5, loc="upper left", handletextpad=0.1, borderaxespad=0.2,
        handlelength=0.5 if dense or len(slides) > MAX_NAMED else 1, framealpha=0.7, edgecolor="none",
    )  # fmt: skip
    axes.set_title(name, fontsize=10, loc="left", color=INK)


def _points(axes: Axes, slides: Pairs, measured: NDArray[np.float64], predicted: NDArray[np.float64]) -> None:
    # in random order, so that no slide is drawn over all others
    order = np.random.default_rng(0).permutation(len(measured))
    colours = np.repeat(
        [slide_colour(i, len(slides)) for i in range(len(slides))], [len(x) for x, _ in slides.values()]
    )
    alpha = float(np.clip(15 / np.sqrt(len(measured)), 0.12, 0.7))
    axes.scatter(measured[order], predicted[order], s=7, c=colours[order], alpha=alpha, linewidths=0, rasterized=True)


def _handles(slides: Pairs, *, dense: bool) -> list[Line2D]:
    rs = {name: agreement(x, y)["pearson"] for name, (x, y) in slides.items()}
    if len(slides) > MAX_NAMED:
        values = np.array(list(rs.values()))
        text = f"{len(slides)} slides: mean r = {np.nanmean(values):.2f}\n({np.nanmin(values):.2f} to {np.nanmax(values):.2f})"
        return [Line2D([], [], linestyle="", label=text)]
    marker = "" if dense else "o"
    return [
        Line2D([], [], marker=marker, linestyle="", color=slide_colour(i, len(slides)), label=_legend_text(name, r))
        for i, (name, r) in enumerate(rs.items())
    ]


def _legend_text(name: str, r: float) -> str:
    return f"{name}: no r" if np.isnan(r) else f"{name}: r = {r:.2f}"
