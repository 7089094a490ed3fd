"""Errors and warnings of spatialsig. Each also is the built-in error a caller would expect."""

from __future__ import annotations


class SpatialsigError(Exception):
    """Base of every error raised on purpose."""


class InputError(SpatialsigError, ValueError):
    """An argument, a file or a field holds what cannot be used."""


class OptionError(InputError, TypeError):
    """An option has a name that the function does not know."""


class KeyMissingError(SpatialsigError, KeyError):
    """A name was asked for that does not exist."""

    def __str__(self) -> str:
        """Show the message as it was written (``KeyError`` would quote it)."""
        return str(self.args[0]) if self.args else ""


class FileMissingError(SpatialsigError, FileNotFoundError):
    """One or more files are not there."""


class AlignmentError(InputError):
    """The H&E cannot be placed in the frame of the cells."""


class StoreError(SpatialsigError, OSError):
    """A Zarr store cannot be read or written as asked."""


class LeakageError(InputError):
    """The request would let test data into training."""


class TrainingError(InputError):
    """A training run cannot continue: its loss is no longer a number."""


class SpatialsigWarning(UserWarning):
    """Something the user should look at before believing the result."""
