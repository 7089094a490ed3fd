"""Parts of an element of a store replaced without writing the rest: of a table, and where an image lies.

Floor 1, above the ground floor. Used by pp/_registration_image, slide/slides.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem, write_elem
from spatialdata import SpatialData
from spatialdata.models import Image2DModel

from spatialsig._checks import check_key
from spatialsig.errors import InputError, StoreError
from spatialsig.store.atomic import link_or_copy
from spatialsig.store.lock import writer_lock
from spatialsig.store.manifest import manifest_file, read_manifest
from spatialsig.store.metadata import elements_on_disk, quiet_zarr
from spatialsig.store.stored.files import n_rows
from spatialsig.store.stored.table import StoredTable
from spatialsig.store.swap import swap_in, whole_root

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata.transformations import BaseTransformation

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
    attrs: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Add or replace parts of a table; ``X`` and everything else is neither read nor written.

    The new table is made beside the store of links to the files that stay, and swapped in by one rename: a reader finds
    the old table or the new one. After any exception or interruption the old one is there.
    Values of ``obsm`` and ``layers`` have one row per observation, columns of ``obs`` and ``var`` one value per
    observation or variable; ``uns`` holds anything that anndata stores, and ``"outer/inner"`` replaces one entry of a
    mapping. ``attrs`` are as for :func:`~spatialsig.store.commit.commit_elements`.
    Raises :class:`KeyMissingError` if the store has no such table, :class:`InputError` if a part has another length
    than the table, or a column's name is reserved, and :class:`StoreError` if ``path`` is no store.
    """
    path = Path(path)
    if not any((obsm, layers, obs, var, uns)):
        return
    with writer_lock(path, f"adding to table {table!r}"):
        live = _live(path, "tables", table, name="table")
        _check(live, table, obsm=obsm, layers=layers, obs=obs, var=var)
        sections, frames = {"obsm": obsm, "layers": layers, "uns": uns}, {"obs": obs, "var": var}
        swap_in(
            path,
            {table: "tables"},
            lambda new: {table: _write_table(live, new / "tables" / table, sections, frames)},
            attrs,
        )


def _check(live: Path, table: str, **parts: Mapping[str, Any] | None) -> None:
    group = zarr.open_group(live, mode="r", use_consolidated=False)
    n_obs, n_var = n_rows(group, "obs"), n_rows(group, "var")
    _check_lengths(table, "observations", n_obs, {key: parts[key] for key in ("obsm", "layers", "obs")})
    _check_lengths(table, "variables", n_var, {"var": parts["var"]})
    for frame in ("obs", "var"):
        index = group[frame].attrs["_index"]
        if index in (parts[frame] or {}):
            msg = f"`{frame}[{index!r}]` is the index of table {table!r}; give the column another name."
            raise InputError(msg)


def _write_table(
    live: Path,
    new: Path,
    sections: Mapping[str, Mapping[str, Any] | None],
    frames: Mapping[str, Mapping[str, Any] | None],
) -> dict[str, Entry]:
    """Make the new table; return the entries of files that are links to those of the old one."""
    _link_tree(live, new)
    target = zarr.open_group(new, mode="r+", use_consolidated=False)
    with quiet_zarr():
        for section, values in sections.items():
            if values:
                _write_section(target, section, values)
        for frame, columns in frames.items():
            if columns:
                _write_columns(target, frame, columns)
    recorded = _recorded(live, "tables")
    return {file: entry for file, entry in recorded.items() if _same_file(live / file, new / file)}


def has_rows_of(path: str | Path, table: str, adata: AnnData) -> bool:
    """Whether a store holds ``table`` with exactly the observations and variables of ``adata``, in this order.

    Raises
    ------
    StoreError
        If ``adata`` was left in the store, and its rows were replaced there.
    """
    live = Path(path) / "tables" / table
    if not live.is_dir():
        return False
    group = zarr.open_group(live, mode="r", use_consolidated=False)
    pairs = [("var", adata.var_names)]
    if isinstance(adata, StoredTable):
        adata.files.check(adata.names.part)
    else:
        pairs.append(("obs", adata.obs_names))
    return all(np.array_equal(np.asarray(_names(group, frame), object), np.asarray(n, object)) for frame, n in pairs)


def _live(path: Path, kind: str, element: str, *, name: str) -> Path:
    """Directory of a finished element of a store, which the argument ``name`` named."""
    whole_root(path)
    finished = [element for of_kind, element, is_whole in elements_on_disk(path) if of_kind == kind and is_whole]
    check_key(finished, element, name=name, where=f"the {kind} of store {str(path)!r}")
    return path / kind / element


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


def _recorded(live: Path, kind: str) -> dict[str, Entry]:
    """Entries of the manifest of an element; none where it is missing or damaged."""
    try:
        entries = read_manifest(manifest_file(live, kind)) or {}
    except StoreError:
        return {}
    return {file: next(iter(contents)) for file, contents in entries.items()}


def _same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and first.samefile(second)


def commit_transformations(path: str | Path, image_key: str, transformations: Mapping[str, BaseTransformation]) -> None:
    """Replace the transformations of an image, from pixels (x, y) to each coordinate system, by these.

    The new image is made beside the store of links to the old one's chunks, and swapped in by one rename; its manifest
    and the consolidated metadata follow. After any exception the store is as it was.
    Raises :class:`KeyMissingError` if the store has no such image, and :class:`StoreError` if ``path`` is no store, or
    the image's metadata are damaged.
    """
    path = Path(path)
    stored = _as_stored(image_key, transformations)
    with writer_lock(path, f"placing image {image_key!r}"):
        live = _live(path, "images", image_key, name="image_key")
        swap_in(
            path, {image_key: "images"}, lambda new: {image_key: _write_image(live, new / "images" / image_key, stored)}
        )


def _write_image(live: Path, new: Path, stored: list[dict[str, Any]]) -> dict[str, Entry]:
    """Make the new image; return the entries of files that it shares with the old one."""
    _link_tree(live, new)
    file = new / _METADATA
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        (multiscale,) = document["attributes"]["ome"]["multiscales"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{str(live / _METADATA)!r} is not the metadata of an image ({error}): restore the file or the store."
        raise StoreError(msg) from error
    multiscale["coordinateTransformations"] = stored
    file.write_text(json.dumps(document, indent=2), encoding="utf-8")
    recorded = _recorded(live, "images")
    return {name: entry for name, entry in recorded.items() if name != _METADATA and (new / name).exists()}


def _as_stored(image_key: str, transformations: Mapping[str, BaseTransformation]) -> list[dict[str, Any]]:
    """How spatialdata writes these transformations: seen on an image of one pixel."""
    pixel = Image2DModel.parse(
        np.zeros((3, 1, 1), np.uint8), dims=("c", "y", "x"), transformations=dict(transformations)
    )
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about chunks of one pixel
        small = Path(directory) / "pixel.zarr"
        SpatialData.init_from_elements({image_key: pixel}).write(small)
        document = json.loads((small / "images" / image_key / _METADATA).read_text(encoding="utf-8"))
    stored: list[dict[str, Any]] = document["attributes"]["ome"]["multiscales"][0]["coordinateTransformations"]
    return stored
