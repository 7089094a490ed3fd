"""Mean correlation of every method on one axis, with the ceiling above all of them.

Floor 7, above evaluation. Called as sp.pl.ladder; used by report/figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spatialsig._arguments import AnyPath, checked
from spatialsig.evaluation.schema import slide_rows
from spatialsig.pl.drawing.canvas import ACCENT, FAINT, GRID, INK, SECOND, canvas, save_figure
from spatialsig.pl.drawing.methods import (
    COLUMNS,
    MEAN,
    MODEL,
    display_name,
    mean_ceiling,
    mean_limits,
    method_order,
    signature_means,
    slide_means,
    worst_slide,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH_IN, ROW_IN = 7.6, 0.34


@checked
def ladder(
    evaluation: pd.DataFrame,
    *,
    summary: pd.DataFrame | None = None,
    figure: Figure | None = None,
    save: AnyPath | None = None,
) -> Axes:
    """Plot the mean Pearson r of every method beside the ceiling that noise in the labels sets.

    A bar is the mean over held-out slides and signatures, a dot one held-out slide (mean over signatures): slides, not
    patches, are what the result is replicated over. The vermilion one is the slide on which the model does worst.

    Parameters
    ----------
    evaluation
        Table of ``tl.evaluate``: one row per method, signature and sample, with columns ``method``, ``signature``,
        ``sample``, ``patient``, ``n_patches``, ``pearson``, ``ceiling``, ``share_of_ceiling``.
    summary
        Table of ``tl.summarise``: bars are then its means over patients (rows ``signature == "mean"``), and a line over
        each is its interval.
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    The axes, best-known methods first. Nothing else is changed.

    Raises
    ------
    KeyMissingError
        If a column is missing.
    InputError
        If the table has no rows.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> axes = sp.pl.ladder(sp.tl.baselines(sdata))
    >>> len(axes.get_yticklabels())  # one bar for each method
    6
    """
    evaluation = slide_rows(evaluation, COLUMNS)
    limits = {} if summary is None else mean_limits(summary)
    methods = method_order(evaluation)
    means, shares = (_means(evaluation, summary, column) for column in ("pearson", "share_of_ceiling"))
    slides = slide_means(evaluation)
    ceiling = mean_ceiling(evaluation)
    drawing = canvas(figure, width_in=WIDTH_IN, height_in=ROW_IN * len(methods) + 1.1)
    axes = drawing.subplots()
    rows = range(len(methods))
    axes.barh(rows, means[methods], height=0.62, color=[ACCENT if m in MODEL else "#a6b1ba" for m in methods])
    for row, method in zip(rows, methods, strict=True):
        if method in limits:
            axes.hlines(row, *limits[method], color=INK, linewidth=1.6)
        r = slides[method].to_numpy()
        axes.plot(r, np.full(len(r), row), "o", color="white", markeredgecolor=INK, markersize=4.5, linewidth=0)
        _beside(axes, row, f"{means[method]:.2f}", f"{shares[method]:.0%}", INK)
    worst = worst_slide(evaluation) if len(slides) > 1 else None
    if worst is not None:
        axes.plot(slides.loc[worst, methods], list(rows), "o", color=SECOND, markersize=4, zorder=3)
    _beside(axes, -1.05, "mean r", "of ceiling", FAINT)
    if np.isfinite(ceiling):
        axes.axvline(ceiling, color=INK, linestyle="--", linewidth=1.2)
        axes.annotate(
            f"ceiling {ceiling:.2f}", (ceiling, 1), (3, 4), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="right", va="bottom", fontsize=9, color=INK,
        )  # fmt: skip
    shown = np.concatenate([slides.to_numpy().ravel(), *(limits[m] for m in methods if m in limits)])
    _dress(axes, [display_name(m) for m in methods], shown, ceiling)
    axes.set_xlabel(_legend(limits=bool(limits), worst=worst), fontsize=9, color=INK)
    save_figure(drawing, save)
    return axes


def _means(evaluation: pd.DataFrame, summary: pd.DataFrame | None, column: str) -> pd.Series:
    """Mean of each method: that of the summary, to which its interval belongs, else over slides and signatures."""
    means = signature_means(evaluation, column).mean(axis=1)
    if summary is None:
        return means
    rows = summary[summary["signature"] == MEAN]
    return rows.set_index("method")[column].reindex(means.index).fillna(means)


def _legend(*, limits: bool, worst: str | None) -> str:
    caption = "Pearson r on held-out slides (bar: mean; dot: one slide"
    caption += f"; vermilion: {worst}, the worst" * (worst is not None) + "; line: 95 % interval" * limits
    return caption + ")"


def _beside(axes: Axes, row: float, mean: str, share: str, colour: str) -> None:
    """Numbers in two columns right of the bars, where no line crosses them."""
    for text, offset_pt in ((mean, 44), (share, 104)):
        shown = "–" if text.startswith("nan") else text.replace("-", "−")  # noqa: RUF001
        axes.annotate(
            shown, (1, row), (offset_pt, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
            ha="right", va="center", fontsize=9, color=colour, annotation_clip=False,
        )  # fmt: skip


def _dress(axes: Axes, names: list[str], rs: NDArray[Any], ceiling: float) -> None:
    low = min(0.0, float(np.nanmin(rs, initial=0.0)) - 0.03)
    high = max(1.0, float(np.nanmax(rs, initial=0.0)) + 0.02, ceiling + 0.02 if np.isfinite(ceiling) else 0)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlim=(low, high), xticks=np.arange(0, 1.01, 0.2))
    axes.set_yticks(range(len(names)), names, fontsize=10, color=INK)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
