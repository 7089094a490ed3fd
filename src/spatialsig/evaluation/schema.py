"""Columns of the table of an evaluation, and findings, the reasons to doubt one.

Floor 6, above expression, inference, labels. Used by 15 modules of cli, evaluation, pl, referee, report, tl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._checks import check_key, first_few
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pandas as pd

OUTSIDE = "outside"  # in the column of methods: predictions that another model made
POOLED = "(all slides)"  # in the column of samples: held-out patches of all slides put together
COLUMNS = (
    "method", "signature", "sample", "patient", "n_patches", "pearson", "spearman", "r2", "mae", "ceiling",
    "share_of_ceiling", "ccc", "calibration_slope", "calibration_intercept", "partial_pearson", "p", "q",
    "r_n_cells", "r_log_counts", "stain_shift",
)  # fmt: skip
_R, _SHARE = (-1.0, 1.0), (0.0, 1.0)
RANGES = {
    "pearson": _R, "spearman": _R, "ccc": _R, "partial_pearson": _R, "r_n_cells": _R, "r_log_counts": _R,
    "ceiling": _SHARE, "p": _SHARE, "q": _SHARE,
}  # fmt: skip
ERROR = "error"  # the numbers say something else than they seem to
WARNING = "warning"  # the numbers are easily read for more than they are
NOTE = "note"  # worth knowing
SEVERITIES = (ERROR, WARNING, NOTE)
FINDING_COLUMNS = ("name", "severity", "slide", "text")
SHOWN = 4  # names that a text lists
EVERY_SLIDE = ""  # in the column of slides: the whole cohort


def slide_rows(evaluation: pd.DataFrame, columns: Collection[str] = ()) -> pd.DataFrame:
    """Evaluation without the rows of all slides put together.

    Raises :class:`KeyMissingError` if a column that everything reads, or one of ``columns``, is missing, and
    :class:`InputError` if there are no rows, some stand there twice, or text where there should be numbers.
    """
    where, fix = "the evaluation table", "Make the table with `sp.tl.evaluate`."
    for column in ("method", "signature", "sample", "pearson", *columns):
        check_key(list(map(str, evaluation.columns)), column, name="column", where=where, fix=fix)
    if evaluation.empty:
        msg = "the evaluation table has no rows: no slide was held out."
        raise InputError(msg)
    if not evaluation.columns.is_unique:
        repeated = list(map(str, evaluation.columns[evaluation.columns.duplicated()]))
        msg = f"{where} has columns twice: {first_few(repeated)}. {fix}"
        raise InputError(msg)
    for column in (name for name in ("method", "signature", "sample", "patient") if name in evaluation):
        missing = int(evaluation[column].isna().sum())
        if missing:
            msg = f"column {column!r} of {where} is missing in {missing} of {len(evaluation)} rows; fill it in. {fix}"
            raise InputError(msg)
    evaluation = evaluation.assign(**{name: _numbers(evaluation[name]) for name in COLUMNS[4:] if name in evaluation})
    table = evaluation[evaluation["sample"] != POOLED]
    check_judged_once(table, [name for name in ("method", "signature", "sample", _keys.FOLD) if name in table])
    return table


def _numbers(values: pd.Series[Any]) -> pd.Series[Any]:
    """A column as float64, NaN where it is missing; :class:`InputError` for anything but numbers in its range."""
    name, there = str(values.name), values[values.notna()]
    wrong: list[Any] = [value for value in there if isinstance(value, str | bool | np.bool_)]
    if not wrong:
        numbers = there.astype(np.float64)
        low, high = RANGES.get(name, (-np.inf, np.inf))
        wrong = numbers[~numbers.between(low - 1e-6, high + 1e-6) | np.isinf(numbers)].tolist()
    if wrong:
        within = f" from {RANGES[name][0]:g} to {RANGES[name][1]:g}" if name in RANGES else ""
        hint = " (`pandas.read_csv(..., decimal=',')` reads decimal commas)" if isinstance(wrong[0], str) else ""
        msg = f"column {name!r} of the evaluation table holds {wrong[0]!r}; wanted numbers{within}, all of them finite{hint}."
        raise InputError(msg)
    return values.astype(object).where(values.notna(), np.nan).astype(np.float64)


def check_judged_once(evaluation: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise :class:`InputError` where rows have the same values in ``columns``."""
    twice = evaluation.duplicated(list(columns))
    if twice.any():
        row = evaluation[twice].iloc[0]
        msg = (
            f"slide {row['sample']!r} is judged more than once by {row['method']!r}; every slide "
            "may be held out once. Give the table of one evaluation, or of the folds of one cross-validation."
        )
        raise InputError(msg)


@dataclass(frozen=True)
class Finding:
    """One reason to doubt a result: its name, how bad it is, on which slide, and what to do about it."""

    name: str
    severity: str
    slide: str
    text: str
