"""Stores and slides looked at for faults and for what has to be made again, and stores repaired.

Floor 7, above evaluation. Called as sp.io.repair, sp.io.status, sp.io.verify; used by 2 modules of cli.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import pandas as pd

from spatialsig._arguments import AnyPath, checked
from spatialsig._checks import check_files, first_few
from spatialsig.slide.counts import warn_without_attributes, without_attributes
from spatialsig.slide.lineage import FRESH
from spatialsig.slide.slides import Data, open_slides
from spatialsig.store.repair import LOST, Action, repair_store
from spatialsig.store.verify import Finding, verify_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spatialsig.slide.slides import Slide
    from spatialsig.store.verify import Status


INTACT = frozenset({"ok", "not checksummed"})


@checked
def verify(path: AnyPath) -> pd.DataFrame:
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
    (``ok``, or ``not checksummed``) and one per fault (``missing chunk``, ``altered``, ``unfinished``, ``leftover``; ``stale``
    for a result whose sources changed after it was made, ``changed`` for one that was itself changed by hand since, see
    :func:`status`). A file that another program rewrote on purpose also counts as altered.

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
    findings = list(verify_store(path))
    if all(finding.status in INTACT for finding in findings):
        findings += [finding for slide in open_slides(path) for finding in _inside(slide)]
    return pd.DataFrame(findings, columns=list(Finding._fields), dtype=object)


def _inside(slide: Slide) -> Iterator[Finding]:
    """What does not fit in a store all of whose files are right."""
    if made_here := without_attributes(slide.sdata):
        what = f"tables {first_few(made_here)} hold results of this package, but the root has none of its attributes."
        yield Finding("", "root", "altered", f"{what} {LOST}")
    for row in slide.lineage.rows():
        if row["state"] != FRESH:
            yield Finding(row["part"], "lineage", cast("Status", row["state"]), row["detail"])


@checked
def status(data: Data) -> pd.DataFrame:
    """List what was made on each slide, by which function and from what, and whether it or that has changed since.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; only read.

    Returns
    -------
    One row per result that this package made: ``sample``; ``what`` it is; ``part``, where it lies (an element, or
    ``table/obsm/key``); ``made_by``, the function to call again; ``made_from``, the parts it read; ``state``: ``"fresh"``, ``"stale"`` (what it was made from
    changed; functions refuse it) or ``"changed"`` (by hand, since it was written; functions take it as it is);
    ``detail``, what changed. What carries no record, because other software or an early version made it, is not listed.

    Raises
    ------
    InputError
        If ``data`` is none of these.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> sdata["table"].obsm["spatial"] += 5
    >>> sp.io.status(sdata).query("state == 'stale'")["part"].tolist()
    ['table/obsm/patch_membership', 'signatures']
    """
    rows: list[dict[str, str]] = []
    for slide in open_slides(data):
        warn_without_attributes(slide.sdata)
        rows += [{"sample": slide.name} | row for row in slide.lineage.rows()]
    return pd.DataFrame(rows, columns=["sample", "what", "part", "made_by", "made_from", "state", "detail"])


@checked
def repair(path: AnyPath) -> pd.DataFrame:
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
