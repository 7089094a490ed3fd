"""One HTML file that says what was found, how far to trust it, and how it was made."""

from .document import write_report

__all__ = ["write_report"]
