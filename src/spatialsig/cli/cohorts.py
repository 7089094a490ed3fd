"""What commands on a cohort share: some of its slides, and several of them worked on at once.

Floor 12, above pipeline, referee, whole_slides. Used by 5 modules of cli.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from spatialsig._checks import check_key
from spatialsig._settings import settings
from spatialsig.errors import InputError, SpatialsigError

from .wording import say_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from spatialsig.slide.slides import Data, Slide

PANEL = "Many slides"
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="SAMPLE", rich_help_panel=PANEL, help="Work on this slide; may be repeated."),
]
Index = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=PANEL,
        help="Work on the slide of this number, from 0; for jobs of an array, such as SLURM's.",
    ),
]
Jobs = Annotated[
    int, typer.Option(min=1, rich_help_panel=PANEL, help="Slides to work on at once, each in a process of its own.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        rich_help_panel=PANEL,
        help="Work on the cluster of a dask scheduler, such as tcp://node1:8786, or of its scheduler file.",
    ),
]
_chosen: ContextVar[tuple[Sequence[str], int | None]] = ContextVar("chosen", default=((), None))


def choose(samples: list[str]) -> list[str]:
    """Those of ``samples`` that the command line asks for, in their order.

    Raises
    ------
    KeyMissingError, InputError
        If there is no slide of that name or number.
    """
    only, index = _chosen.get()
    for name in only:
        check_key(samples, name, name="--only", where="the cohort")
    if index is not None and index >= len(samples):
        msg = f"`--index {index}`: the cohort has {len(samples)} slides, numbered 0 to {len(samples) - 1}."
        raise InputError(msg)
    wanted = set(only) | (set() if index is None else {samples[index]})
    return [sample for sample in samples if sample in wanted] if wanted else samples


def is_chosen() -> bool:
    """Whether the command line asks for some slides only."""
    return _chosen.get() != ((), None)


def some_slides(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which takes ``--only`` and ``--index``."""

    def run(only: Only = None, index: Index = None, **options: Any) -> None:
        token = _chosen.set((tuple(only or ()), index))
        try:
            command(**options)
        finally:
            _chosen.reset(token)

    return _with_options_of(command, run)


def at_once(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which takes ``--jobs`` and ``--scheduler``."""

    def run(jobs: Jobs = 1, scheduler: Scheduler = None, **options: Any) -> None:
        with workers(jobs, scheduler):
            command(**options)

    return _with_options_of(command, run)


def slide_by_slide(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, which takes what both :func:`some_slides` and :func:`at_once` add."""
    return at_once(some_slides(command))


def _with_options_of(command: Callable[..., None], run: Callable[..., None]) -> Callable[..., None]:
    """``run``, which looks to typer as if it had the options of ``command`` too."""
    own = [p for p in inspect.signature(run).parameters.values() if p.kind is not p.VAR_KEYWORD]
    parameters = [*inspect.signature(command).parameters.values(), *own]
    hints = get_type_hints(command, include_extras=True) | get_type_hints(run, include_extras=True)
    functools.update_wrapper(run, command)
    del run.__wrapped__  # type: ignore[attr-defined]
    keyword_only = [p.replace(kind=p.KEYWORD_ONLY, annotation=hints[p.name]) for p in parameters]
    run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: hints[p.name] for p in parameters}
    return run


@contextmanager
def workers(jobs: int, scheduler: str | None) -> Iterator[None]:
    """Work on ``jobs`` slides at once for the length of a block, or on the cluster of a dask ``scheduler``."""
    if scheduler is None:
        before, settings.n_jobs = settings.n_jobs, jobs
        try:
            yield
        finally:
            settings.n_jobs = before
        return
    if jobs != 1:
        msg = "`--jobs` starts processes here, `--scheduler` uses those of a cluster; pass one of them."
        raise InputError(msg)
    with _client(scheduler):
        yield


@contextmanager
def _client(scheduler: str) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError as error:
        msg = "`--scheduler` needs the package distributed; `pip install 'spatialsig[distributed]'`."
        raise InputError(msg) from error
    where: dict[str, Any] = {"scheduler_file": scheduler} if scheduler.endswith(".json") else {"address": scheduler}
    try:
        client = Client(**where)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        msg = f"`--scheduler {scheduler}` does not answer ({error}); give the address that `dask scheduler` prints, or its file."
        raise InputError(msg) from error
    with client:
        yield


class Survivors:
    """Slides that one function after another works on; one that fails is left out of those that follow, and named."""

    def __init__(self, data: Data) -> None:
        self.data, self.failed = data, False

    def __call__(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function on the slides that have not failed, and return what it returns; None where one fails now."""
        try:
            return function(self.data, *arguments, **options)
        except SpatialsigError as error:
            if not error.failed:
                raise
            self._leave_out(error)
            return None

    def check(self, work: Callable[[Slide], object]) -> None:
        """Leave out the slides on which ``work`` fails, also from what is learnt from the cohort; raise if all do."""
        from spatialsig.cohort import Cohort
        from spatialsig.slide.each import raise_failures, try_slides
        from spatialsig.slide.slides import learn_from

        outcomes = try_slides(whole := learn_from(self.data), work, "check slides")
        bad = [outcome.name for outcome in outcomes if outcome.error is not None]
        if not isinstance(self.data, Cohort) or not isinstance(whole, Cohort) or len(bad) == len(outcomes):
            raise_failures(outcomes)
            return
        for outcome in outcomes:
            if outcome.error is not None:
                say_error(f"{outcome.name} is left out: {outcome.error}")
        self.failed |= any(sample in bad for sample in self.data)
        good = whole.subset([sample for sample in whole if sample not in bad])
        self.data = good.part([sample for sample in self.data if sample not in bad])
        if not len(self.data):
            self.end()

    def _leave_out(self, error: SpatialsigError) -> None:
        from spatialsig.cohort import Cohort

        say_error(str(error))
        self.failed = True
        if isinstance(self.data, Cohort):
            self.data = self.data.part([sample for sample in self.data if sample not in error.failed])

    def end(self) -> None:
        """Exit with 1 if a slide failed."""
        if self.failed:
            raise typer.Exit(1)
