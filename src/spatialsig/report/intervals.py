"""Prediction intervals of a calibrated model: what they promise, how wide they are, and what they held.

Floor 10, above cohort. Used by report/document, report/slide_cards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig.slide.table_rows import dense

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from spatialsig.slide.slides import Slide

Held = dict[
    str, list["NDArray[np.bool_]"]
]  # signature -> of every held-out slide, whether each measured score lies in its interval


@dataclass(frozen=True)
class IntervalRow:
    """Intervals of one signature, from one kind of input."""

    signature: str
    inputs: str
    coverage: float  # promised
    half_width: float  # median, in units of the score
    lowest: float  # share held on the worst and the best slide that they were calibrated on
    highest: float
    held: float  # share held on held-out patches
    n_patches: int  # held-out ones


def held_on(
    slide: Slide, *, patches_key: str, signatures_key: str, predictions_key: str
) -> dict[str, NDArray[np.bool_]]:
    """Signature -> whether each measured score of a slide lies in its interval; empty where there are none."""
    tables = slide.sdata.tables
    predicted = tables.get(predictions_key)
    if predicted is None or signatures_key not in tables or not {_keys.LOWER, _keys.UPPER} <= set(predicted.layers):
        return {}
    patches = slide.patches(patches_key)
    measured, rows = patches.matrix(signatures_key, name="signatures_key"), patches.rows_in(predictions_key)
    ends = [
        np.where(rows[:, None] >= 0, dense(predicted.layers[name])[rows], np.nan) for name in (_keys.LOWER, _keys.UPPER)
    ]
    found = {}
    for column, name in enumerate(predicted.var_names):
        if name in measured.names:
            values = measured.values[:, measured.names.index(name)]
            low, high = (end[:, column] for end in ends)
            known = np.isfinite(values) & np.isfinite(low) & np.isfinite(high)
            found[str(name)] = (values >= low)[known] & (values <= high)[known]
    return found


def interval_rows(intervals: pd.DataFrame | None, held: Mapping[str, list[NDArray[np.bool_]]]) -> list[IntervalRow]:
    """Lines of the table of intervals, from the table of ``tl.calibrate`` and what was held on held-out slides."""
    if intervals is None:
        return []
    return [_row({str(key): value for key, value in row.items()}, held) for row in intervals.to_dict("records")]


def _row(row: dict[str, Any], held: Mapping[str, list[NDArray[np.bool_]]]) -> IntervalRow:
    name = str(row["signature"])
    inside = np.concatenate(held.get(name) or [np.zeros(0, bool)])
    return IntervalRow(
        signature=name, inputs=str(row.get("inputs", "")), coverage=float(row["coverage"]), half_width=float(row["half_width"]),
        lowest=float(row.get("lowest", np.nan)), highest=float(row.get("highest", np.nan)),
        held=float(inside.mean()) if len(inside) else np.nan, n_patches=len(inside),
    )  # fmt: skip
