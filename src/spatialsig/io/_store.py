"""Stores read, written, verified, repaired and laid out anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import pandas as pd
from spatialdata import SpatialData

from spatialsig._arguments import AnyPath, checked
from spatialsig._checks import check_files
from spatialsig.slide.lineage import FRESH
from spatialsig.slide.slides import Data, open_slides
from spatialsig.store.commit import create_store
from spatialsig.store.layout import as_layout
from spatialsig.store.relayout import relayout
from spatialsig.store.repair import Action, repair_store
from spatialsig.store.snapshot import read_store
from spatialsig.store.verify import Finding, verify_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialsig.store.verify import Status


INTACT = frozenset({"ok", "not checksummed"})
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


@checked
def read(path: AnyPath) -> SpatialData:
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
        findings += [
            Finding(row["part"], "lineage", cast("Status", row["state"]), row["detail"])
            for slide in open_slides(path)
            for row in slide.lineage.rows()
            if row["state"] != FRESH
        ]
    return pd.DataFrame(findings, columns=list(Finding._fields), dtype=object)


@checked
def status(data: Data) -> pd.DataFrame:
    """List what was made on each slide, by which function and from what, and whether it or that has changed since.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; only read.

    Returns
    -------
    One row per result that this package made: ``sample``; ``part`` (an element, or ``table/obsm/key``); ``made_by``, the
    function to call again; ``made_from``, the parts it read; ``state``: ``"fresh"``, ``"stale"`` (what it was made from
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
    rows = [{"sample": slide.name} | row for slide in open_slides(data) for row in slide.lineage.rows()]
    return pd.DataFrame(rows, columns=["sample", "part", "made_by", "made_from", "state", "detail"])


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


@checked
def optimize(
    path: AnyPath, *, layout: Literal["default", "speed"] = "default", chunk_px: int | None = None
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
    >>> with TemporaryDirectory() as folder:
    ...     sp.datasets.toy(size_um=100).write(f"{folder}/slide.zarr")
    ...     sp.io.optimize(f"{folder}/slide.zarr", layout="speed")["image"].tolist()
    ['he_image']
    """
    chosen = as_layout(layout, chunk_px=chunk_px)
    rows = [(done.image, done.bytes_before, done.bytes_after) for done in relayout(Path(path), chosen)]
    return pd.DataFrame(rows, columns=list(_COLUMNS)).astype(dict(_COLUMNS))
