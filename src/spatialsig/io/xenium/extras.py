"""Morphology images, boundaries and transcripts of a bundle, through ``spatialdata_io``.

Floor 7, above evaluation. Used by cohort, io/_xenium.
"""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile

from spatialsig import _keys
from spatialsig.errors import FileMissingError, InputError, SpatialsigError
from spatialsig.io.xenium.bundle import (
    ATERA,
    CELLS_ZARR,
    FOCUS_FILE,
    MIP_FILE,
    XENIUM,
    stated_generation,
    version_for,
)
from spatialsig.io.xenium.columns import as_text, check_columns, column_names, read_parquet
from spatialsig.io.xenium.counts import GENE_EXPRESSION
from spatialsig.io.xenium.polygons import read_outlines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from spatialsig.io.xenium.bundle import Form, Layout

CELL_BOUNDARIES, NUCLEUS_BOUNDARIES = "cell_boundaries", "nucleus_boundaries"
TRANSCRIPTS = "transcripts"
_UNASSIGNED = "UNASSIGNED"
_VERTICES = ("vertex_x", "vertex_y")
_LOCATIONS = ("x_location", "y_location", "z_location", "feature_name")
_GLOB = frozenset("[]*?")  # the image reader behind spatialdata_io takes a path for a pattern
_DAMAGE = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, RuntimeError, EOFError,
    NotImplementedError, MemoryError, zipfile.BadZipFile, pa.ArrowException,
)  # fmt: skip
_links: list[tempfile.TemporaryDirectory[str]] = []  # lazy elements read through them until the process ends


def extra_files(form: Form, *, morphology: bool, boundaries: bool, transcripts: bool) -> tuple[str, ...]:
    """Names of the files that the asked elements need; :class:`InputError` for one that cannot be read."""
    if not (morphology or boundaries or transcripts):
        return ()
    files = [CELLS_ZARR]
    if form == ATERA:
        if transcripts:
            msg = (
                "`transcripts=True` is not for the bundles of Atera, whose billions of molecules would not fit into an "
                "element: read without it, the counts of the cells are in the table."
            )
            raise InputError(msg)
        return tuple(files)
    files += [f"{CELL_BOUNDARIES}.parquet", f"{NUCLEUS_BOUNDARIES}.parquet"] if boundaries else []
    return (*files, *([f"{TRANSCRIPTS}.parquet"] if transcripts else []))


def read_extras(
    path: Path,
    form: Form,
    layout: Layout,
    specs: dict[str, Any],
    *,
    centres: pd.DataFrame,
    in_order: bool,
    morphology: bool,
    boundaries: bool,
    transcripts: bool,
) -> dict[str, Any]:
    """Read the asked elements of a bundle by name, with cell ids as text whatever the layout.

    The matrix and the cells were checked before: ``centres`` are the centroids (um) by cell id in the order of the
    matrix, and ``in_order`` says whether ``cells.parquet`` has it too. ``specs`` is the content of the manifest.
    Raises :class:`FileMissingError` without morphology images, :class:`InputError` if a file is damaged or files do not
    fit each other.
    """
    if morphology:
        _check_images(path, form, layout)
        _check_whole(path, form, layout)
    if form == ATERA:
        elements = {}
        if boundaries:
            outlines = read_outlines(path / CELLS_ZARR, centres, pixel_size=float(specs["pixel_size"]))
            elements = dict(zip((CELL_BOUNDARIES, NUCLEUS_BOUNDARIES), outlines, strict=True))
        if morphology:
            source = _corrected(path, form, layout, specs)
            elements |= _read(path, source, layout, morphology=True, boundaries=False, transcripts=False)
        return elements
    if boundaries:
        for name in (CELL_BOUNDARIES, NUCLEUS_BOUNDARIES):
            file = path / f"{name}.parquet"
            check_columns(file, read_parquet(file).column_names, (_keys.CELL_ID, *_VERTICES))
    if transcripts:
        file = path / f"{TRANSCRIPTS}.parquet"
        check_columns(file, column_names(file), (_keys.CELL_ID, *_LOCATIONS))
    as_is = in_order and stated_generation(specs) == layout.generation and not _GLOB & set(str(path.resolve()))
    source = path if as_is and not boundaries else _corrected(path, form, layout, specs)
    if boundaries:
        _put_tables(path, source, centres.index.to_numpy(str), in_order=in_order)
    elements = _read(path, source, layout, morphology=morphology, boundaries=boundaries, transcripts=transcripts)
    for name in (CELL_BOUNDARIES, NUCLEUS_BOUNDARIES):
        if name in elements:
            _name_owners(path / f"{name}.parquet", elements[name])
    if TRANSCRIPTS in elements:
        elements[TRANSCRIPTS][_keys.CELL_ID] = elements[TRANSCRIPTS][_keys.CELL_ID].map_partitions(
            _owners_as_text, meta=(_keys.CELL_ID, "object")
        )
    return elements


@contextmanager
def naming_damage(path: Path, *, asked: Sequence[str]) -> Iterator[None]:
    """Turn what lazily read elements raise while they are stored into an error that names the bundle."""
    try:
        yield
    except SpatialsigError:
        raise
    except _DAMAGE as error:
        if not asked or getattr(error, "errno", None) is not None:  # of the disk, not of the content
            raise
        msg = (
            f"bundle {str(path)!r}: {' or '.join(asked)} cannot be copied ({type(error).__name__}: {error}). Copy their "
            f"files from the instrument again, or read without them."
        )
        raise InputError(msg) from error


def _check_images(path: Path, form: Form, layout: Layout) -> None:
    if layout.images is None:
        wanted = (
            f"{form.images}/ch0000_dapi.ome.tif"
            if form == ATERA
            else f"{form.images}/ (XOA 2 and later), {FOCUS_FILE} or {MIP_FILE} (XOA 1)"
        )
        msg = (
            f"bundle {str(path)!r} has no morphology images; wanted {wanted}: copy them from the instrument, or read "
            f"without `morphology`."
        )
        raise FileMissingError(msg)
    if not layout.images_fit:
        msg = (
            f"bundle {str(path)!r} has morphology images of XOA {layout.images} but cells of XOA {layout.generation}: "
            f"take all files from one run, or read without `morphology`."
        )
        raise InputError(msg)


def _check_whole(path: Path, form: Form, layout: Layout) -> None:
    """Refuse morphology images whose pixels reach beyond the end of their file."""
    old = [path / name for name in (FOCUS_FILE, MIP_FILE) if (path / name).exists()]
    for file in old if layout.images == "1" else sorted((path / form.images).glob("[!.]*.ome.tif")):
        try:
            with tifffile.TiffFile(file) as tif:
                ends = [np.add(page.dataoffsets, page.databytecounts).max() for page in tif.pages]
        except _DAMAGE as error:
            msg = f"{str(file)!r} cannot be read as TIFF ({error}): copy it from the instrument again."
            raise InputError(msg) from error
        if max(ends) > file.stat().st_size:
            msg = (
                f"{str(file)!r} is truncated, its pixels reach to byte {max(ends)} of {file.stat().st_size}: copy it from "
                f"the instrument again."
            )
            raise InputError(msg)


def _corrected(path: Path, form: Form, layout: Layout, specs: dict[str, Any]) -> Path:
    """Folder of links to the bundle whose version and names are as ``spatialdata_io`` needs them."""
    _links.append(tempfile.TemporaryDirectory(prefix="spatialsig-"))
    folder = Path(_links[-1].name)
    for file in path.resolve().iterdir():
        if file.name != XENIUM.specs:
            (folder / (XENIUM.images if file.name == form.images else file.name)).symlink_to(file)
    stated = {key: value for key, value in specs.items() if key != "xenium_ranger"}
    stated["analysis_sw_version"] = version_for(layout.generation)
    (folder / XENIUM.specs).write_text(json.dumps(stated), encoding="utf-8")
    return folder


def _put_tables(path: Path, folder: Path, cell_ids: NDArray[np.str_], *, in_order: bool) -> None:
    """Cells in the order of the matrix, and no counts: ``spatialdata_io`` reads both before it reads outlines."""
    (folder / XENIUM.matrix).unlink()
    with h5py.File(folder / XENIUM.matrix, "w") as file:
        numbers = {"data": [], "indices": [], "indptr": [0] * (len(cell_ids) + 1), "shape": [1, len(cell_ids)]}
        for name, values in numbers.items():
            file[f"matrix/{name}"] = np.array(values, np.int32)
        text = {"id": "none", "name": "none", "feature_type": GENE_EXPRESSION, "genome": ""}
        for name, value in text.items():
            file[f"matrix/features/{name}"] = np.array([value], "S")
        file["matrix/barcodes"] = cell_ids.astype("S")
    if not in_order:
        cells = read_parquet(path / XENIUM.cells)
        name = f"{path / XENIUM.cells}: cell_id"
        ids_in_file = pd.Index(as_text(cells.column(_keys.CELL_ID).to_pandas(), name=name))
        (folder / XENIUM.cells).unlink()
        pq.write_table(cells.take(pa.array(ids_in_file.get_indexer(pd.Index(cell_ids)))), folder / XENIUM.cells)


def _read(
    path: Path, source: Path, layout: Layout, *, morphology: bool, boundaries: bool, transcripts: bool
) -> dict[str, Any]:
    from pims.api import UnknownFormatError  # type: ignore[import-untyped]
    from spatialdata_io import xenium

    old_images = morphology and layout.images == "1"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*annotat.*", category=UserWarning)  # its table is not kept
            sdata = xenium(
                source,
                cells_boundaries=boundaries,
                nucleus_boundaries=boundaries,
                cells_as_circles=False,
                cells_labels=False,
                nucleus_labels=False,
                cells_table=boundaries,
                transcripts=transcripts,
                morphology_mip=old_images and (path / MIP_FILE).exists(),
                morphology_focus=morphology and (not old_images or (path / FOCUS_FILE).exists()),
                aligned_images=False,
            )
    except (*_DAMAGE, UnknownFormatError) as error:
        asked = {"morphology": morphology, "boundaries": boundaries, "transcripts": transcripts}
        names = [name for name, is_asked in asked.items() if is_asked]
        msg = (
            f"bundle {str(path)!r}: {' and '.join(names)} cannot be read ({type(error).__name__}: {error}). Copy their "
            f"files from the instrument again, or read without them."
        )
        raise InputError(msg) from error
    return {name: element for kind, name, element in sdata.gen_elements() if kind != "tables"}


def _name_owners(file: Path, shapes: GeoDataFrame) -> None:
    """Ids as text, after a check that every outline belongs to the cell its file names."""
    names = [_keys.CELL_ID, *(["label_id"] if "label_id" in column_names(file) else [])]
    rows = read_parquet(file, names)
    one = rows.column(names[-1])
    starts = np.flatnonzero(np.r_[True, np.asarray(one[1:].to_pandas() != one[:-1].to_pandas())])
    owners = as_text(rows.column(_keys.CELL_ID).take(pa.array(starts)).to_pandas(), name=f"{file}: cell_id")
    own_column = _keys.CELL_ID in shapes
    if not own_column:
        shapes.index = pd.Index(as_text(shapes.index, name=f"{file}: cell_id"), name=_keys.CELL_ID, dtype=object)
    named = shapes[_keys.CELL_ID].to_numpy(str) if own_column else shapes.index.to_numpy(str)
    if not np.array_equal(named, owners):
        wrong = len(owners) if len(named) != len(owners) else int((named != owners).sum())
        msg = (
            f"{wrong} of {len(owners)} outlines in {str(file)!r} belong to other cells in {CELLS_ZARR}: take both files "
            f"from one bundle."
        )
        raise InputError(msg)


def _owners_as_text(ids: pd.Series[Any]) -> pd.Series[Any]:
    """Cell of each transcript; what belongs to no cell is ``UNASSIGNED`` in every layout."""
    text = pd.Series(as_text(ids, name=f"{TRANSCRIPTS}.parquet: cell_id"), index=ids.index, dtype=object)
    return text.where(text != "-1", _UNASSIGNED)
