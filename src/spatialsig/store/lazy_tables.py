"""Tables of a store that are read when somebody asks for them: most functions need none, or one.

Floor 1, above the ground floor. Used by 6 modules of pl, pp, slide, store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spatialdata._core._elements import Tables
from spatialdata.models import get_model

from spatialsig.store.matrices import StreamedTable
from spatialsig.store.stored.table import StoredTable, whole

if TYPE_CHECKING:
    from collections.abc import Callable, ItemsView, ValuesView

    from anndata import AnnData
    from spatialdata import SpatialData


class LazyTables(Tables):  # type: ignore[misc]
    """The tables of an object, each read at its first use.

    Parameters
    ----------
    shared_keys
        Names of all elements of the object, as spatialdata shares them between its kinds.
    readers
        Name -> function that reads the table.
    """

    def __init__(self, shared_keys: set[str | None], readers: dict[str, Callable[[], AnnData]]) -> None:
        super().__init__(shared_keys)
        self._readers = readers
        self.checks: list[Callable[[str, AnnData], None]] = []  # of a table that was read, before anybody has it
        self.for_others = False
        for name in readers:
            self._add_shared_key(name)
            self.data[name] = None

    @classmethod
    def of(cls, sdata: SpatialData, readers: dict[str, Callable[[], AnnData]]) -> None:
        """Give an object without tables those that ``readers`` read."""
        sdata._tables = cls(sdata._shared_keys, readers)

    def __getitem__(self, name: str) -> AnnData:
        if name in self._readers:
            table = self._readers[name]()
            for check in self.checks:
                check(name, table)
            self[name] = whole(table) if self.for_others else table
        return self.data[name]

    def __setitem__(self, name: str, table: AnnData) -> None:
        if isinstance(table, StoredTable | StreamedTable):
            self._check_key(name, self.keys(), self._shared_keys)
            get_model(table.sample() if isinstance(table, StoredTable) else table.light)
            self.data[name] = table
            self._add_shared_key(name)
        else:
            super().__setitem__(name, table)
        self._readers.pop(name, None)

    def __delitem__(self, name: str) -> None:
        self._readers.pop(name, None)
        super().__delitem__(name)

    def values(self) -> ValuesView[AnnData]:
        """All tables, read."""
        return dict(self.items()).values()

    def items(self) -> ItemsView[str, AnnData]:
        """All tables by name, read."""
        return {name: self[name] for name in self.data}.items()


def for_others(sdata: SpatialData) -> SpatialData:
    """The same object, whose tables are given out as other packages know them: each is read whole at its first use."""
    if isinstance(sdata.tables, LazyTables):
        sdata.tables.for_others = True
        for name, table in list(sdata.tables.data.items()):
            if isinstance(table, StoredTable):
                sdata.tables[name] = whole(table)
    return sdata


def put(sdata: SpatialData, name: str, element: Any) -> None:
    """Add an element to an object, or replace it; it may be a table that is not in memory."""
    if isinstance(element, StreamedTable):
        sdata.tables[name] = element
    else:
        sdata[name] = element


def names_of(sdata: SpatialData) -> list[str]:
    """Names of all elements of an object; no table is read."""
    return [name for kind in (sdata.images, sdata.labels, sdata.points, sdata.shapes, sdata.tables) for name in kind]


def element_of(sdata: SpatialData, name: str) -> Any:
    """An element by its name; no table beside it is read."""
    return _kind_of(sdata, name)[name]


def remove(sdata: SpatialData, name: str) -> None:
    """Take an element out of an object; no table is read."""
    del _kind_of(sdata, name)[name]


def _kind_of(sdata: SpatialData, name: str) -> Any:
    return next(kind for kind in (sdata.images, sdata.labels, sdata.points, sdata.shapes, sdata.tables) if name in kind)
