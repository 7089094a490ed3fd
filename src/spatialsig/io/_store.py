"""Write, read and re-chunk stores.

Floor 7, above evaluation. Called as sp.io.optimize, sp.io.read, sp.io.write; used by 4 modules of 3 rooms.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from spatialdata import SpatialData

from spatialsig._arguments import AnyPath, AnyPlace, checked
from spatialsig._checks import warn
from spatialsig._paths import as_address
from spatialsig.data.level_pixels import check_shown
from spatialsig.data.pyramid import image_levels
from spatialsig.errors import InputError
from spatialsig.slide.counts import check_unique, refuse_masked, warn_without_attributes
from spatialsig.store.commit import create_store
from spatialsig.store.layout import as_layout
from spatialsig.store.relayout import relayout
from spatialsig.store.remote.places import Place
from spatialsig.store.remote.reading import read_remote
from spatialsig.store.snapshot import read_store
from spatialsig.store.stream import as_streamed

_COLUMNS: Mapping[str, str] = {"image": "object", "bytes_before": "int64", "bytes_after": "int64"}


@checked
def write(
    sdata: SpatialData,
    path: AnyPath,
    *,
    overwrite: bool = False,
    image_layout: Literal["default", "speed"] = "default",
) -> None:
    """Write a whole object into a new store, or not at all.

    The store appears under its name only when it is complete, and any SpatialData tool [1]_ can read it.

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
    None; ``sdata.path`` is the store, where functions put further results. RGB images are stored with all channels
    in chunks of 256 px; their levels are kept as they are, and one without any gets a pyramid of 2 x 2 means.

    Raises
    ------
    StoreError
        If ``path`` exists and ``overwrite`` is False, or is something else than a store.
    InputError
        If an element's name or an attribute cannot be stored, or a level of an RGB image does not show what the finer one
        shows: which of the two is right is yours to say, and patches would be read from either.

    References
    ----------
    .. [1] Marconato L, Palla G, Yamauchi KA, et al. SpatialData: an open and universal data framework for spatial
       omics. Nature Methods 22, 58-62 (2025). https://doi.org/10.1038/s41592-024-02212-x

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy(size_um=100)
    >>> folder = TemporaryDirectory()
    >>> sp.io.write(sdata, f"{folder.name}/slide.zarr")
    >>> sdata.path.name
    'slide.zarr'
    >>> folder.cleanup()
    """
    warn_without_attributes(sdata)
    for key, table in sdata.tables.items():
        refuse_masked(table, where=f"nothing was written: tables[{key!r}]")
    for key, image in sdata.images.items():
        if as_streamed(image) is not None:
            levels = image_levels(sdata, key)
            check_shown(levels, len(levels) - 1, name=f"nothing was written: image {key!r}")
    create_store(path, sdata, overwrite=overwrite, image_layout=image_layout)
    sdata.path = Path(path)


@checked
def read(path: AnyPlace, *, storage_options: Mapping[str, Any] | None = None) -> SpatialData:
    """Read a store into an object whose images and points stay where they are until they are asked for.

    Parameters
    ----------
    path
        Directory written by :func:`write`, a reader with ``out`` such as :func:`read_xenium`, or spatialdata; or the address
        of one on another machine (``https://``, ``s3://``, ``gs://`` and what else fsspec [1]_ knows).
    storage_options
        For an address: what its backend in fsspec takes, such as ``{"anon": True}`` for an open bucket of S3; by default what
        fsspec's own configuration says.

    Returns
    -------
    The object, backed by the store. A table in which two genes have one name is warned of.

    Of an address the object is in memory: ``sdata.path`` is None and all that is made of it stays in memory, until :func:`write`
    saves it in a store of this machine. Its tables and shapes are fetched whole, chunks of its images and labels when they are
    asked for; points are not read, which a warning says.

    Raises
    ------
    FileMissingError
        If there is nothing at ``path``.
    StoreError
        If it is no SpatialData store, or a damaged one; for an address, also if it cannot be reached, its backend is not
        installed, or the store was changed while it was read.
    InputError
        If ``storage_options`` are given for a path of this machine.

    References
    ----------
    .. [1] fsspec: file system specification for Python. https://filesystem-spec.readthedocs.io

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import spatialsig as sp
    >>> folder = TemporaryDirectory()
    >>> sp.datasets.toy(size_um=100).write(f"{folder.name}/slide.zarr")
    >>> sdata = sp.io.read(f"{folder.name}/slide.zarr")
    >>> sorted(name for _, name, _ in sdata.gen_elements())
    ['cell_circles', 'he_image', 'table']
    >>> folder.cleanup()
    """
    address = as_address(path)
    if address is None and storage_options is not None:
        msg = f"`storage_options` are for addresses such as s3://bucket/slide.zarr; {str(path)!r} is a path of this machine: leave them out."
        raise InputError(msg)
    sdata = read_store(Path(path)) if address is None else read_remote(Place(address, storage_options or {}))
    for key, table in sdata.tables.items():
        try:
            check_unique(table.var_names, where=f"{str(path)!r}: tables[{key!r}].var_names")
        except InputError as error:  # of what needs the names of genes; all else can be done with it
            warn(str(error))
    return sdata


@checked
def optimize(
    path: AnyPath, *, layout: Literal["default", "speed"] = "default", chunk_px: int | None = None
) -> pd.DataFrame:
    """Rewrite the images of a store in chunks sized for fast reads of patches.

    Chunks are those of Zarr [1]_. Every level is copied pixel for pixel, a block at a time; channel names,
    transformations and all other elements stay as they are. If interrupted, the old image stays. Objects that were
    read from the store before must be read again.

    Parameters
    ----------
    path
        Store of any origin, such as one that ``sdata.write`` made.
    layout
        ``"default"``: zstd with checksum, about the size of a store of spatialdata. ``"speed"``: not compressed, with
        checksum; larger, and several times faster to read.
    chunk_px
        Edge of a chunk, which holds all channels: a power of two from 64 to 1,024; by default 256.

    Returns
    -------
    One row per image that was rewritten (none where all have the layout): ``image``, ``bytes_before``,
    ``bytes_after``.

    Raises
    ------
    FileMissingError
        If there is nothing at ``path``.
    StoreError
        If it is no SpatialData store, or chunks of an image are missing or altered.
    InputError
        If the layout or the edge cannot be used.

    References
    ----------
    .. [1] Zarr core specification, version 3. https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import spatialsig as sp
    >>> with TemporaryDirectory() as folder:
    ...     sp.datasets.toy(size_um=100).write(f"{folder}/slide.zarr")
    ...     sp.io.optimize(f"{folder}/slide.zarr", layout="speed")["image"].tolist()
    ['he_image']
    """
    chosen = as_layout(layout, chunk_px=chunk_px)
    rows = [(done.image, done.bytes_before, done.bytes_after) for done in relayout(Path(path), chosen)]
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(dict(_COLUMNS))
