"""Findings and warnings of every step as what the reader should know first, worst first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spatialsig._checks import check_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

COLUMNS = ("name", "severity", "slide", "text")
SEVERITIES = ("error", "warning", "note")
_WARNING = "warning"


@dataclass(frozen=True)
class Remark:
    """One thing to know: how bad it is, where, and what it is."""

    severity: str
    slide: str  # empty for the whole cohort
    text: str


def warnings_section(findings: pd.DataFrame | None, warnings: Sequence[str]) -> list[Remark]:
    """Findings and the warnings of other steps, worst first; what was said by both is said once.

    Raises
    ------
    KeyMissingError
        If the table of findings lacks a column.
    """
    remarks = []
    if findings is not None:
        for column in COLUMNS:
            fix = "Make the table with `sp.tl.findings`."
            check_key(list(map(str, findings.columns)), column, name="column", where="the findings", fix=fix)
        remarks = [Remark(str(row.severity), str(row.slide), str(row.text)) for row in findings.itertuples()]
    texts = {remark.text for remark in remarks}
    remarks += [Remark(_WARNING, "", text) for text in dict.fromkeys(warnings) if text not in texts]
    return sorted(remarks, key=lambda remark: _rank(remark.severity))


def _rank(severity: str) -> int:
    """Place among the severities; an unknown one counts as a warning."""
    return SEVERITIES.index(severity if severity in SEVERITIES else _WARNING)
