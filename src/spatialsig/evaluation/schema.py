"""Columns of the table of an evaluation, and the rows of it that stand for single slides."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

POOLED = "(all slides)"  # in the column of samples: held-out patches of all slides put together
COLUMNS = (
    "method", "signature", "sample", "patient", "n_patches", "pearson", "spearman", "r2", "mae", "ceiling",
    "share_of_ceiling", "ccc", "calibration_slope", "calibration_intercept", "partial_pearson", "p", "q",
    "r_n_cells", "r_log_counts", "stain_shift",
)  # fmt: skip


def slide_rows(evaluation: pd.DataFrame) -> pd.DataFrame:
    """Evaluation without the rows of all slides put together."""
    return evaluation[evaluation["sample"] != POOLED]
