"""A store made readable again after an interruption of any writer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from spatialsig.store.repair import Action, repair_store


def repair(path: str | Path) -> pd.DataFrame:
    """Move what is unfinished out of a store and complete its metadata; no data are ever deleted.

    Leftovers and unfinished elements go to ``.<name>.quarantine-*`` beside the store. Metadata files that no longer
    fit their checksum are written again from their copy in the root. Altered or missing chunks cannot be repaired:
    :func:`verify` names their element, which has to be made again.

    Parameters
    ----------
    path
        Store of any origin, such as one in which ``sdata.write`` or ``sdata.write_element`` was killed.

    Returns
    -------
    One row per change (none where all was well): ``element``, ``kind``, ``action`` (``moved``, ``restored``,
    ``written`` or ``recorded``) and ``detail``.

    Raises
    ------
    FileMissingError
        If there is nothing at ``path``.
    StoreError
        If ``path`` is something else than a store, or another process writes to it.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import spatialsig as sp
    >>> folder = TemporaryDirectory()
    >>> sp.io.write(sp.datasets.toy(size_um=100), f"{folder.name}/slide.zarr")
    >>> Path(folder.name, "slide.zarr", "images", "half_written").mkdir()  # as a killed writer leaves it
    >>> sp.io.repair(f"{folder.name}/slide.zarr")[["element", "action"]]
            element action
    0  half_written  moved
    >>> folder.cleanup()
    """
    return pd.DataFrame(list(repair_store(Path(path).absolute())), columns=list(Action._fields), dtype=object)
