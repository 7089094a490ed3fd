"""Write an object into a store, and read it again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spatialdata import read_zarr

from spatialsig._errors import StoreError
from spatialsig.store.commit import create_store
from spatialsig.store.metadata import elements_on_disk, root_document

if TYPE_CHECKING:
    from spatialdata import SpatialData


def write(
    sdata: SpatialData,
    path: str | Path,
    *,
    overwrite: bool = False,
    image_layout: Literal["default", "speed"] = "default",
) -> None:
    """Write a whole object into a new store, or not at all.

    The store appears under its name only when it is complete, and any SpatialData tool can read it.

    Parameters
    ----------
    sdata
        Object to write; RGB uint8 images are streamed, so they may be larger than memory.
    path
        Directory to create.
    overwrite
        Replace an existing store. The old one stays until the new one is complete.
    image_layout
        ``"default"``: zstd with checksum. ``"speed"``: not compressed, with checksum; larger, and several times
        faster to read. :func:`optimize` changes it later.

    Returns
    -------
    None; ``sdata.path`` is the store, where the verbs put further results. RGB images are stored with all channels
    in chunks of 256 px and a pyramid of 2 x 2 means.

    Raises
    ------
    StoreError
        If ``path`` exists and ``overwrite`` is False, or is something else than a store.
    InputError
        If an element's name or an attribute cannot be stored.
    """
    create_store(path, sdata, overwrite=overwrite, image_layout=image_layout)
    sdata.path = Path(path)


def read(path: str | Path) -> SpatialData:
    """Read a store; images and points stay on disk until they are asked for.

    Parameters
    ----------
    path
        Directory written by :func:`write`, :func:`read_xenium` with ``out``, or spatialdata.

    Returns
    -------
    The object, backed by the store.

    Raises
    ------
    FileMissingError
        If there is nothing at ``path``.
    StoreError
        If it is no SpatialData store, or a damaged one.
    """
    path = Path(path)
    root_document(path)
    try:
        return read_zarr(path)
    except (OSError, ValueError, KeyError, AssertionError) as error:
        unfinished = [f"{kind}/{name}" for kind, name, finished in elements_on_disk(path) if not finished]
        what = f"elements {unfinished} were never finished" if unfinished else f"{type(error).__name__}: {error}"
        msg = f"store {str(path)!r} cannot be read: {what}. Restore it from a copy, or import the slide again."
        raise StoreError(msg) from error
