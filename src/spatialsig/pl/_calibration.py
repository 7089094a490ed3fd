"""Calibration of predicted scores: measured means at each tenth of the predictions.

Floor 7, above evaluation. Called as sp.pl.calibration; used by report/figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Count, Key, Natural, checked
from spatialsig.pl.drawing.canvas import FAINT, INK, save_figure
from spatialsig.pl.drawing.values import MAX_NAMED, ScoreTables, collect_pairs, panel_grid, slide_colour
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data
from spatialsig.stats.agreement import agreement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from spatialsig.pl.drawing.values import Pairs

N_BINS = 10
MIN_PER_BIN = 5  # fewer patches make no mean worth a point


@checked
@needs_cells
def calibration(
    data: Data,
    signature: str | Sequence[str] | None = None,
    *,
    n_bins: Count = N_BINS,
    signatures_key: Key = _keys.SIGNATURES,
    predictions_key: Key = _keys.SIGNATURES_PRED,
    patches_key: Key = _keys.PATCHES,
    fold: Natural | None = None,
    figure: Figure | None = None,
    save: AnyPath | None = None,
) -> NDArray[Any]:
    """Plot measured scores at each tenth of the predicted ones, one panel per signature.

    The patches of a slide are sorted by their predicted score and dealt into bins of equal size. On the dashed line a
    predicted difference of 1 is a measured difference of 1. The slope of a slide is that of measured on predicted
    scores by least squares: above 1 the predictions are too timid, below 1 they are too bold.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort (one line per slide); not modified.
    signature
        One name or several; all signatures both tables hold when None.
    n_bins
        Bins of predicted scores; fewer where a slide has less than five patches for each.
    signatures_key, predictions_key, patches_key, fold, figure, save
        As in :func:`scatter`.

    Returns
    -------
    Axes ``(n_rows, n_columns)``; unused ones are invisible. Each point is the mean measured over the mean predicted
    score of a bin, its bar the middle half of the measured scores. Nothing is written to ``data``.

    Raises
    ------
    KeyMissingError
        If a table, the patches or the signature is missing; the message names the slide.
    InputError
        If ``n_bins`` is not positive, or no patch has both a measured and a predicted score.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study(predicted=True)
    >>> sp.pl.calibration(sdata, "Immune_T").shape
    (1, 1)
    """
    tables = ScoreTables(signatures_key, predictions_key, patches_key, fold)
    axes = draw_calibration(collect_pairs(data, signature, tables), figure, n_bins=n_bins)
    save_figure(axes.flat[0].figure, save)
    return axes


def draw_calibration(pairs: Mapping[str, Pairs], figure: Figure | None, *, n_bins: int = N_BINS) -> NDArray[Any]:
    """One panel per signature of scores that were collected before."""
    _, axes = panel_grid(len(pairs), figure, xlabel="predicted score (mean of a bin)", ylabel="measured score")
    for panel, (name, slides) in zip(axes.flat, pairs.items(), strict=False):
        _panel(panel, name, slides, n_bins)
    return axes


def bins_of(
    measured: NDArray[np.float64], predicted: NDArray[np.float64], *, n_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean predicted, mean measured ``(n,)`` and quartiles of measured ``(2, n)`` of bins of equal size."""
    order = np.argsort(predicted, kind="stable")
    parts = np.array_split(order, max(1, min(n_bins, len(order) // MIN_PER_BIN)))
    x = np.array([predicted[part].mean() for part in parts])
    y = np.array([measured[part].mean() for part in parts])
    quartiles = np.array([np.percentile(measured[part], (25, 75)) for part in parts]).T
    return x, y, quartiles


def _panel(axes: Axes, name: str, slides: Pairs, n_bins: int) -> None:
    handles, slopes = [], []
    for i, (slide, (measured, predicted)) in enumerate(slides.items()):
        x, y, (low, high) = bins_of(measured, predicted, n_bins=n_bins)
        colour = slide_colour(i, len(slides))
        axes.vlines(x, low, high, color=colour, linewidth=0.8, alpha=0.5)
        axes.plot(x, y, "o-", color=colour, markersize=4, linewidth=1.2)
        slopes.append(agreement(measured, predicted)["calibration_slope"])
        handles.append(
            Line2D([], [], color=colour, marker="o", markersize=4, label=f"{slide}: {_slope_text(slopes[-1])}")
        )
    if len(slides) > MAX_NAMED:
        finite = [slope for slope in slopes if np.isfinite(slope)]
        span = f"\nslopes {min(finite):.2f} to {max(finite):.2f}" if finite else ""
        handles = [Line2D([], [], linestyle="", label=f"{len(slides)} slides{span}")]
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    axes.axline((0, 0), slope=1, color=FAINT, linestyle="--", linewidth=1, zorder=1)
    axes.set(xlim=(x0, x1), ylim=(y0, y1))
    axes.legend(handles=handles, fontsize=7.5, loc="upper left", framealpha=0.7, edgecolor="none", borderaxespad=0.2)
    axes.set_title(name, fontsize=10, loc="left", color=INK)


def _slope_text(slope: float) -> str:
    return "no slope" if np.isnan(slope) else f"slope {slope:.2f}"
