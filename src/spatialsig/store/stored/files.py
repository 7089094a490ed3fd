"""Files of a table in a store, read part by part, all of one moment.

Floor 1, above the ground floor. Used by slide/fingerprints, store/parts, store/stored/table.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem

from spatialsig._hashing import json_hash
from spatialsig.store.matrices import is_large, left_in_store, replaced
from spatialsig.store.stored.answers import ANSWERS, Answers
from spatialsig.store.stored.damage import decoding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

T = TypeVar("T")
_OBJECTS = Answers(32)  # a matrix holds where its rows begin: 8 MB for a million
FEW = 64  # names that are kept once they were read: those that fingerprints are told by
INDEX = "_index"  # name of a column of row names that has none


class TableFiles:
    """A table of a store as it is when this is made.

    Other parts of the table may be replaced meanwhile: the files of those that stay are the same ones.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.group = zarr.open_group(place, mode="r", use_consolidated=False)
        self._opened = _states(place)
        self._names: dict[str, list[str]] = {}

    def names_in(self, section: str) -> list[str]:
        """Names of the entries of a section, in the order of the store, when the table was opened."""
        if section not in self._names:
            self._names[section] = list(self.group[section]) if section in self.group else []  # type: ignore[arg-type]
        return self._names[section]

    def read(self, part: str) -> Any:
        """A part such as ``obsm/spatial``, or a large matrix as an object that reads its rows.

        Raises
        ------
        StoreError
            If the part was replaced since the table was opened.
        """
        if part.partition("/")[0] in ("X", "layers") and is_large(self.group, part):
            self.check(part)
            return self.shared(part, partial(left_in_store, self.group, part))
        with self.watched(part):
            return read_elem(self.group[part])

    @contextmanager
    def watched(self, part: str) -> Iterator[None]:
        """Read a part inside, and nothing is used that is not of the table that was opened; errors as of :meth:`check`."""
        try:
            with decoding(lambda: [self.place / part]):
                yield
        except Exception:
            self.check(part)  # what is gone or does not fit was replaced
            raise
        self.check(part)

    def check(self, part: str) -> None:
        """Raise :class:`StoreError` if a part is no longer the one that was opened."""
        if not self.is_as_opened(part):
            raise replaced(self.place / part)

    def is_as_opened(self, part: str) -> bool:
        """Whether the files of a part are still those of the table that was opened."""
        return {f"{part}/{name}": state for name, state in _states(self.place / part).items()} == self._state(part)

    def shared(self, part: str, make: Callable[[], T]) -> T:
        """What ``make`` gives of a part, once for as long as the files of this part stay, however often the table is opened.

        What was found of it, such as a checksum, is then found once as well.
        """
        return _OBJECTS.of(self._about([part]), make)

    def found(self, parts: Sequence[str], what: Sequence[str], find: Callable[[], T]) -> T:
        """What ``find`` says of some parts, asked once for as long as their files stay; only what is small."""
        return ANSWERS.of(self._about(parts, *what), find)

    def _about(self, parts: Sequence[str], *what: str) -> str:
        """Hash of what is asked of some parts in the state in which their files are."""
        return json_hash([str(self.place), what, [sorted(self._state(part).items()) for part in parts]])

    def _state(self, part: str) -> dict[str, tuple[int, int]]:
        """Files of a part when the table was opened."""
        return {name: state for name, state in self._opened.items() if name.startswith(f"{part}/")}


def _states(folder: Path) -> dict[str, tuple[int, int]]:
    """Time and size of every file. Metadata are copied where other parts are replaced, so that theirs is the size alone."""
    found = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            file = os.path.join(directory, name)
            try:
                stat = os.stat(file)
            except FileNotFoundError:
                continue
            time = 0 if name.endswith(".json") or name.startswith(".z") else stat.st_mtime_ns
            found[os.path.relpath(file, folder).replace(os.sep, "/")] = time, stat.st_size
    return found


class StoredNames:
    """Names of the rows of a table in a store, read some at a time; another index of pandas where that is asked for."""

    def __init__(self, files: TableFiles) -> None:
        self.files = files
        attrs = files.group["obs"].attrs
        self.name = str(attrs["_index"])
        self.part = f"obs/{self.name}"
        self._texts = text_array(files.group, self.part)
        self._length = n_rows(files.group, "obs")
        self._few: dict[bytes, pd.Index] = {}  # what was asked for

    @classmethod
    def of(cls, files: TableFiles) -> StoredNames:
        """Those of a table, the same object as long as their files stay."""
        return files.shared(f"obs/{files.group['obs'].attrs['_index']}", lambda: cls(files))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, rows: NDArray[np.int64]) -> pd.Index:
        if self._texts is None:
            return self.whole[rows]
        asked = np.ascontiguousarray(rows).tobytes() if len(rows) <= FEW else b""
        with self.files.watched(self.part):
            found = self._few[asked] if asked in self._few else chosen(self._texts, rows)
        if asked and len(self._few) < FEW:
            self._few[asked] = found
        return found

    def blocks(self) -> Iterator[pd.Index]:
        """All names, some at a time."""
        if self._texts is None:
            yield self.whole
            return
        for start in range(0, len(self), self._texts.chunks[0]):
            with self.files.watched(self.part):
                block = texts_at(self._texts, start)
            yield block

    @property
    def whole(self) -> pd.Index:
        """All names, in memory."""
        whole: pd.Index = pd.Index(self.files.read(self.part), name=None if self.name == INDEX else self.name)
        return whole

    @property
    def is_unique(self) -> bool:
        """Whether every row has a name of its own."""
        return bool(self.whole.is_unique)

    def get_indexer(self, names: list[str]) -> NDArray[np.intp]:
        """Rows of these names; -1 where there is none."""
        return np.asarray(self.whole.get_indexer(pd.Index(names)))


def text_array(group: zarr.Group, part: str) -> zarr.Array[Any] | None:
    """A column of text, of which rows can be read by themselves; None for any other kind."""
    found = group[part]
    return found if isinstance(found, zarr.Array) and found.attrs.get("encoding-type") == "string-array" else None


def texts_at(array: zarr.Array[Any], start: int) -> pd.Index:
    """The chunk of a column of text that begins with a row."""
    texts: pd.Index = pd.Index(np.asarray(array[start : start + array.chunks[0]]).astype(object), dtype=object)
    return texts


def chosen(array: zarr.Array[Any], rows: NDArray[np.int64]) -> pd.Index:
    """Some rows of a column of text."""
    found, starts = np.empty(len(rows), object), rows - rows % array.chunks[0]
    for start in np.unique(starts).tolist():
        here = starts == start
        found[here] = texts_at(array, start)[rows[here] - start]
    return pd.Index(found, dtype=object)


def n_rows(group: zarr.Group, frame: str) -> int:
    """Number of rows of ``obs`` or ``var``; no name is read where their kind allows it."""
    names = group[f"{frame}/{group[frame].attrs['_index']}"]
    return int(names.shape[0]) if isinstance(names, zarr.Array) else len(read_elem(names))
