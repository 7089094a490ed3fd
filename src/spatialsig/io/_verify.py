"""Table of what is missing from a store, altered in it, or left beside it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from spatialsig._checks import check_files
from spatialsig.store.verify import Finding, verify_store


def verify(path: str | Path) -> pd.DataFrame:
    """Check every file of a store against the sizes and checksums recorded when it was written.

    Elements written by this package carry sizes and checksums of all their files: a missing chunk and any flipped
    bit are found. Elements of other writers are decoded chunk by chunk; most of their flipped bits cannot be found.

    Parameters
    ----------
    path
        Store of any origin; it is only read.

    Returns
    -------
    ``element`` (empty for the root), ``kind``, ``status`` and ``detail``: one row per element that is right
    (``ok``, or ``not checksummed``) and one per fault (``missing chunk``, ``altered``, ``unfinished``, ``leftover``).
    A file that another program rewrote on purpose also counts as altered.

    Raises
    ------
    FileMissingError
        If there is nothing at ``path``.

    Examples
    --------
    >>> import tempfile
    >>> import spatialsig as sp
    >>> folder = tempfile.TemporaryDirectory()
    >>> sp.io.write(sp.datasets.toy(size_um=100), f"{folder.name}/slide.zarr")
    >>> sp.io.verify(f"{folder.name}/slide.zarr")[["element", "status"]]
            element status
    0                   ok
    1      he_image     ok
    2  cell_circles     ok
    3         table     ok
    >>> folder.cleanup()
    """
    path = Path(path).absolute()
    check_files([path], what="SpatialData store", fix="Give the path of a directory written by `sp.io.write`.")
    return pd.DataFrame(list(verify_store(path)), columns=list(Finding._fields), dtype=object)
