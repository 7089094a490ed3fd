"""Put elements and attributes into a store so that a reader finds the old ones or the new ones, never half of either.

Everything is written into a sibling directory first, flushed, and renamed into place. While elements are swapped the
root carries no consolidated metadata, so that what a reader sees always fits what lies on disk.

Floor 1, above the ground floor. Used by 7 modules of io, slide.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anndata import AnnData
from dask.dataframe import DataFrame as DaskFrame
from geopandas import GeoDataFrame
from spatialdata import SpatialData
from spatialdata.models import (
    Image2DModel,
    Image3DModel,
    Labels2DModel,
    Labels3DModel,
    PointsModel,
    ShapesModel,
    get_model,
)

from spatialsig._files import flush_entry
from spatialsig._paths import behind_links
from spatialsig.errors import InputError, StoreError
from spatialsig.store.atomic import exchange, flush_tree
from spatialsig.store.chunk_files import arrays_behind, check_whole
from spatialsig.store.foreign import check_only_ours
from spatialsig.store.layout import DEFAULT, Layout, LayoutName, as_layout, check_level_sizes, levels_of
from spatialsig.store.lock import writer_lock
from spatialsig.store.manifest import record
from spatialsig.store.matrices import StreamedTable
from spatialsig.store.metadata import (
    SPATIALDATA_ATTRS,
    KeptRoot,
    check_name,
    check_new_names,
    check_path,
    consolidate,
    elements_on_disk,
    quiet_zarr,
    read_attrs,
    replace_root,
    root_document,
    try_record_current,
)
from spatialsig.store.stored.damage import decoding
from spatialsig.store.stored.documents import FILE, KINDS
from spatialsig.store.stream import StreamedImage, as_streamed, check_pixels, fill, template
from spatialsig.store.swap import clear_leftovers, staging_directory, swap_in, whole_root
from spatialsig.store.tables import storable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialsig.store.manifest import Entry

__all__ = ["commit_elements", "create_store", "read_attrs", "write_attrs"]

_KIND_OF_MODEL = {
    Image2DModel: "images",
    Image3DModel: "images",
    Labels2DModel: "labels",
    Labels3DModel: "labels",
    PointsModel: "points",
    ShapesModel: "shapes",
}


def create_store(
    path: str | Path,
    sdata: SpatialData,
    *,
    images: Mapping[str, StreamedImage] | None = None,
    overwrite: bool = False,
    image_layout: Layout | LayoutName = DEFAULT,
) -> None:
    """Write a whole object, which is left as it is, into a new store.

    RGB uint8 images are stored in ``image_layout``, with their levels as they are (one without any gets a pyramid of 2 x 2
    means), and so are ``images``, further elements that are streamed from their source; every other element as
    ``sdata.write`` does it. With ``overwrite`` the
    store that is there stays until the new one is complete.
    Raises :class:`StoreError` if ``path`` exists and ``overwrite`` is False, or is something else than a store, and
    :class:`InputError` if a name, an attribute or the layout cannot be used.
    """
    path, layout = behind_links(Path(path)), as_layout(image_layout)
    elements = _storable({name: element for _, name, element in sdata.gen_elements()} | dict(images or {}))
    kinds = _kinds_of(elements)
    check_new_names(kinds)
    check_json(sdata.attrs)
    check_target(path, overwrite=overwrite)
    with writer_lock(path, "writing the store"):
        clear_leftovers(path)
        check_target(path, overwrite=overwrite)
        with staging_directory(path) as staging:
            known = _write(staging, elements, sdata.attrs, layout)
            for name, kind in kinds.items():
                record(staging / kind / name, kind, known.get(name))
            flush_tree(staging)
            if path.exists():
                exchange(staging, path)
            else:
                os.rename(staging, path)
            flush_entry(path.parent)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise :class:`StoreError` if a store cannot be written at ``path``, or if what it would replace holds other things."""
    check_path(path)
    _check_outside(path)
    if not path.exists():
        return
    if not overwrite:
        msg = f"store {str(path)!r} already exists; pass `overwrite=True` to replace it, or choose another path."
        raise StoreError(msg)
    root_document(path)  # never replace a directory that is not a store
    check_only_ours(path)


def _check_outside(path: Path) -> None:
    """No store inside another one, or inside any other Zarr hierarchy: its owner would lose or overwrite it."""
    for parent in path.absolute().parents:
        if (parent / FILE).is_file() or (parent / ".zgroup").is_file():
            msg = (
                f"store {str(path)!r} would lie inside {str(parent)!r}, which is a Zarr store; choose a path beside it."
            )
            raise StoreError(msg)


def commit_elements(
    path: str | Path, elements: Mapping[str, Any], *, attrs: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Add elements to a live store of any origin, or replace those of the same name and kind.

    ``elements`` holds elements of any kind (image, labels, points, shapes, table, :class:`StreamedImage`) by name. One
    may lazily read the very data that it replaces. ``attrs`` are entries to set in attributes that are mappings of
    mappings, ``{attribute: {section: {name: value}}}``; what stands beside them stays, and they are set when the elements
    are in place. After any exception the store is as it was.
    Raises :class:`StoreError` if ``path`` is no store, and :class:`InputError` if a name cannot be stored, is taken by
    an element of another kind, or an object is no element.
    """
    path = Path(path)
    root_document(path)
    check_json(attrs or {})
    elements = _storable(elements)
    kinds = _kinds_of(elements)
    whole_root(path, but=[f"{kind}/{name}" for name, kind in kinds.items()])
    check_new_names(kinds, [name for _, name, _ in elements_on_disk(path)])
    for name, kind in kinds.items():
        taken = [other for other in KINDS if other != kind and (path / other / name).exists()]
        if taken:
            msg = f"`{name}` is already one of {taken[0]} in {str(path)!r}; store these {kind} under another name."
            raise InputError(msg)
    if not elements:
        return
    with writer_lock(path, f"writing {sorted(elements)}"):
        swap_in(path, kinds, lambda staging: _write(staging, elements, {}), attrs)


def _storable(elements: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _storable_table(element, where=f"tables[{name!r}]") for name, element in elements.items()}


def _storable_table(element: Any, *, where: str) -> Any:
    if isinstance(element, StreamedTable):
        return StreamedTable(storable(element.light, where=where), element.matrices)
    return storable(element, where=where) if isinstance(element, AnnData) else element


def _kinds_of(elements: Mapping[str, Any]) -> dict[str, str]:
    kinds = {}
    for name, element in elements.items():
        check_name(name)
        kinds[name] = _kind_of(name, element)
    return kinds


def _kind_of(name: str, element: Any) -> str:
    if isinstance(element, StreamedImage):
        check_pixels(element.pixels, name=name)
        return "images"
    if isinstance(element, AnnData | StreamedTable):
        return "tables"
    try:
        return _KIND_OF_MODEL[get_model(element)]
    except (TypeError, KeyError) as error:
        msg = (
            f"`{name}` is a {type(element).__name__}; wanted a SpatialData element: parse it with a spatialdata model."
        )
        raise InputError(msg) from error
    except ValueError as error:
        msg = f"element {name!r} cannot be stored: {error}. Parse it again with its model of spatialdata."
        raise InputError(msg) from error


def _write(
    staging: Path, elements: Mapping[str, Any], attrs: Mapping[str, Any], layout: Layout | LayoutName = DEFAULT
) -> dict[str, dict[str, Entry]]:
    """Write a store of its own, RGB images first as templates, then their pixels; return what is known of files."""
    for name, element in elements.items():
        check_whole(element)
        check_level_sizes([level.shape[-2:] for level in levels_of(element)], name=f"element {name!r}", same_part=False)
    streamed = {name: e if isinstance(e, StreamedImage) else as_streamed(e, layout) for name, e in elements.items()}
    pixels = {name: image for name, image in streamed.items() if image is not None}
    small = {name: template(pixels[name]) if name in pixels else _own(element) for name, element in elements.items()}
    with quiet_zarr():
        # a table may be written without the element that it annotates: that one is in the live store
        warnings.filterwarnings("ignore", message=".*annotat.*", category=UserWarning)
        with decoding(lambda: [array for element in elements.values() for array in arrays_behind(element)]):
            SpatialData.init_from_elements(small, attrs=dict(attrs)).write(staging, update_sdata_path=False)
    known = {name: fill(staging / "images" / name, image) for name, image in pixels.items()}
    for name, element in elements.items():
        if isinstance(element, StreamedTable):
            element.fill(staging / "tables" / name)
    consolidate(staging)
    return known


def _own(element: Any) -> Any:
    """The same data with attributes of its own: spatialdata takes some away while it writes, and a failure loses them."""
    if isinstance(element, StreamedTable):
        return element.light
    if not isinstance(element, GeoDataFrame):
        return element.copy() if isinstance(element, DaskFrame) else element
    own = element.copy(deep=False)
    own.attrs = dict(element.attrs)
    return own


def write_attrs(path: Path, attrs: Mapping[str, Any]) -> None:
    """Set attributes of a store, JSON-able values by name; those of other names stay.

    The root metadata are replaced as one file (attributes and the consolidated copy live in it). ``spatialdata_attrs``
    is spatialdata's own and is never replaced.
    Raises :class:`StoreError` if ``path`` is no store, and :class:`InputError`, with nothing written, if a value cannot
    be stored as JSON.
    """
    new = {key: value for key, value in attrs.items() if key != SPATIALDATA_ATTRS}
    check_json(new)
    whole_root(path)
    with writer_lock(path, "writing attributes"):
        document = whole_root(path)
        document["attributes"] |= new
        with staging_directory(path) as staging:
            staging.mkdir()
            kept = KeptRoot(path, staging)
            try:
                replace_root(path, document)
            except BaseException:
                kept.put_back()
                raise
        try_record_current(path)


def check_json(attrs: Mapping[str, Any]) -> None:
    """Raise :class:`InputError` naming the first attribute that JSON cannot hold."""
    for key, value in attrs.items():
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError) as error:
            msg = f"attribute {key!r} cannot be stored as JSON ({error}); use str, int, finite float, list, dict."
            raise InputError(msg) from error
