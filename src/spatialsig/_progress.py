"""Progress bars with rate and time left; silent when ``settings.progress`` is off.

Ground floor. Used by 35 modules of 17 rooms.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from spatialsig._settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

from rich.progress import Task

T = TypeVar("T")


_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # set where several processes train together


class RateColumn(ProgressColumn):
    """Units per second, as measured so far."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        """Show the speed of ``task``, or nothing before it is known."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {self.unit}/s" if speed else "", style="progress.data.speed")


class Bar:
    """Handle of one running bar."""

    def __init__(self, progress: Progress, description: str, total: float | None) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=total, note="")

    def advance(self, amount: float = 1) -> None:
        """Say that ``amount`` more units are done."""
        self._progress.advance(self._task, amount)

    def note(self, text: str) -> None:
        """Show a short text (a loss, a file name) behind the bar."""
        self._progress.update(self._task, note=text)

    def __reduce__(self) -> tuple[Callable[[], Bar], tuple[()]]:
        """A bar that nobody sees, in another process."""
        return _unseen, ()


def _unseen() -> Bar:
    return Bar(Progress(disable=True), "", None)


@contextmanager
def progress_bar(description: str, *, total: float | None = None, unit: str = "it") -> Iterator[Bar]:
    """Open a bar, shown by the first of several processes; the context yields its :class:`Bar`."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not _shown()) as progress:
        yield Bar(progress, description, total)


class _Lines(logging.Handler):
    """Lines on standard error, above the bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        Console(stderr=True).print(self.format(record), markup=False, highlight=False, soft_wrap=True)


_log = logging.getLogger("spatialsig")
if not _log.handlers:
    _log.addHandler(_Lines())
    _log.propagate = False
if _log.level == logging.NOTSET:
    _log.setLevel(logging.INFO)


def say(text: str) -> None:
    """Log a line that users should read, also without bars: at level "info" of the logger ``spatialsig``, by the first of several processes."""
    if _is_first():
        _log.info(text)


def _is_first() -> bool:
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def _shown() -> bool:
    return settings.progress and _is_first()


def track(items: Iterable[T], description: str, *, total: float | None = None, unit: str = "it") -> Iterator[T]:
    """Iterate over ``items`` behind a bar."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar(description, total=total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()
