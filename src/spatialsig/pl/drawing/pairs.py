"""Measured and predicted scores of the same patches, slide by slide, and a grid of panels to show them in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from spatialsig import _keys
from spatialsig.errors import InputError
from spatialsig.pl.drawing.canvas import ACCENT, canvas
from spatialsig.pl.drawing.slide_panels import series_colour
from spatialsig.pl.drawing.values import patch_values, signature_table
from spatialsig.slide.slides import open_slides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Data, Slide

Pair: TypeAlias = "tuple[NDArray[np.float64], NDArray[np.float64]]"  # measured, predicted
Pairs: TypeAlias = "dict[str, Pair]"  # slide -> its pair

PANEL_IN = 3.1
MAX_COLUMNS = 3
MAX_NAMED = 6  # slides in a legend


def collect_pairs(
    data: Data,
    signature: str | Sequence[str] | None,
    *,
    signatures_key: str = _keys.SIGNATURES,
    predictions_key: str = _keys.SIGNATURES_PRED,
    patches_key: str = _keys.PATCHES,
    fold: int | None = None,
) -> dict[str, Pairs]:
    """Pairs of every slide by signature; patches that lack either score are left out.

    Raises
    ------
    KeyMissingError
        If a table, the patches or the signature is missing; the message names the slide.
    InputError
        If no patch has both a measured and a predicted score.
    """
    asked = [signature] if isinstance(signature, str) else signature
    pairs: dict[str, Pairs] = {}
    for slide in open_slides(data):
        of_slide = slide_pairs(
            slide, asked, signatures_key=signatures_key, predictions_key=predictions_key, patches_key=patches_key,
            fold=fold,
        )  # fmt: skip
        for name, pair in of_slide.items():
            pairs.setdefault(name, {})[slide.name] = pair
    if not pairs:
        msg = f"no patch has both a measured and a predicted score (signatures {asked or 'all'}, `fold={fold}`)."
        raise InputError(msg)
    return pairs


def slide_pairs(
    slide: Slide,
    signatures: Sequence[str] | None,
    *,
    signatures_key: str,
    predictions_key: str,
    patches_key: str,
    fold: int | None,
) -> dict[str, Pair]:
    """Pairs of one slide by signature, all that both tables hold when None; none without a common patch."""
    patches = slide.patches(patches_key)
    keys = {"signatures_key": signatures_key, "predictions_key": predictions_key}
    tables = {name: signature_table(slide, key, name=name) for name, key in keys.items()}
    if signatures is None:
        measured_names, predicted_names = (table.var_names for table in tables.values())
        signatures = [name for name in measured_names if name in set(predicted_names)]
    pairs = {}
    for signature in signatures:
        measured, predicted = (
            patch_values(patches, key, signature, name=name, fold=fold) for name, key in keys.items()
        )
        both = np.isfinite(measured) & np.isfinite(predicted)
        if both.any():
            pairs[signature] = measured[both], predicted[both]
    return pairs


def panel_grid(n_panels: int, figure: Figure | None, *, xlabel: str, ylabel: str) -> tuple[Figure, NDArray[Any]]:
    """A figure and its axes ``(n_rows, n_columns)`` with shared labels; unused axes are invisible."""
    columns = min(MAX_COLUMNS, n_panels)
    rows = -(-n_panels // columns)
    drawing = canvas(figure, width_in=PANEL_IN * columns + 0.3, height_in=PANEL_IN * rows + 0.3)
    axes: NDArray[Any] = drawing.subplots(rows, columns, squeeze=False)
    for unused in axes.flat[n_panels:]:
        unused.set_visible(False)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        panel.set_box_aspect(1)
    drawing.supxlabel(xlabel, fontsize=10)
    drawing.supylabel(ylabel, fontsize=10)
    return drawing, axes


def slide_colour(index: int, n_slides: int) -> str:
    """Colour of one slide among others; the same for all where there are too many to tell apart."""
    return series_colour(index) if n_slides <= MAX_NAMED else ACCENT
