"""Errors and warnings of spatialsig. Each also is the built-in error a caller would expect.

::

    SpatialsigError               base of every error raised on purpose
    ├── InputError                (ValueError)         an argument, a file or a field that cannot be used
    │   ├── OptionError           (TypeError)          an option that the function does not know
    │   ├── AlignmentError                             the H&E cannot be placed in the frame of the cells
    │   ├── LeakageError                               the request would let test data into training
    │   ├── StaleError                                 a result whose sources changed after it was made
    │   └── TrainingError                              the loss of a run is no longer a number
    ├── KeyMissingError           (KeyError)           a name that does not exist
    ├── FileMissingError          (FileNotFoundError)  one or more files that are not there
    └── StoreError                (OSError)            a Zarr store that cannot be read or written as asked
    SpatialsigWarning             (UserWarning)        something to look at before believing the result

Ground floor. Used by 242 modules of 32 rooms.
"""

from __future__ import annotations

__all__ = [
    "AlignmentError",
    "FileMissingError",
    "InputError",
    "KeyMissingError",
    "LeakageError",
    "OptionError",
    "SpatialsigError",
    "SpatialsigWarning",
    "StaleError",
    "StoreError",
    "TrainingError",
]


class SpatialsigError(Exception):
    """Base of every error raised on purpose.

    Attributes
    ----------
    failed
        Of a call on a cohort: the names of the slides that failed, where the others were done.
    """

    failed: tuple[str, ...] = ()


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


class StaleError(InputError):
    """What a result was made from has changed since; the message names the function to call again."""


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
