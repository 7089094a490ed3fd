"""Learning curves over patients, with all curves that fit.

Floor 7, above evaluation. Called as sp.pl.power; used by cli/judging_commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from spatialsig._arguments import AnyPath, Count, checked
from spatialsig.errors import InputError
from spatialsig.evaluation.learning_curves import MOST, LearningCurves
from spatialsig.pl.drawing.canvas import ACCENT, FAINT, INK, SECOND, save_figure
from spatialsig.pl.drawing.values import panel_grid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

TOP = 1.05  # of the axes: a perfect predictor reaches 1
FARTHER = 3  # times the patients there are that a curve is drawn to


@checked
def power(
    result: LearningCurves, *, n_max: Count | None = None, figure: Figure | None = None, save: AnyPath | None = None
) -> NDArray[Any]:
    """Plot the learning curve of every signature with its interval, the target, and the patients that it takes.

    Parameters
    ----------
    result
        What :func:`spatialsig.tl.power` returned.
    n_max
        Patients that the curves are drawn to; three times those there are when None.
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    Axes ``(n_rows, n_columns)``; unused ones are invisible. Dots are subsets, the line the median of the curves that fit, the band
    their interval with the chance of who the patients are, dashed the target, vermilion the patients that it takes (an
    arrow where these are more than the axis shows). All panels have one scale.

    Raises
    ------
    InputError
        If there is no curve.

    Examples
    --------
    >>> import pandas as pd
    >>> import spatialsig as sp
    >>> from spatialsig.evaluation.learning_curves import summary_of
    >>> rows = [(n, r, "Immune_T", 0.9 - 0.5 / n, 0.9 - 0.5 / n) for n in (1, 2, 4) for r in range(2)]
    >>> points = pd.DataFrame(rows, columns=["n_patients", "repeat", "signature", "pearson", "share_of_ceiling"])
    >>> sp.pl.power(summary_of(points, n_pool=4, target=0.8, level=0.95)).shape
    (1, 1)
    """
    if not result.curves:
        msg = "there is no learning curve: no signature was judged with three numbers of patients or more."
        raise InputError(msg)
    n_now = int(result.points["n_patients"].max())
    n = np.geomspace(1, n_max or FARTHER * n_now, 60)
    _, axes = panel_grid(len(result.curves), figure, xlabel="training patients", ylabel="share of the noise ceiling")
    lowest = min(_panel(panel, result, name, n) for panel, name in zip(axes.flat, result.curves, strict=False))
    for panel in axes.flat:
        panel.set_ylim(min(-0.05, lowest), TOP)  # the same on all, or curves do not compare
    _legend(axes.flat[0].figure, result)
    save_figure(axes.flat[0].figure, save)
    return axes


def _legend(figure: Any, result: LearningCurves) -> None:
    """What dots, line, band, dashes and vermilion are, once for all panels."""
    entries = [
        Line2D([], [], marker="o", color=INK, markersize=3, linewidth=0, alpha=0.6, label="a subset of the patients"),
        Line2D([], [], color=ACCENT, linewidth=1.4, label="curve (median)"),
        Patch(color=ACCENT, alpha=0.18, linewidth=0, label=f"{result.level:.0%} interval of one cohort"),
        Line2D([], [], color=FAINT, linestyle="--", linewidth=1, label=f"target {result.target:g}"),
        Line2D(
            [], [], marker="o", color=SECOND, linewidth=2, markersize=5, label="patients that it takes, with interval"
        ),
    ]
    figure.legend(handles=entries, loc="outside upper center", ncols=3, fontsize=8, frameon=False)


def _panel(axes: Axes, result: LearningCurves, name: str, n: NDArray[np.float64]) -> float:
    """Draw one signature; the lowest value of its band."""
    share, _ = result.curves[name]
    row = result.table.set_index("signature").loc[name].to_dict()
    tails = [(1 - result.level) / 2, 0.5, (1 + result.level) / 2]
    low, _, high = np.quantile([share.of_one_cohort(k) for k in n], tails, axis=1)
    axes.fill_between(n, low, high, color=ACCENT, alpha=0.18, linewidth=0)
    axes.plot(n, [np.median(share.at(k)) for k in n], color=ACCENT, linewidth=1.4)
    points = result.points[result.points["signature"] == name]
    axes.plot(points["n_patients"], points["share_of_ceiling"], "o", color=INK, markersize=2.5, alpha=0.6)
    axes.axhline(result.target, color=FAINT, linestyle="--", linewidth=1)
    if row["needed_low"] <= n[-1] and row["needed"] <= MOST:
        axes.hlines(result.target, row["needed_low"], min(row["needed_high"], n[-1]), color=SECOND, linewidth=2)
        beyond = row["needed"] > n[-1]  # an arrow at the edge of the panel
        at = n[-1] if beyond else row["needed"]
        axes.plot(at, result.target, ">" if beyond else "o", color=SECOND, markersize=6, clip_on=False)
    ticks = [tick for tick in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if tick <= n[-1]]
    axes.set(xscale="log", xlim=(0.9, n[-1]))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_title(f"{name}\n{_needs(row)}", fontsize=8.5, loc="left", color=INK)
    return float(low.min())


def _needs(row: Mapping[Any, Any]) -> str:
    """Patients in short."""
    if row["needed"] > MOST:
        return f"levels off at {row['plateau']:.2f} ({row['plateau_low']:.2f} to {row['plateau_high']:.2f})"
    high = f"{row['needed_high']:.0f}" if row["needed_high"] <= MOST else "no limit"
    return f"{row['needed']:.0f} patients ({row['needed_low']:.0f} to {high})"
