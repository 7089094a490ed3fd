"""The same work on every slide of a cohort: slides that fail are named at the end, the others are done.

Floor 4, above train. Used by 32 modules of cli, evaluation, labels, maps, pp, referee, slide, tl, whole_slides.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from spatialsig._checks import first_few
from spatialsig._workers import ITEM_ERRORS, Outcome, attempt, attempt_each
from spatialsig.errors import SpatialsigError, StoreError
from spatialsig.slide.slides import Slide, Stores, check_not_empty, on_slide, open_slides

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from spatialsig.slide.slides import Data

T = TypeVar("T")
_NAME = "\0"  # stands for the name of the slide
MOST_NAMES = 20  # of slides of the same error, that are told


def map_slides(data: Data, work: Callable[[Slide], T], title: str) -> list[T]:
    """What ``work`` returns of every slide, in their order; several at once on a cluster or in ``settings.n_jobs`` processes.

    Parameters
    ----------
    data
        SpatialData, path of a store, or cohort.
    work
        Function that can be sent to another process. It writes to the store itself and returns little.
    title
        Of the progress bar.

    Raises
    ------
    SpatialsigError
        At the end, naming the slides of a cohort that failed: of their kind where all failed by one, else of the base.
    """
    if not isinstance(data, Stores):
        return [work(slide) for slide in open_slides(data)]
    outcomes = try_slides(data, work, title)
    raise_failures(outcomes)
    return [outcome.value for outcome in outcomes]  # type: ignore[misc]


def try_slides(data: Data, work: Callable[[Slide], T], title: str) -> list[Outcome[T]]:
    """As :func:`map_slides`, with the error of each slide that failed in place of its result."""
    if isinstance(data, Stores):
        check_not_empty(data)
        stores = data.stores
        return attempt_each(partial(_on_store, work=work), dict(zip(stores, stores.items(), strict=True)), title, shared=next((path for path in stores.values() if path.exists()), None))  # fmt: skip
    try:
        (slide,) = open_slides(data)
    except ITEM_ERRORS as error:
        return [Outcome("", error=error)]
    return [attempt(partial(_named, work=work), slide.name, slide)]


def raise_failures(outcomes: Sequence[Outcome[T]]) -> None:
    """Raise what went wrong on some slides of a cohort, or the first of what went wrong on all."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not failed:
        return
    errors = [outcome.error for outcome in failed if outcome.error is not None]
    if len(failed) == len(outcomes):
        raise errors[0]
    listed = told_once({outcome.name: str(outcome.error) for outcome in failed})
    msg = f"{len(failed)} of {len(outcomes)} slides failed, the others are done:\n{listed}"
    kinds = {type(error) if isinstance(error, SpatialsigError) else StoreError for error in errors}
    error = kinds.pop()(msg) if len(kinds) == 1 else SpatialsigError(msg)
    error.failed = tuple(outcome.name for outcome in failed)
    raise error from errors[0]


def told_once(errors: Mapping[str, str]) -> str:
    """:func:`errors_told_once`, a line for each."""
    return "\n".join(f"  {told}" for told in errors_told_once(errors))


def errors_told_once(errors: Mapping[str, str]) -> list[str]:
    """Slides and their errors (name -> error), of which the same, but for the name of the slide, is told once."""
    slides: dict[str, list[str]] = {}
    for name, error in errors.items():
        slides.setdefault(error.replace(repr(name), _NAME), []).append(name)
    return [
        f"{first_few(names, n=MOST_NAMES)}: {error.replace(_NAME, repr(names[0]))}" for error, names in slides.items()
    ]


def _on_store(item: tuple[str, Path], *, work: Callable[[Slide], T]) -> T:
    sample, path = item
    with on_slide(sample):
        (slide,) = open_slides(path)
        return work(slide)


def _named(slide: Slide, *, work: Callable[[Slide], T]) -> T:
    with on_slide(slide.name):
        return work(slide)
