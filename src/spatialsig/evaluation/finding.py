"""A finding: one reason to doubt a result."""

from __future__ import annotations

from dataclasses import dataclass

ERROR = "error"  # the numbers say something else than they seem to
WARNING = "warning"  # the numbers are easily read for more than they are
NOTE = "note"  # worth knowing
SEVERITIES = (ERROR, WARNING, NOTE)
SHOWN = 4  # names that a text lists
EVERY_SLIDE = ""  # in the column of slides: the whole cohort


@dataclass(frozen=True)
class Finding:
    """One reason to doubt a result: its name, how bad it is, on which slide, and what to do about it."""

    name: str
    severity: str
    slide: str
    text: str
