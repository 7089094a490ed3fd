"""Tables, columns and identifiers read from the files of a bundle, damage named.

Floor 7, above evaluation. Used by 6 modules of io.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spatialsig._files import content_hint
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_DAMAGE = (
    OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError, NotImplementedError,
    pa.ArrowException,
)  # fmt: skip


@contextmanager
def naming_parquet(file: Path) -> Iterator[None]:
    """Turn what a damaged parquet file raises into an :class:`InputError` that names it."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        msg = f"{str(file)!r} cannot be read as parquet ({error}): copy it from the output of the instrument again.{content_hint(file)}"
        raise InputError(msg) from error


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one parquet file, with the checksums that it has; :class:`InputError` if it is damaged."""
    with naming_parquet(file), pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        _check_names(file, parquet.metadata)
        table = parquet.read(columns=None if columns is None else list(columns))
        table.validate(full=True)
        return table


def _check_names(file: Path, metadata: pq.FileMetaData) -> None:
    """Raise where two columns have one name, and where the footer, which names every column twice, disagrees with itself."""
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        msg = (
            f"{str(file)!r} has column(s) {repeated} twice, and which is meant cannot be known: use the original file."
        )
        raise InputError(msg)
    for group in range(metadata.num_row_groups):
        in_group = [metadata.row_group(group).column(i).path_in_schema for i in range(metadata.num_columns)]
        if in_group != names:
            wrong = [pair for pair in zip(names, in_group, strict=True) if pair[0] != pair[1]]
            msg = f"{str(file)!r} names columns in two ways, as {wrong[0]}: copy it from the output of the instrument again."
            raise InputError(msg)


def column_names(file: Path) -> list[str]:
    """Columns of a parquet file; :class:`InputError` if it is damaged."""
    with naming_parquet(file):
        return list(pq.read_schema(file).names)


def check_columns(file: Path, names: Sequence[str], needed: Sequence[str]) -> None:
    """Raise :class:`InputError` naming the columns that a parquet file lacks."""
    missing = [name for name in needed if name not in names]
    if missing:
        msg = f"{str(file)!r} has no column(s) {missing}; it has {list(names)}. Use the original file."
        raise InputError(msg)


def as_text(values: Any, *, name: str) -> NDArray[np.str_]:
    """Turn identifiers of ``name`` into str, however they were stored; :class:`InputError` if bytes are no text."""
    array = np.asarray(values)
    missing = int(pd.isna(array).sum()) if array.dtype.kind in "fO" else 0
    if missing:
        msg = f"{name!r} has {missing} missing value(s): copy the file from the instrument again."
        raise InputError(msg)
    if array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.floor(array)).all():
        array = array.astype(np.int64)
    try:
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in array.tolist()], dtype=str)
    except UnicodeDecodeError as error:
        msg = f"{name!r} holds bytes that are no text ({error}): copy the file from the instrument again."
        raise InputError(msg) from error


def id_kind(dtype: pa.DataType) -> str:
    """Storage of the ids in a column of this type: ``integer``, ``bytes`` or ``text``."""
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return "integer"
    text = pa.types.is_string(dtype) or pa.types.is_large_string(dtype)
    return "text" if text else "bytes"
