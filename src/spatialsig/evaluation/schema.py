"""Columns of the table of an evaluation, and findings, the reasons to doubt one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spatialsig._checks import check_evaluation

if TYPE_CHECKING:
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


def slide_rows(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Evaluation without the rows of all slides put together.

    Raises :class:`KeyMissingError` or :class:`InputError` if a column that everything reads is missing or no numbers.
    """
    check_evaluation(evaluation, ("method", "signature", "sample", "pearson"))
    return evaluation[evaluation["sample"] != POOLED]


@dataclass(frozen=True)
class Finding:
    """One reason to doubt a result: its name, how bad it is, on which slide, and what to do about it."""

    name: str
    severity: str
    slide: str
    text: str
