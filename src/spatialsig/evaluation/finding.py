"""A finding: one reason to doubt a result."""

from __future__ import annotations

from dataclasses import dataclass

ERROR = "error"  # the numbers say something else than they seem to
WARNING = "warning"  # the numbers are easily read for more than they are
NOTE = "note"  # worth knowing
SEVERITIES = (ERROR, WARNING, NOTE)
EVERY_SLIDE = ""  # in the column of slides: the whole cohort


@dataclass(frozen=True)
class Finding:
    """One reason to doubt a result: its name, how bad it is, on which slide, and what to do about it."""

    name: str
    severity: str
    slide: str
    text: str


def listed(names: list[str], *, most: int = 4) -> str:
    """The first few of several names."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
