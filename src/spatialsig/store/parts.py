"""Add or replace parts of a table in a store (an ``obsm`` key, a column) without writing the rest again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem, write_elem

from spatialsig._checks import check_key
from spatialsig.errors import InputError, StoreError
from spatialsig.store.atomic import link_or_copy
from spatialsig.store.lock import writer_lock
from spatialsig.store.manifest import manifest_file, read_manifest
from spatialsig.store.metadata import elements_on_disk, root_document
from spatialsig.store.swap import swap_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

    from spatialsig.store.manifest import Entry

_METADATA = "zarr.json"


def commit_table_parts(
    path: str | Path,
    table: str,
    *,
    obsm: Mapping[str, Any] | None = None,
    layers: Mapping[str, Any] | None = None,
    obs: Mapping[str, Any] | None = None,
    var: Mapping[str, Any] | None = None,
    uns: Mapping[str, Any] | None = None,
) -> None:
    """Add or replace parts of a table; ``X`` and everything else is neither read nor written.

    The new table is made beside the store of links to the files that stay, and swapped in by one rename: a reader
    finds the old table or the new one, and after an interruption the old one is there.

    Parameters
    ----------
    path
        Live store.
    table
        Name of a table in it.
    obsm, layers
        Key -> array, sparse matrix or data frame with one row per observation.
    obs, var
        Column -> array or series with one value per observation or variable.
    uns
        Key -> anything that anndata stores; ``"outer/inner"`` replaces one entry of a mapping.

    Returns
    -------
    None; the parts are on disk. After any exception the store is as it was.

    Raises
    ------
    KeyMissingError
        If the store has no such table.
    InputError
        If a part has another length than the table, or a column's name is reserved.
    StoreError
        If ``path`` is no store.
    """
    path = Path(path)
    if not any((obsm, layers, obs, var, uns)):
        return
    with writer_lock(path, f"adding to table {table!r}"):
        live = _live(path, table)
        _check(live, table, obsm=obsm, layers=layers, obs=obs, var=var)
        sections, frames = {"obsm": obsm, "layers": layers, "uns": uns}, {"obs": obs, "var": var}
        swap_in(path, {table: "tables"}, lambda new: {table: _write(live, new / "tables" / table, sections, frames)})


def _check(live: Path, table: str, **parts: Mapping[str, Any] | None) -> None:
    group = zarr.open_group(live, mode="r", use_consolidated=False)
    n_obs, n_var = len(_names(group, "obs")), len(_names(group, "var"))
    _check_lengths(table, "observations", n_obs, {key: parts[key] for key in ("obsm", "layers", "obs")})
    _check_lengths(table, "variables", n_var, {"var": parts["var"]})
    for frame in ("obs", "var"):
        index = group[frame].attrs["_index"]
        if index in (parts[frame] or {}):
            msg = f"`{frame}[{index!r}]` is the index of table {table!r}; give the column another name."
            raise InputError(msg)


def _write(
    live: Path,
    new: Path,
    sections: Mapping[str, Mapping[str, Any] | None],
    frames: Mapping[str, Mapping[str, Any] | None],
) -> dict[str, Entry]:
    """Make the new table; return what is known of the files that it shares with the old one."""
    _link_tree(live, new)
    target = zarr.open_group(new, mode="r+", use_consolidated=False)
    for section, values in sections.items():
        if values:
            _write_section(target, section, values)
    for frame, columns in frames.items():
        if columns:
            _write_columns(target, frame, columns)
    return _shared(live, new)


def has_rows_of(path: str | Path, table: str, adata: AnnData) -> bool:
    """Whether a store holds ``table`` with exactly the observations and variables of ``adata``, in this order."""
    live = Path(path) / "tables" / table
    if not live.is_dir():
        return False
    group = zarr.open_group(live, mode="r", use_consolidated=False)
    pairs = (("obs", adata.obs_names), ("var", adata.var_names))
    return all(np.array_equal(np.asarray(_names(group, frame), object), np.asarray(n, object)) for frame, n in pairs)


def _live(path: Path, table: str) -> Path:
    root_document(path)
    tables = [name for kind, name, finished in elements_on_disk(path) if kind == "tables" and finished]
    check_key(tables, table, name="table", where=f"the tables of store {str(path)!r}")
    return path / "tables" / table


def _names(group: zarr.Group, frame: str) -> Any:
    rows = cast("zarr.Group", group[frame])
    return read_elem(rows[str(rows.attrs["_index"])])


def _check_lengths(table: str, what: str, wanted: int, sections: Mapping[str, Mapping[str, Any] | None]) -> None:
    for section, values in sections.items():
        for key, value in (values or {}).items():
            shape = np.shape(value) if not hasattr(value, "shape") else value.shape
            if not shape or shape[0] != wanted:
                msg = (
                    f"`{section}[{key!r}]` has shape {shape}, but table {table!r} of the store has {wanted} {what}; "
                    f"commit the whole table if its rows have changed."
                )
                raise InputError(msg)


def _write_section(group: zarr.Group, section: str, values: Mapping[str, Any]) -> None:
    target = _mapping(group, [section])
    for key, value in values.items():
        *outer, name = key.split("/")
        write_elem(_mapping(target, outer), name, value)


def _mapping(group: zarr.Group, names: Sequence[str]) -> zarr.Group:
    """Mapping inside a mapping, made where it is missing."""
    for name in names:
        if name not in group:
            write_elem(group, name, {})
        group = cast("zarr.Group", group[name])
    return group


def _write_columns(group: zarr.Group, frame: str, columns: Mapping[str, Any]) -> None:
    target = cast("zarr.Group", group[frame])
    order = [str(name) for name in cast("list[Any]", target.attrs["column-order"])]
    for name, column in columns.items():
        series = pd.Series(column)
        write_elem(target, name, series.to_numpy() if isinstance(series.dtype, np.dtype) else series.array)
    target.attrs["column-order"] = order + [name for name in columns if name not in order]


def _link_tree(old: Path, new: Path) -> None:
    """Make a tree of the same files: chunks are links, as nobody writes into them; metadata are copies."""
    for directory, _, names in os.walk(old):
        place = new / Path(directory).relative_to(old)
        place.mkdir(parents=True)
        for name in names:
            if name == _METADATA:
                shutil.copyfile(Path(directory) / name, place / name)
            else:
                link_or_copy(Path(directory) / name, place / name)


def _shared(live: Path, new: Path) -> dict[str, Entry]:
    """Entries of files that are links to those of the old table: they need not be read again."""
    try:
        entries = read_manifest(manifest_file(live, "tables")) or {}
    except StoreError:
        return {}
    return {file: next(iter(entry)) for file, entry in entries.items() if _same_file(live / file, new / file)}


def _same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)
