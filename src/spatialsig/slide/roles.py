"""Which slides of a cohort hold cells: functions on expression pass over those that are an H&E alone.

Floor 4, above train. Used by 26 modules of cli, cohort, io, pl, pp, slide, tl.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from spatialsig import _keys
from spatialsig._checks import first_few
from spatialsig._progress import say
from spatialsig.errors import StoreError
from spatialsig.slide.slides import Data, Stores, learn_from
from spatialsig.store.metadata import elements_on_disk, root_document
from spatialsig.store.stored.documents import FILE, attributes_or_empty, copied_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class _Some:
    """Some slides of a cohort, and those that whatever they share is learnt from."""

    stores: Mapping[str, Path]
    whole: _Some | None = None

    @property
    def learn_from(self) -> Stores:
        """All slides with cells of the cohort that these are some of."""
        return self.whole or self


def needs_cells(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """``function`` of slides with cells; in a cohort it passes over those that are an H&E alone, and says so."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        data, *others = args
        return function(with_cells(data, told_by=function.__name__), *others, **kwargs)  # type: ignore[arg-type]

    return call


def with_cells(data: Data, *, told_by: str = "") -> Data:
    """Those slides of a cohort that hold cells; all where none of the cohort does, or ``data`` is a single slide.

    ``told_by`` names the function that says which it passes over; where it is empty, nobody does.
    """
    return measured(data, told_by=told_by) if isinstance(data, Stores) else data


def measured(cohort: Stores, *, told_by: str = "") -> Stores:
    """:func:`with_cells` of a cohort."""
    whole = learn_from(cohort)
    everywhere = {**(whole.stores if isinstance(whole, Stores) else {}), **cohort.stores}
    alone = without_cells(everywhere)
    if not alone or len(alone) == len(everywhere):
        return cohort
    if told_by and (passed := [name for name in cohort.stores if name in alone]):
        verb = "is an H&E alone and is" if len(passed) == 1 else "are an H&E alone and are"
        say(f"{told_by}: {len(passed)} of {len(cohort.stores)} slides {verb} passed over: {first_few(passed)}")
    kept, learnt = (
        {name: path for name, path in stores.items() if name not in alone} for stores in (cohort.stores, everywhere)
    )
    return _Some(kept, _Some(learnt))


def without_cells(stores: Mapping[str, Path]) -> list[str]:
    """Samples whose store holds no table but of patches; a damaged one, which functions name, is none of them."""
    return [sample for sample, store in stores.items() if is_image_alone(store)]


def is_image_alone(store: Path) -> bool:
    """Whether a store holds no table but of its patches, and its root lists none that is lost."""
    try:
        root = root_document(store)
        tables = {name for kind, name, _ in elements_on_disk(store) if kind == "tables"}
    except (OSError, StoreError):
        return False
    listed = {node.split("/")[1] for node in copied_metadata(root) if node.startswith("tables/")}
    ours = root.get("attributes", {}).get(_keys.NAMESPACE, {})
    patches = ours.get("patches", {}) if isinstance(ours, dict) else {}
    return listed <= tables and all(region_of(store / "tables" / name) in patches for name in tables)


def region_of(table: Path) -> str:
    """Element whose rows a table describes; empty where it does not say one."""
    region = attributes_or_empty(table / FILE).get("region")
    return region if isinstance(region, str) else ""
