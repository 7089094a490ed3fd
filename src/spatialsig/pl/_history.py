"""Training curves of a model, epoch by epoch.

Floor 7, above evaluation. Called as sp.pl.history; used by report/figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spatialsig._arguments import AnyPath, checked
from spatialsig._checks import check_key
from spatialsig.errors import InputError
from spatialsig.pl.drawing.canvas import ACCENT, FAINT, INK, SECOND, canvas, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_IN = (3.6, 2.7)
LOG_RANGE = 20  # losses that fall by more than this factor are drawn on a logarithmic axis


@checked
def history(history: Any, *, figure: Figure | None = None, save: AnyPath | None = None) -> NDArray[Any]:
    """Plot the training curves of a model: loss, validation correlation where there is one, learning rate.

    Parameters
    ----------
    history
        One row per epoch with columns ``epoch``, ``train_loss``, ``val_loss`` (may be NaN), ``lr``, and perhaps
        ``val_pearson`` and ``seconds``; or a model that carries such a table as ``history``.
    figure, save
        Figure to draw on (emptied and resized), a new pyplot one when None; file to write it to, format by its ending.

    Returns
    -------
    Axes ``(n_panels,)``: loss, validation r (where known), learning rate. Nothing else is changed.

    Raises
    ------
    InputError
        If there is no table, or it has no epoch.
    KeyMissingError
        If a column is missing.

    Examples
    --------
    >>> import pandas as pd
    >>> import spatialsig as sp
    >>> table = pd.DataFrame({"epoch": [0, 1], "train_loss": [0.9, 0.5], "val_loss": [1.0, 0.7], "lr": [1e-3, 5e-4]})
    >>> sp.pl.history(table).shape
    (2,)
    """
    table = _table(history)
    with_r = "val_pearson" in table and bool(table["val_pearson"].notna().any())
    n_panels = 2 + with_r
    drawing = canvas(figure, width_in=PANEL_IN[0] * n_panels, height_in=PANEL_IN[1])
    axes: NDArray[Any] = drawing.subplots(1, n_panels, squeeze=False)[0]
    titles = ["Loss" + _losses(axes[0], table)]
    if with_r:
        _curve(axes[1], table, "val_pearson", "validation", SECOND)
        best = _mark_best(axes[1], table, "val_pearson", int(np.nanargmax(table["val_pearson"])))
        titles.append("Validation Pearson r" + best)
    _curve(axes[-1], table, "lr", "learning rate", FAINT)
    titles.append("Learning rate")
    for panel, title in zip(axes, titles, strict=True):
        panel.set_title(title, fontsize=10, loc="left", color=INK)
        panel.set_xlabel("epoch", fontsize=9, color=INK)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        panel.xaxis.get_major_locator().set_params(integer=True)
    save_figure(drawing, save)
    return axes


def _table(history: Any) -> pd.DataFrame:
    run = getattr(history, "run", {})
    table = pd.DataFrame(run["history"]) if "history" in run else history
    if not isinstance(table, pd.DataFrame):
        msg = (
            f"`history=<{type(history).__name__}>` of `sp.pl.history` must be a DataFrame of training curves or a model "
            'that carries them as `run["history"]`.'
        )
        raise InputError(msg)
    for column in ("epoch", "train_loss", "val_loss", "lr"):
        check_key(list(table.columns), column, name="column", where="the training history")
    if table.empty:
        msg = "the training history has no epoch yet."
        raise InputError(msg)
    return table


def _losses(axes: Axes, table: pd.DataFrame) -> str:
    """Draw both losses; say which epoch was best, where a validation tells."""
    _curve(axes, table, "train_loss", "training", ACCENT)
    best = ""
    if table["val_loss"].notna().any():
        _curve(axes, table, "val_loss", "validation", SECOND)
        best = _mark_best(axes, table, "val_loss", int(np.nanargmin(table["val_loss"])))
    losses = table[["train_loss", "val_loss"]].to_numpy(float)
    if np.nanmin(losses) > 0 and np.nanmax(losses) / np.nanmin(losses) > LOG_RANGE:
        axes.set_yscale("log")
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    return best


def _curve(axes: Axes, table: pd.DataFrame, column: str, label: str, colour: str) -> None:
    rows = table[table[column].notna()]
    marker = "o" if len(rows) == 1 else ""
    axes.plot(rows["epoch"], rows[column], color=colour, label=label, linewidth=1.6, marker=marker)


def _mark_best(axes: Axes, table: pd.DataFrame, column: str, row: int) -> str:
    best = table.iloc[row]
    axes.plot([best["epoch"]], [best[column]], "o", color=SECOND, markersize=5)
    return f" (best {best[column]:.3g}, epoch {int(best['epoch'])})"
