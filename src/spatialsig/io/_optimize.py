"""Images of a store rewritten in small chunks, from which patches are read many times faster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd

from spatialsig.store.pixels.layout import as_layout
from spatialsig.store.relayout import relayout

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLUMNS: Mapping[str, str] = {"image": "object", "bytes_before": "int64", "bytes_after": "int64"}


def optimize(
    path: str | Path, *, layout: Literal["default", "speed"] = "default", chunk_px: int | None = None
) -> pd.DataFrame:
    """Rewrite the images of a store in chunks that patches are read from quickly.

    Chunks are those of Zarr [1]_. Every level is copied pixel for pixel, a block at a time; channel names,
    transformations and all other elements stay as they are. An interruption leaves the old image. Objects that were
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
        If it is no SpatialData store.
    InputError
        If the layout or the edge cannot be used.

    References
    ----------
    .. [1] Zarr core specification, version 3. https://zarr-specs.readthedocs.io/en/latest/v3/core/index.html

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import spatialsig as sp
    >>> folder = TemporaryDirectory()
    >>> sp.datasets.toy(size_um=100).write(f"{folder.name}/slide.zarr")
    >>> sp.io.optimize(f"{folder.name}/slide.zarr", layout="speed")["image"].tolist()
    ['he_image']
    >>> folder.cleanup()
    """
    chosen = as_layout(layout, chunk_px=chunk_px)
    rows = [(done.image, done.bytes_before, done.bytes_after) for done in relayout(Path(path), chosen)]
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(dict(_COLUMNS))
