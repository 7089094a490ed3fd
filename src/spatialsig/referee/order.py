"""Rows of predictions in another order than their patches: known mistakes tried, and order that is lost altogether.

Floor 11, above report. Used by referee/doubts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig.stats.agreement import pearson
from spatialsig.stats.baselines import neighbour_mean
from spatialsig.stats.significance import combine, field, most_of, shift_p

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

BETTER = 0.15  # of r, by which another order must agree better
BEYOND_CHANCE = 0.02  # p of that order under shifts
KEPT = 0.25  # part of the resemblance of neighbours among labels that predictions must keep
RESEMBLES = 0.15  # resemblance of neighbours among labels below which nothing can be told
MIN_LEFT = 0.5  # share of the judged patches that an order must leave with a prediction
MOST_SLIDES = 8  # that are exchanged with each other
OTHER_SLIDE = "those of another slide"
ROUGH_Z = 2.5  # standard errors from 0 within which neighbours do not resemble each other


@dataclass(frozen=True)
class Sheet:
    """All patches of one slide: what was predicted, what was measured, and where they lie."""

    ids: NDArray[Any]  # (n,)
    predicted: Floats  # (n, t), NaN where a patch has no prediction
    labels: Floats  # (n, t), NaN where a patch is not judged
    row: Ints
    col: Ints
    step: int  # grid cells to the next patch that does not overlap


def best_order(sheets: Sequence[Sheet]) -> tuple[str, float, float]:
    """Name of the order under which predictions agree far better than as they are (empty without one), that r, and r as they are."""
    own = _mean_r([sheet.predicted for sheet in sheets], sheets)
    tried = _tried(sheets)
    found = {name: _mean_r(values, sheets) for name, values in tried.items()}
    name = max(found, key=lambda order: np.nan_to_num(found[order], nan=-np.inf))
    if not found[name] > own + BETTER or not _beyond_chance(tried[name], sheets):
        return "", own, own
    return name, found[name], own


def _tried(sheets: Sequence[Sheet]) -> dict[str, list[Floats]]:
    """Name of an order -> predictions of each slide in it."""
    orders = [_orders(sheet) for sheet in sheets]
    tried = {
        name: [_taken(sheet.predicted, of[name]) for sheet, of in zip(sheets, orders, strict=True)]
        for name in orders[0]
        if all(name in of for of in orders)
    }
    for shift in range(1, min(len(sheets), MOST_SLIDES)):
        pairs = [(sheet, sheets[(k + shift) % len(sheets)]) for k, sheet in enumerate(sheets)]
        tried[f"{OTHER_SLIDE} ({shift} further)"] = [_by_id(*pair) for pair in pairs]
        tried[f"{OTHER_SLIDE} ({shift} further), by place"] = [_by_place(*pair) for pair in pairs]
    return tried


def _orders(sheet: Sheet) -> dict[str, Ints]:
    """Name -> row of the prediction that each patch would get, -1 for none."""
    row, col = sheet.row - sheet.row.min(), sheet.col - sheet.col.min()
    height, width = int(row.max()), int(col.max())
    places = {
        "mirrored left to right": (row, width - col),
        "mirrored top to bottom": (height - row, col),
        "turned by 180 degrees": (height - row, width - col),
        "with x and y exchanged": (col, row),
        "with x and y exchanged, from the other corner": (height - col, width - row),
        "turned by 90 degrees": (height - col, row),
        "turned by 270 degrees": (col, width - row),
    }
    found = {name: _at(row, col, y, x) for name, (y, x) in places.items()}
    return found | _sorted_otherwise(sheet)


def _at(row: Ints, col: Ints, y: Ints, x: Ints) -> Ints:
    """Patch at each place ``(y, x)``, -1 where there is none."""
    size = int(max(row.max(), col.max())) + 1
    grid = np.full((size + 1, size + 1), -1, np.int64)  # what lies beside it meets the last row or column
    grid[row, col] = np.arange(len(row))
    y, x = (np.where((places < 0) | (places >= size), size, places) for places in (y, x))
    return np.asarray(grid[y, x])


def _sorted_otherwise(sheet: Sheet) -> dict[str, Ints]:
    """Orders in which the rows that were predicted may have been written beside the ids of all of them."""
    there = np.flatnonzero(np.isfinite(sheet.predicted).any(axis=1))
    n = np.arange(len(there))
    text = np.argsort(sheet.ids[there].astype(str), kind="stable")
    by_column = np.lexsort((sheet.row[there], sheet.col[there]))
    among = {
        "in the order of their ids as text (0, 1, 10, 11, 2)": np.argsort(text),
        "in the order of their ids as numbers, beside ids in that of text": text,
        "column by column in the place of row by row": np.argsort(by_column),
        "row by row in the place of column by column": by_column,
        "from the last to the first": n[::-1],
        "one row late": np.roll(n, 1),
        "one row early": np.roll(n, -1),
    }
    orders = {}
    for name, order in among.items():
        orders[name] = np.full(len(sheet.row), -1, np.int64)
        orders[name][there] = there[order]
    return orders


def _taken(values: Floats, rows: Ints) -> Floats:
    return np.where((rows >= 0)[:, None], values[np.maximum(rows, 0)], np.nan)


def _by_id(sheet: Sheet, other: Sheet) -> Floats:
    """Predictions of another slide for the patches of this one with the same ids."""
    return _taken(other.predicted, pd.Index(other.ids).get_indexer(pd.Index(sheet.ids)))


def _by_place(sheet: Sheet, other: Sheet) -> Floats:
    """The same for patches at the same row and column."""
    return _taken(other.predicted, _at(other.row, other.col, sheet.row, sheet.col))


def _mean_r(values: Sequence[Floats], sheets: Sequence[Sheet]) -> float:
    """Mean r over signatures and slides; NaN with fewer than half of the judged patches."""
    rs = []
    for predicted, sheet in zip(values, sheets, strict=True):
        judged = np.isfinite(sheet.labels).any(axis=1)
        if np.isfinite(predicted[judged]).any(axis=1).mean() < MIN_LEFT:
            return np.nan
        r = pearson(sheet.labels, predicted)
        rs.append(_mean([r]))
    return float(np.mean(rs))


def _mean(values: Sequence[Floats]) -> float:
    """Mean of what is known; NaN where nothing is."""
    known = np.concatenate(list(values))
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else np.nan


def _beyond_chance(values: Sequence[Floats], sheets: Sequence[Sheet]) -> bool:
    """Whether predictions in this order agree with the labels better than shifts of them do."""
    p = []
    for predicted, sheet in zip(values, sheets, strict=True):
        maps = [[field(column, sheet.row, sheet.col) for column in table.T] for table in (sheet.labels, predicted)]
        p.append(most_of(np.array([shift_p(*pair) for pair in zip(*maps, strict=True)])))
    return bool(combine(np.array(p)) <= BEYOND_CHANCE)


def lost_order(sheets: Sequence[Sheet]) -> tuple[bool, float, float]:
    """Whether predictions of neighbours are as unlike as those of any two patches while labels resemble each other.

    Also returns the mean correlation of a patch with the mean of those around it, among predictions and among labels.
    """
    predicted, labels, n = [], [], 0
    for sheet in sheets:
        judged = np.isfinite(sheet.labels).any(axis=1) & np.isfinite(sheet.predicted).any(axis=1)
        predicted.append(resemblance(sheet.predicted[judged], sheet.row[judged], sheet.col[judged], sheet.step))
        labels.append(resemblance(sheet.labels[judged], sheet.row[judged], sheet.col[judged], sheet.step))
        n += int(judged.sum())
    mine, theirs = (_mean(values) for values in (predicted, labels))
    rough = mine <= max(KEPT * theirs, ROUGH_Z / np.sqrt(max(n, 1)))
    return bool(theirs > RESEMBLES and rough and mine < theirs / 2), mine, theirs


def resemblance(values: Floats, row: Ints, col: Ints, step: int) -> Floats:
    """Correlation of each patch with the mean of the up to eight around it, ``(t,)``."""
    if len(values) < 3:
        return np.full(values.shape[1], np.nan)
    return pearson(values, neighbour_mean(values, row, col, step=step))
