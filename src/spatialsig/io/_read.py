"""A SpatialData object read from a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spatialsig.store.snapshot import read_store

if TYPE_CHECKING:
    from spatialdata import SpatialData


def read(path: str | Path) -> SpatialData:
    """Read a store into an object whose images and points stay on disk until they are asked for.

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
    return read_store(Path(path))
