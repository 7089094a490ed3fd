"""A table of many rows of which only what somebody asks for is read.

Floor 1, above the ground floor. Used by 8 modules of pp, slide, store.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem
from spatialdata.models import TableModel

from spatialsig.store.matrices import is_stored
from spatialsig.store.metadata import quiet_names
from spatialsig.store.stored.files import StoredNames, TableFiles, chosen, n_rows, text_array

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
FRAME_VERSION = "0.2.0"  # of frames with a part for each column
MANY = 100_000  # rows from which a table stays in its store
ALIGNED = {"obsm": (0, 0), "varm": (1, 1), "obsp": (0, 0), "varp": (1, 1), "layers": (0, 1)}  # axes of their entries


class Entries(MutableMapping[str, Any]):
    """Entries of a section of a table: those that were set, and those of the store, each read at its use.

    What was read is kept as long as somebody uses it.
    """

    def __init__(self, files: TableFiles, section: str, names: list[str]) -> None:
        self._files, self._section = files, section
        self._set: dict[str, Any] = {}
        self._names = dict.fromkeys(names)
        self._read: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def __getitem__(self, name: str) -> Any:
        if name in self._set:
            return self._set[name]
        if name not in self._names:
            raise KeyError(name)
        found = self._read.get(name)
        if found is None:
            found = self._files.read(f"{self._section}/{name}".removeprefix("/"))
            with suppress(TypeError):  # what nobody can watch is read again
                self._read[name] = found
        return found

    def __setitem__(self, name: str, values: Any) -> None:
        self._set[name] = values
        self._names[name] = None

    def __delitem__(self, name: str) -> None:
        del self._names[name]
        self._set.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def is_stored(self, name: str) -> bool:
        """Whether an entry is the one of the store."""
        return name in self._names and name not in self._set


class Columns:
    """``obs`` of a table: columns by name, each read when it is asked for, with rows numbered from 0.

    Whatever else a frame can do reads the whole frame, which then takes its place.
    """

    def __init__(self, files: TableFiles, names: StoredNames) -> None:
        self._entries = Entries(files, "obs", [str(name) for name in files.group["obs"].attrs["column-order"]])  # type: ignore[union-attr]
        self._whole: pd.DataFrame | None = None
        self.names = names

    def __getitem__(self, key: Any) -> Any:
        several = isinstance(key, list) and all(isinstance(name, str) for name in key)
        if self._whole is not None or not (several or isinstance(key, str)):
            return self.frame[key]
        if several:
            return pd.DataFrame({name: self[name] for name in key}, columns=key, copy=False)
        return pd.DataFrame({key: self._entries[key]}, copy=False)[key]

    def __setitem__(self, key: str, values: Any) -> None:
        if isinstance(values, pd.Series) and values.index.equals(pd.RangeIndex(len(self))):
            values = values.array  # as columns are given out
        if self._whole is not None or isinstance(values, pd.Series) or np.ndim(values) != 1:
            self.frame[key] = values  # which knows how rows belong together
        else:
            self._entries[key] = pd.DataFrame({key: values}, index=pd.RangeIndex(len(self)), copy=False)[key].array

    def __contains__(self, key: object) -> bool:
        return key in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.names)

    def get(self, key: str, default: Any = None) -> Any:
        """A column, or ``default`` where there is none."""
        return self[key] if key in self else default

    def items(self) -> Iterator[tuple[str, Any]]:
        """Columns by name, one after another."""
        return ((name, self[name]) for name in self.columns)

    @property
    def columns(self) -> pd.Index:
        """Names of the columns."""
        return pd.Index(list(self._entries)) if self._whole is None else self._whole.columns

    def is_stored(self, name: str) -> bool:
        """Whether a column is the one of the store; in a whole frame, which others may have written into, none is."""
        return self._whole is None and self._entries.is_stored(name)

    @property
    def frame(self) -> pd.DataFrame:
        """The whole frame, in memory from now on."""
        if self._whole is None:
            columns = {name: pd.Series(self[name].array, copy=False) for name in self._entries}
            whole = pd.DataFrame(columns, columns=list(columns) or None, copy=False)
            self._whole = whole.set_axis(self.names.whole, axis=0) if columns else pd.DataFrame(index=self.names.whole)
        return self._whole

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.frame, name)


class StoredTable:
    """A table in a store, which can be asked as an ``AnnData``; nothing but ``var`` and ``uns`` is read before.

    Parameters
    ----------
    files
        Its files.
    names
        Names of its rows.
    var, uns
        What is in memory.
    """

    is_view = isbacked = False
    raw = None

    def __init__(self, files: TableFiles, names: StoredNames, var: pd.DataFrame, uns: dict[str, Any]) -> None:
        self.files, self.names, self.var, self.uns = files, names, var, uns
        self.obs = Columns(files, names)
        self.obsm, self.varm, self.obsp, self.varp, self.layers = (
            Entries(files, section, files.names_in(section)) for section in ALIGNED
        )
        self._x = Entries(files, "", ["X"] if "X" in files.group else [])

    @classmethod
    def open(cls, place: Path) -> StoredTable:
        """The table at ``place``."""
        files = TableFiles(place)
        uns = read_elem(files.group["uns"]) if "uns" in files.group else {}
        return cls(files, StoredNames.of(files), read_elem(files.group["var"]), uns)

    def own(self) -> StoredTable:
        """The same table with rows, columns and parameters of its own; what was set in this one is left out."""
        return StoredTable(self.files, self.names, self.var.copy(), copy.deepcopy(self.uns))

    def __getitem__(self, rows: Any) -> ad.AnnData:
        """Some rows, or rows and columns, of the whole table, which is read."""
        return whole(self)[rows]

    @property
    def X(self) -> Any:
        """Counts; a large matrix reads rows on demand."""
        return self._x.get("X")

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return len(self.names)

    @property
    def n_vars(self) -> int:
        """Number of columns."""
        return len(self.var)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self.n_obs, self.n_vars

    @property
    def obs_names(self) -> pd.Index:
        """Names of the rows, read; :attr:`names` reads some at a time."""
        names: pd.Index = self.obs.index
        return names

    @property
    def var_names(self) -> pd.Index:
        """Names of the columns."""
        return self.var.index

    def found(self, part: str, what: str, find: Callable[[], T]) -> T:
        """What ``find`` says of ``X``, ``obs/key``, ``obsm/key`` or ``layers/key``, asked once for as long as its files stay."""
        section, _, name = part.partition("/")
        holder = self._x if section == "X" else getattr(self, section) if section in ("obs", "obsm", "layers") else None
        if holder is None or not holder.is_stored(name or section):
            return find()
        columns = map(str, self.var_names) if section in ("X", "layers") else ()
        return self.files.found([part, self.names.part], [what, *columns], find)

    def sample(self) -> ad.AnnData:
        """Few rows, among them all kinds by which spatialdata tells whether a table is valid."""
        links = self.uns.get(TableModel.ATTRS_KEY) or {}
        region, instance = (links.get(key) for key in (TableModel.REGION_KEY_KEY, TableModel.INSTANCE_KEY))
        texts = text_array(self.files.group, f"obs/{instance}") if instance in self.obs else None  # nothing is missing
        rows = np.arange(min(self.n_obs, 1))
        if region in self.obs:
            rows = np.union1d(rows, np.flatnonzero(~self.obs[region].duplicated()))
        if instance in self.obs and texts is None:
            rows = np.union1d(rows, np.flatnonzero(self.obs[instance].isna())[:1])
        obs = pd.DataFrame(dict.fromkeys(self.obs, rows), index=rows.astype(str).astype(object))
        for name in {region, instance} & set(self.obs):
            values = self.obs[name].iloc[rows] if texts is None or name != instance else chosen(texts, rows)
            obs[name] = values.array
        n = {0: len(rows), 1: min(self.n_vars, 1)}
        sections = {
            section: {name: np.zeros([n[axis] for axis in axes]) for name in getattr(self, section)}
            for section, axes in ALIGNED.items()
        }
        uns = dict.fromkeys(self.uns, 0) | ({TableModel.ATTRS_KEY: links} if links else {})
        with quiet_names():
            return ad.AnnData(obs=obs, var=self.var.iloc[: n[1]], uns=uns, **sections)


def row_names(table: ad.AnnData | StoredTable) -> pd.Index | StoredNames:
    """Names of the rows of a table; those of a table in a store are not read."""
    return table.names if isinstance(table, StoredTable) else table.obs_names


def has_many_rows(group: zarr.Group) -> bool:
    """Whether a table is better left in its store."""
    obs = group.get("obs")
    is_frame = isinstance(obs, zarr.Group) and obs.attrs.get("encoding-version") == FRAME_VERSION
    return is_frame and n_rows(group, "obs") >= MANY


def light(table: ad.AnnData | StoredTable) -> ad.AnnData:
    """A table in memory without the matrices that stay in a store."""
    layers = {key: values for key, values in dict(table.layers).items() if key is not None and not is_stored(values)}
    return _in_memory(table, None if is_stored(table.X) else table.X, layers)


def whole(table: ad.AnnData | StoredTable) -> ad.AnnData:
    """The same table as an ``AnnData``, whose large matrices alone stay in the store."""
    return _in_memory(table, table.X, dict(table.layers)) if isinstance(table, StoredTable) else table


def _in_memory(table: ad.AnnData | StoredTable, x: Any, layers: dict[str, Any]) -> ad.AnnData:
    sections = {section: dict(getattr(table, section)) for section in ALIGNED if section != "layers"}
    obs = table.obs.frame if isinstance(table, StoredTable) else table.obs
    with quiet_names():
        return ad.AnnData(x, obs=obs, var=table.var, uns=table.uns, layers=layers, **sections)
