"""A SpatialData object written into a new store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spatialsig.store.commit import create_store

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
    in chunks of 256 px and a pyramid of 2 x 2 means.

    Raises
    ------
    StoreError
        If ``path`` exists and ``overwrite`` is False, or is something else than a store.
    InputError
        If an element's name or an attribute cannot be stored.

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
    create_store(path, sdata, overwrite=overwrite, image_layout=image_layout)
    sdata.path = Path(path)
