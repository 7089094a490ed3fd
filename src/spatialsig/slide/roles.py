"""Which slides of a cohort hold cells: functions on expression pass over those that are an H&E alone.

Floor 4, above train. Used by 33 modules of cli, cohort, io, maps, pl, pp, referee, slide, tl.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from spatialdata import SpatialData

from spatialsig import _keys
from spatialsig._checks import first_few
from spatialsig._progress import say
from spatialsig.errors import KeyMissingError, StoreError
from spatialsig.slide.slides import Data, Stores, learn_from, recorded_slides
from spatialsig.store.metadata import elements_on_disk, root_document
from spatialsig.store.stored.documents import FILE, attributes_or_empty, copied_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anndata import AnnData

# what takes an H&E alone
_WITHOUT_CELLS = (
    "`sp.pp.find_tissue`, `sp.pp.make_patches`, `sp.pp.qc_patches`, `sp.pp.normalize_stain`, `sp.tl.embed_patches`, `sp.tl.predict`, "
    "`sp.tl.attention`, `sp.tl.signature_map`, `sp.pl.patches` or `sp.pl.compare(..., signatures_key=None)`"
)
PREDICTED = "predict_cells"  # record of a table of cells that nobody measured
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
        asked: Data = data
        with explained(asked, function.__name__):
            return function(with_cells(asked, told_by=function.__name__), *others, **kwargs)  # type: ignore[arg-type]

    return call


@contextmanager
def explained(data: Data, function: str) -> Iterator[None]:
    """Say what a slide is, and what takes it, where ``function`` lacks something that an H&E alone cannot have."""
    try:
        yield
    except KeyMissingError as error:
        if not (alone := _all_alone(data)):
            raise
        verb, it = ("is an H&E alone", "it") if len(alone) == 1 else ("are H&Es alone", "them")
        msg = (
            f"{first_few(alone)} {verb} (role 'predict'), without cells, and `{function}` needs what comes from cells: {error} On {it}, "
            f"call {_WITHOUT_CELLS}. Slides that have cells are read with them, by `sp.io.read_xenium` or `sp.io.from_anndata`."
        )
        raise KeyMissingError(msg) from error


def _all_alone(data: Data) -> list[str]:
    """Names of the slides of ``data`` where none of them holds cells; empty where one does."""
    if isinstance(data, Stores):
        alone = without_cells(data.stores)
        return alone if len(alone) == len(data.stores) else []
    if isinstance(data, SpatialData):
        ours = data.attrs.get(_keys.NAMESPACE, {}).get("patches", {})
        cells = [
            t
            for t in data.tables.values()
            if _annotated(t) not in ours and PREDICTED not in t.uns.get(_keys.NAMESPACE, {})
        ]
        return [] if cells else [slide.name for slide in recorded_slides(data)]
    return [slide.name for slide in recorded_slides(data)] if is_image_alone(Path(data)) else []


def _annotated(table: AnnData) -> str:
    return str(table.uns.get("spatialdata_attrs", {}).get("region", ""))


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
    """Whether a store holds no table but of its patches and of cells that were predicted, and its root lists none that is lost."""
    try:
        root = root_document(store)
        tables = {name for kind, name, _ in elements_on_disk(store) if kind == "tables"}
    except (OSError, StoreError):
        return False
    listed = {node.split("/")[1] for node in copied_metadata(root) if node.startswith("tables/")}
    ours = root.get("attributes", {}).get(_keys.NAMESPACE, {})
    patches = ours.get("patches", {}) if isinstance(ours, dict) else {}
    return listed <= tables and all(
        region_of(place) in patches or (place / "uns" / _keys.NAMESPACE / PREDICTED).is_dir()
        for place in (store / "tables" / name for name in tables)
    )


def region_of(table: Path) -> str:
    """Element whose rows a table describes; empty where it does not say one."""
    region = attributes_or_empty(table / FILE).get("region")
    return region if isinstance(region, str) else ""
