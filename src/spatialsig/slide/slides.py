"""One slide behind every function: a SpatialData in memory, or one that lives in a Zarr store.

Floor 4, above train. Used by 116 modules of 16 rooms.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import spatialdata as sd

from spatialsig import _keys
from spatialsig._arguments import Key
from spatialsig._checks import check_key
from spatialsig._known import what_is
from spatialsig._text import trimmed
from spatialsig.errors import InputError, KeyMissingError, StoreError
from spatialsig.slide.added import check_added
from spatialsig.slide.counts import refuse_lazy
from spatialsig.slide.lineage import LINEAGE, Lineage
from spatialsig.slide.parts import COLUMNS_OF_SHAPES, obsm_of
from spatialsig.slide.patches import Patches
from spatialsig.slide.records import check_records
from spatialsig.store.commit import commit_elements, write_attrs
from spatialsig.store.lazy_tables import element_of, names_of, put, remove
from spatialsig.store.metadata import check_new_names, read_attrs
from spatialsig.store.parts import commit_table_parts, has_rows_of
from spatialsig.store.snapshot import read_store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    import anndata as ad


@runtime_checkable
class Stores(Protocol):
    """Several slides on disk, such as a ``Cohort``."""

    @property
    def stores(self) -> Mapping[str, Path]:
        """Store of each sample."""
        ...


Data: TypeAlias = sd.SpatialData | Key | Path | Stores  # what every function takes


@dataclass
class Slide:
    """A slide, and the store its results go to (``None``: they stay in memory)."""

    sdata: sd.SpatialData
    path: Path | None = None
    _patches: dict[str, Patches] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_records(self.sdata, name=str(self.path or self.sdata.path or "in memory"))

    @cached_property
    def lineage(self) -> Lineage:
        """What its parts were made from."""
        return Lineage(self)

    @property
    def attrs(self) -> dict[str, Any]:
        """Parameters of this package kept with the object."""
        attrs: dict[str, Any] = self.sdata.attrs.setdefault(_keys.NAMESPACE, {})
        return attrs

    @property
    def name(self) -> str:
        """Sample name; the store's name where none was given."""
        return str(self.attrs.get("sample") or (self.path.stem if self.path else "sample"))

    @property
    def patient(self) -> str:
        """Patient of the sample; the sample itself where none was given, or NaN."""
        patient = self.attrs.get("patient")
        return trimmed(str(self.name if not patient or patient != patient else patient))

    def table(self, table_key: str, *, name: str = "table_key", fix: str = "") -> ad.AnnData:
        """Table ``table_key``, if it is there and fresh; the error names this slide and what exists.

        One of many rows stays in its store (:class:`~spatialsig.store.stored.table.StoredTable`): ask its ``obs`` by column, with
        rows numbered from 0, and its matrices by :func:`~spatialsig.slide.counts.count_blocks`.
        """
        check_key(self.sdata.tables, table_key, name=name, where=f"the tables of slide {self.name!r}", fix=fix)
        if self.path is None:  # what stays in a store of ours is known
            refuse_lazy(self.sdata.tables[table_key], where=f"slide {self.name!r}: tables[{table_key!r}]")
        self.lineage.check(table_key)
        return self.sdata.tables[table_key]

    def patches(self, key: str = _keys.PATCHES) -> Patches:
        """Patches of shapes element ``key``; what was read of them is kept until an element is replaced."""
        if key not in self._patches:
            self._patches[key] = Patches(self, key)
        return self._patches[key]

    def obsm(self, table_key: str, key: str, *, name: str, fix: str) -> Any:
        """``tables[table_key].obsm[key]``, or an error that says how to make it."""
        table = self.table(table_key)
        check_key(table.obsm, key, name=name, where=f"the obsm of slide {self.name!r}", fix=fix)
        self.lineage.check(obsm_of(table_key, key))
        return table.obsm[key]

    def step(self, table_key: str, step: str, *, fix: str) -> dict[str, Any]:
        """Parameters that an earlier step left with a table, or an error that names the step."""
        params = self.params(table_key)
        if step not in params:
            msg = f"slide {self.name!r}: table {table_key!r} has no result of `{step}`. {fix}"
            raise KeyMissingError(msg)
        return dict(params[step])

    def params(self, table_key: str) -> dict[str, Any]:
        """Parameters of this package kept with a table, or an error that says which tables are there."""
        check_key(self.sdata.tables, table_key, name="table_key", where=f"the tables of slide {self.name!r}")
        params: dict[str, Any] = self.sdata.tables[table_key].uns.setdefault(_keys.NAMESPACE, {})
        return params

    def put(
        self,
        key: str,
        element: Any,
        *,
        made_by: str = "",
        sources: Iterable[str] = (),
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Add or replace an element, in memory and in the store, and record what it was made from.

        Parameters
        ----------
        made_by
            Function to call again when one of the sources changes (``"pp.make_patches"``); empty where there is none.
        sources
            Parts it was made from, see :mod:`spatialsig.slide.lineage`.
        attrs
            Section of the attributes -> what is kept there about this element.
        """
        if made_by:
            check_added(self, key, made_by=made_by)
        self._put(key, element, attrs or {})
        parts = [key, *self.lineage.void_inside(key)]
        self.lineage.record(key, sources, made_by=made_by)
        self.commit(key, sections=attrs or {}, parts=parts)

    def replace(
        self, key: str, element: Any, *, attrs: Mapping[str, Any] | None = None, columns: Collection[str] = ()
    ) -> None:
        """As :meth:`put`, for an element of which a part is kept and the rest left out; ``columns`` of it are new."""
        self.lineage.forget()
        edited = set(self.lineage.by_hand(key)) - {f"{COLUMNS_OF_SHAPES}{column}" for column in columns}
        self._put(key, element, attrs or {})
        self.lineage.note(key, but=edited)
        self.commit(key, sections=attrs or {}, parts=[key])

    def _put(self, key: str, element: Any, attrs: Mapping[str, Any]) -> None:
        names = names_of(self.sdata)
        check_new_names([key], names)
        if key in names:
            remove(self.sdata, key)
        put(self.sdata, key, element)
        for section, value in attrs.items():
            self.attrs.setdefault(section, {})[key] = value
        self.changed()

    def _lineage(self, parts: Iterable[str]) -> dict[str, dict[str, Any]]:
        return {LINEAGE: {part: self.lineage.entries[part] for part in parts if part in self.lineage.entries}}

    def changed(self) -> None:
        """Forget what was read of elements that are replaced."""
        self._patches.clear()
        self.lineage.forget()

    def commit(self, key: str, *, sections: Iterable[str] = (), parts: Iterable[str] = ()) -> None:
        """Write an element, its entries in sections of the attributes, and the record of parts; nothing in memory."""
        if self.path is not None:
            attrs = {section: {key: self.attrs[section][key]} for section in sections} | self._lineage(parts)
            commit_elements(self.path, {key: element_of(self.sdata, key)}, attrs={_keys.NAMESPACE: attrs})

    def commit_table(
        self,
        table_key: str,
        *,
        obsm: Iterable[str] = (),
        layers: Iterable[str] = (),
        obs: Iterable[str] = (),
        var: Iterable[str] = (),
        uns: Iterable[str] = (),
        steps: Iterable[str] = (),
        made_by: str = "",
        sources: Iterable[str] = (),
    ) -> None:
        """Write parts of a table, and the parameters of ``steps``, to the store, and record what they were made from.

        ``made_by`` and ``sources`` are as for :meth:`put`. The whole table is written where the store does not hold the
        same rows.
        """
        self.changed()
        sections = {"obsm": list(obsm), "layers": list(layers), "var": list(var), "obs": list(obs)}
        made = [f"{table_key}/{section}/{key}" for section, keys in sections.items() for key in keys]
        sources = list(sources)
        for part in made:
            self.lineage.record(part, sources, made_by=made_by)
        if self.path is None:
            return
        table = self.sdata.tables[table_key]
        if not has_rows_of(self.path, table_key, table):
            self.commit(table_key, parts=made)
            return
        commit_table_parts(
            self.path,
            table_key,
            obsm={key: table.obsm[key] for key in sections["obsm"]},
            layers={key: table.layers[key] for key in sections["layers"]},
            obs={key: table.obs[key] for key in sections["obs"]},
            var={key: table.var[key] for key in sections["var"]},
            uns={key: table.uns[key] for key in uns}
            | {f"{_keys.NAMESPACE}/{step}": self.params(table_key)[step] for step in steps},
            attrs={_keys.NAMESPACE: self._lineage(made)},
        )

    def commit_attrs(self) -> None:
        """Write the parameters kept with the object to the store."""
        if self.path is not None:
            write_attrs(self.path, dict(self.sdata.attrs))


def open_slides(data: Data) -> Iterator[Slide]:
    """Open the slides of ``data`` one after another; none is kept open here."""
    return _each(data, partial(read_store, share_tables=True))


def recorded_slides(data: Data) -> Iterator[Slide]:
    """Slides of which nothing is read but the parameters kept with them: name, patient, folds; those in a store have no elements."""
    return _each(data, lambda path: sd.SpatialData(attrs=read_attrs(path)))


def _each(data: Data, read: Callable[[Path], sd.SpatialData]) -> Iterator[Slide]:
    if isinstance(data, sd.SpatialData):
        yield Slide(data)
    elif isinstance(data, str | Path):
        yield _from_store(Path(data), read)
    elif isinstance(data, Stores):
        check_not_empty(data)
        for path in data.stores.values():
            yield _from_store(path, read)
    else:
        msg = f"wanted a SpatialData, the path of a store or a Cohort; got {type(data).__name__}."
        raise InputError(msg)


def check_not_empty(data: Stores) -> None:
    """Raise :class:`InputError` for a cohort of no slides, unless it is part of one that has some: there is nothing to work on."""
    whole = learn_from(data)
    if not data.stores and not (isinstance(whole, Stores) and whole.stores):
        msg = "the cohort holds no slides; give one with slides: `sp.Cohort(directory)`, or `Cohort.subset` with names."
        raise InputError(msg)


def learn_from(data: Data) -> Data:
    """Slides that whatever ``data`` shares is learnt from: all of the cohort where ``data`` is a part of one."""
    return getattr(data, "learn_from", data)


def slide_count(data: Data) -> int:
    """Number of slides in ``data``."""
    return len(data.stores) if isinstance(data, Stores) else 1


@contextmanager
def on_slide(name: str) -> Iterator[None]:
    """Add the name of the slide to whatever goes wrong on it."""
    try:
        yield
    except Exception as error:
        if name not in str(error):
            error.add_note(f"This happened on slide {name!r}.")
        raise


def _from_store(path: Path, read: Callable[[Path], sd.SpatialData]) -> Slide:
    if path.is_file():
        what = what_is(path) or (
            " Of an image or a bundle make one: `sp.io.read_he`, `sp.io.read_xenium`; images alone are what `sp.tl.predict_files` takes."
        )
        msg = f"{str(path)!r} is a file; wanted the directory of a store.{what}"
        raise StoreError(msg)
    if not path.is_dir():
        msg = f"store {path} does not exist; make it with `sp.io.read_xenium(..., out=...)` or `sp.io.write`."
        raise StoreError(msg)
    return Slide(read(path), path)
