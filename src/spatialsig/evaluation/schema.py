"""Columns of the table of an evaluation, and findings, the reasons to doubt one.

Floor 6. Used by 9 modules of evaluation, pl, report, tl.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pandas as pd

POOLED = "(all slides)"  # in the column of samples: held-out patches of all slides put together
COLUMNS = (
    "method", "signature", "sample", "patient", "n_patches", "pearson", "spearman", "r2", "mae", "ceiling",
    "share_of_ceiling", "ccc", "calibration_slope", "calibration_intercept", "partial_pearson", "p", "q",
    "r_n_cells", "r_log_counts", "stain_shift",
)  # fmt: skip
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
    for column in ("method", "signature", "sample", "pearson", *columns):
        fix = "Make the table with `sp.tl.evaluate`."
        check_key(list(map(str, evaluation.columns)), column, name="column", where="the evaluation table", fix=fix)
    if evaluation.empty:
        msg = "the evaluation table has no rows: no slide was held out."
        raise InputError(msg)
    for column in ("pearson", "share_of_ceiling"):
        texts = [value for value in evaluation.get(column, ()) if isinstance(value, str)]
        if texts:
            msg = (
                f"column {column!r} of the evaluation table holds {texts[0]!r}; wanted numbers (`pandas.read_csv(..., "
                "decimal=',')` reads decimal commas)."
            )
            raise InputError(msg)
    table = evaluation[evaluation["sample"] != POOLED]
    check_judged_once(table, [name for name in ("method", "signature", "sample", _keys.FOLD) if name in table])
    return table


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
