"""Tables and column names read from the parquet files of a bundle, damage named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from spatialsig._errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PARQUET_DAMAGE = (
    OSError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, MemoryError, NotImplementedError,
    pa.ArrowException,
)  # fmt: skip


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read one parquet file, with the checksums that it has.

    Raises
    ------
    InputError
        If it is damaged.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            _check_names(file, parquet.metadata)
            table = parquet.read(columns=None if columns is None else list(columns))
            table.validate(full=True)
            return table
    except InputError:
        raise
    except PARQUET_DAMAGE as error:
        msg = f"{str(file)!r} cannot be read as parquet ({error}): copy it from the output of the instrument again."
        raise InputError(msg) from error


def _check_names(file: Path, metadata: pq.FileMetaData) -> None:
    """The footer names every column twice; a damaged name would pass for another column."""
    names = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    for group in range(metadata.num_row_groups):
        found = [metadata.row_group(group).column(i).path_in_schema for i in range(metadata.num_columns)]
        if found != names:
            wrong = [pair for pair in zip(names, found, strict=True) if pair[0] != pair[1]]
            msg = f"{str(file)!r} names columns in two ways, as {wrong[0]}: copy it from the output of the instrument again."
            raise InputError(msg)


def column_names(file: Path) -> list[str]:
    """Columns of a parquet file; :class:`InputError` if it is damaged."""
    try:
        return list(pq.read_schema(file).names)
    except PARQUET_DAMAGE as error:
        msg = f"{str(file)!r} cannot be read as parquet ({error}): copy it from the output of the instrument again."
        raise InputError(msg) from error


def check_columns(file: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise :class:`InputError` naming the columns that a parquet file lacks."""
    missing = [name for name in wanted if name not in found]
    if missing:
        msg = f"{str(file)!r} has no column(s) {missing}; it has {list(found)}. Use the original file."
        raise InputError(msg)
