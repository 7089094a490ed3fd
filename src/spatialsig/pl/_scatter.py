"""Predicted against measured scores, patch by patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from spatialsig import _keys
from spatialsig._errors import InputError
from spatialsig.data.patch_table import patch_spec
from spatialsig.data.slides import open_slides
from spatialsig.pl._canvas import ACCENT, FAINT, INK, canvas, save_figure
from spatialsig.pl._draw import series_colour
from spatialsig.pl._values import patch_values, signature_table
from spatialsig.stats.agreement import agreement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from spatialsig.data.slides import Data, Slide

Pairs = dict[str, tuple["NDArray[np.float64]", "NDArray[np.float64]"]]  # slide -> measured, predicted

PANEL_IN = 3.1
MAX_COLUMNS = 3
MAX_POINTS = 20_000  # beyond, points hide each other: show their density
MAX_NAMED = 6  # slides in a legend


def scatter(
    data: Data,
    signature: str | Sequence[str] | None = None,
    *,
    signatures_key: str = _keys.SIGNATURES,
    predictions_key: str = _keys.SIGNATURES_PRED,
    patches_key: str = _keys.PATCHES,
    fold: int | None = None,
    figure: Figure | None = None,
    save: str | Path | None = None,
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
    figure
        Figure to draw on (emptied and resized); a new one of pyplot when None.
    save
        File to write the figure to; the ending decides the format.

    Returns
    -------
    Axes ``(n_rows, n_columns)``; unused ones are invisible. The dashed line is identity; Pearson r of each slide stands
    in the legend. Above 20,000 patches their density is shown instead of points. Nothing is written to ``data``.

    Raises
    ------
    KeyMissingError
        If a table, the patches or the signature is missing; the message names the slide.
    InputError
        If no patch has both a measured and a predicted score.
    """
    keys = {"signatures_key": signatures_key, "predictions_key": predictions_key}
    asked = [signature] if isinstance(signature, str) else signature
    pairs: dict[str, Pairs] = {}
    for slide in open_slides(data):
        for name in _names(slide, keys) if asked is None else asked:
            found = _pairs(slide, name, keys, patches_key, fold)
            if len(found[0]):
                pairs.setdefault(name, {})[slide.name] = found
    if not pairs:
        msg = f"no patch has both a measured and a predicted score (signatures {asked or 'all'}, `fold={fold}`)."
        raise InputError(msg)
    axes = _draw(pairs, figure)
    save_figure(axes.flat[0].figure, save)
    return axes


def _names(slide: Slide, keys: dict[str, str]) -> list[str]:
    measured, predicted = (signature_table(slide, key, name=name).var_names for name, key in keys.items())
    return [name for name in measured if name in set(predicted)]


def _pairs(
    slide: Slide, signature: str, keys: dict[str, str], patches_key: str, fold: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    patch_spec(slide, patches_key)  # names what is missing
    measured, predicted = (
        patch_values(
            slide, signature_table(slide, key, name=name), signature,
            table_key=key, patches_key=patches_key, fold=fold,
        )
        for name, key in keys.items()
    )  # fmt: skip
    both = np.isfinite(measured) & np.isfinite(predicted)
    return measured[both], predicted[both]


def _draw(pairs: dict[str, Pairs], figure: Figure | None) -> NDArray[Any]:
    columns = min(MAX_COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    drawing = canvas(figure, width_in=PANEL_IN * columns + 0.3, height_in=PANEL_IN * rows + 0.3)
    axes = drawing.subplots(rows, columns, squeeze=False)
    for panel, (name, slides) in zip(axes.flat, pairs.items(), strict=False):
        _panel(panel, name, slides)
    for panel in axes.flat[len(pairs) :]:
        panel.set_visible(False)
    drawing.supxlabel("measured score", fontsize=10, color=INK)
    drawing.supylabel("predicted score", fontsize=10, color=INK)
    return axes


def _panel(axes: Axes, name: str, slides: Pairs) -> None:
    measured, predicted = (np.concatenate(part) for part in zip(*slides.values(), strict=True))
    low, high = min(measured.min(), predicted.min()), max(measured.max(), predicted.max())
    axes.plot([low, high], [low, high], color=FAINT, linestyle="--", linewidth=1, zorder=3)
    dense = len(measured) > MAX_POINTS
    if dense:
        axes.hexbin(measured, predicted, gridsize=60, bins="log", cmap="Blues", mincnt=1, linewidths=0.1)
    else:
        # in random order, so that no slide is drawn over all others
        order = np.random.default_rng(0).permutation(len(measured))
        colours = np.repeat([_colour(i, slides) for i in range(len(slides))], [len(x) for x, _ in slides.values()])
        alpha = float(np.clip(15 / np.sqrt(len(measured)), 0.12, 0.7))
        axes.scatter(
            measured[order], predicted[order], s=7, c=colours[order], alpha=alpha, linewidths=0, rasterized=True
        )
    handles = []
    for i, (slide, (x, y)) in enumerate(slides.items()):
        label = f"{slide}: r = {agreement(x, y)['pearson']:.2f}"
        marker = "" if dense else "o"
        handles.append(Line2D([], [], marker=marker, linestyle="", color=_colour(i, slides), label=label))
    if len(slides) > MAX_NAMED:
        rs = [agreement(x, y)["pearson"] for x, y in slides.values()]
        text = f"{len(slides)} slides: mean r = {np.nanmean(rs):.2f}\n({np.nanmin(rs):.2f} to {np.nanmax(rs):.2f})"
        handles = [Line2D([], [], linestyle="", label=text)]
    axes.legend(
        handles=handles, fontsize=7.5, frameon=False, loc="upper left", handletextpad=0.1, borderaxespad=0.2,
        handlelength=0.5 if dense or len(slides) > MAX_NAMED else 1,
    )  # fmt: skip
    axes.set_title(name, fontsize=10, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.set_box_aspect(1)


def _colour(index: int, slides: Pairs) -> str:
    return series_colour(index) if len(slides) <= MAX_NAMED else ACCENT
