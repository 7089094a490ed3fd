"""A slide read from a Xenium bundle and its H&E, checked file by file.

Floor 7, above evaluation. Called as sp.io.read_atera, sp.io.read_xenium; used by cli/slide_commands, cohort.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from spatialdata import SpatialData
from spatialdata.transformations import Affine

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, NewKey, checked
from spatialsig.errors import InputError
from spatialsig.io._elements import (
    DEFAULT_RADIUS_UM,
    assemble,
    cell_circles,
    cell_table,
    labelled,
    slide_attrs,
    without_own,
)
from spatialsig.io.images.open_rgb import open_rgb
from spatialsig.io.xenium.atera import read_atera_axes, read_atera_counts
from spatialsig.io.xenium.bundle import ATERA, check_bundle, detect_layout, form_of, pixel_size_of, read_specs
from spatialsig.io.xenium.cells import AREA_COLUMN, X_COLUMN, Y_COLUMN, check_counts, read_cells
from spatialsig.io.xenium.extras import (
    CELL_BOUNDARIES,
    NUCLEUS_BOUNDARIES,
    TRANSCRIPTS,
    extra_files,
    naming_damage,
    read_extras,
)
from spatialsig.io.xenium.he import GIVEN, check_inside, find_he, read_he_alignment
from spatialsig.io.xenium.matrix import read_h5_axes, read_h5_counts
from spatialsig.io.xenium.segmentation import check_cells, check_pixel_size, read_segmentation
from spatialsig.store.commit import check_target
from spatialsig.store.metadata import check_name
from spatialsig.store.tables import check_names, storable_frame

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from numpy.typing import NDArray

    from spatialsig.io.xenium.bundle import Form, Layout


@checked
def read_xenium(
    path: AnyPath,
    *,
    he_image: AnyPath | None = None,
    he_alignment: AnyPath | ArrayLike | None = None,
    sample: Key | None = None,
    patient: Key | None = None,
    image_key: NewKey = _keys.IMAGE,
    table_key: NewKey = _keys.TABLE,
    morphology: bool = False,
    boundaries: bool = False,
    transcripts: bool = False,
    out: AnyPath | None = None,
    overwrite: bool = False,
) -> SpatialData:
    """Read a Xenium or Atera bundle and its H&E into a slide; ``read_atera`` is the same function.

    Bundles [1]_ [2]_ of every version of the Xenium software (1.0 to 4) are read, and both layouts of Atera; platform
    and version are seen from the files and their types, never from the version string. Only the counts, the cells and
    the H&E are read unless more is asked for. Counts, centroids, areas and the pixel size are compared with the second
    copy that the bundle holds of each. The counts come into memory once, without those of controls.

    Parameters
    ----------
    path
        Output directory of one region.
    he_image
        H&E image. By default the one ``*he_image.ome.tif`` (``.tif``, ``.svs``, ``.ndpi``) beside the bundle's files;
        else one folder above, where the name must begin as the bundle's or image and bundle must be the only ones.
    he_alignment
        Full-resolution H&E px -> morphology px: ``*_he_imagealignment.csv`` (Atera: ``*_he_alignment.csv``), the
        keypoints or the whole export (zip or folder) of Xenium Explorer, the ``(3, 3)`` matrix itself, or
        ``"identity"``. By default the csv of the image's name, or the only one beside the image or in the bundle.
    sample, patient
        Names of the slide and of its patient; by default the directory's name, and the sample's.
    image_key, table_key
        Names of the image and of the table.
    morphology, boundaries, transcripts
        Also read these elements, through ``spatialdata_io.xenium``. ``transcripts`` is refused for Atera's
        ``transcripts.zarr.zip``, which holds billions of molecules.
    out
        Stream everything into a new store there (the H&E is never in memory as a whole); otherwise the H&E stays
        lazy in the original file.
    overwrite
        Replace the store at ``out``.

    Returns
    -------
    Object with

    - ``tables[table_key]``: ``X`` raw counts, CSR float32, ``Gene Expression`` features only; ``obs["cell_id"]``,
      ``obs["sample"]``, ``obs["patient"]``, ``obs["region"]`` and the columns of ``cells.parquet``, or of Atera's ``obs``;
      ``obsm["spatial"]`` um; ``var["gene_ids"]``; ``uns["spatialsig"]["read_xenium"]`` counts what was left out;
    - ``shapes["cell_circles"]``: the cells in um, which the table annotates;
    - ``images[image_key]``: ``(c, y, x)`` uint8 RGB, multi-scale, with an Affine to ``global`` (morphology px);
      missing when there is no H&E;
    - ``attrs["spatialsig"]``: ``sample``, ``patient``, ``um_per_global_px``, ``source`` (reader, bundle, ``xoa`` or
      ``"Atera"``, image and alignment with ``he_image_found`` and ``he_alignment_found``: in the bundle, beside it, given);
    - with ``morphology``: ``images["morphology_focus"]`` and, from XOA 1, ``images["morphology_mip"]``; with
      ``boundaries``: ``shapes["cell_boundaries"]`` and ``shapes["nucleus_boundaries"]``; with ``transcripts``:
      ``points["transcripts"]``. Cell ids are text in all of them; molecules of no cell have ``UNASSIGNED``.

    With ``out`` it is read back from the store.

    Raises
    ------
    FileMissingError
        If files are missing (all are named).
    AlignmentError
        If the H&E has no alignment, or one that cannot be right.
    InputError
        If a file is damaged or files do not fit each other; nothing is written then.
    StoreError
        If ``out`` exists and ``overwrite`` is False.

    References
    ----------
    .. [1] 10x Genomics. Understanding Xenium outputs.
       https://www.10xgenomics.com/support/software/xenium-onboard-analysis/latest/analysis/xoa-output-understanding-outputs
    .. [2] Janesick A, Shelansky R, Gottscho AD, et al. High resolution mapping of the tumor microenvironment using
       integrated single-cell, spatial and in situ analysis. Nature Communications 14, 8353 (2023).
       https://doi.org/10.1038/s41467-023-43458-x

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import spatialsig as sp
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = sp.datasets.synthetic_xenium(folder.name, n_slides=1, size_um=100, transcripts=False)
    >>> sdata = sp.io.read_xenium(Path(folder.name, "S1"))
    >>> sorted(name for _, name, _ in sdata.gen_elements())
    ['cell_circles', 'he_image', 'table']
    >>> sdata.attrs["spatialsig"]["source"]["he_image_found"]
    'in the bundle'
    >>> folder.cleanup()
    """
    path = Path(path)
    _check_keys(image_key, table_key)
    extras = {"morphology": morphology, "boundaries": boundaries, "transcripts": transcripts}
    form = form_of(path)
    check_bundle(path, form, extra_files(form, **extras))
    if out is not None:
        check_target(Path(out), overwrite=overwrite)
    specs = read_specs(path / form.specs)
    pixel_size = pixel_size_of(specs, file=path / form.specs)
    image_path, image_place = (Path(he_image), GIVEN) if he_image is not None else find_he(path) or (None, None)
    matrix, aligned = read_he_alignment(path, image_path, he_alignment, pixel_size)
    sample = path.resolve().name if sample is None else sample
    table, circles, layout, in_order = _cells(
        path, form, sample=sample, patient=patient or sample, pixel_size=pixel_size, strict=any(extras.values())
    )
    source: dict[str, Any] = {
        "reader": "read_xenium",
        "bundle": str(path.resolve()),
        "xoa": layout.xoa,
        "he_image": None if image_path is None else str(image_path.resolve()),
        "he_image_found": image_place,
    } | aligned
    attrs = slide_attrs(sample=sample, patient=patient, um_per_global_px=pixel_size, source=source)
    file = None if image_path is None else open_rgb(image_path)
    if file is not None and matrix is not None:
        check_inside(table.obsm[_keys.SPATIAL], file, matrix, pixel_size, name=aligned["he_alignment"] or "")
    elements: dict[str, Any] = {table_key: table, _keys.CIRCLES: circles}
    if any(extras.values()):
        centres = pd.DataFrame(table.obsm[_keys.SPATIAL], index=table.obs[_keys.CELL_ID].to_numpy(object))
        elements |= read_extras(path, form, layout, specs, centres=centres, in_order=in_order, **extras)
    del table, circles  # `elements` has them
    to_global = {_keys.GLOBAL: Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))} if file else {}
    with naming_damage(path, asked=[name for name, is_asked in extras.items() if is_asked]):
        return assemble(elements, file, to_global, attrs=attrs, image_key=image_key, out=out, overwrite=overwrite)


read_atera = read_xenium  # one reader for both platforms, under the name that users of either look for


def _check_keys(image_key: str, table_key: str) -> None:
    """Names that no store could hold, or that name two elements, are refused before anything is read."""
    for name in (image_key, table_key):
        check_name(name)
    taken = {_keys.CIRCLES, CELL_BOUNDARIES, NUCLEUS_BOUNDARIES, TRANSCRIPTS, "morphology_focus", "morphology_mip"}
    if image_key == table_key or {image_key, table_key} & taken:
        msg = (
            f"`image_key={image_key!r}` and `table_key={table_key!r}` must differ, and from {sorted(taken)}; choose other "
            f"names."
        )
        raise InputError(msg)


def _cells(
    path: Path, form: Form, *, sample: str, patient: str, pixel_size: float, strict: bool
) -> tuple[AnnData, GeoDataFrame, Layout, bool]:
    """Table and circles, checked against every second copy of their numbers in the bundle."""
    file = path / form.matrix
    if form == ATERA:
        axes, read = read_atera_axes(file)
    else:
        axes = read_h5_axes(file)
        read = read_cells(path, axes.cell_ids)
    placed = np.isfinite(read.frame[[X_COLUMN, Y_COLUMN]].to_numpy(float)).all(axis=1)
    matrix = (read_atera_counts if form == ATERA else read_h5_counts)(file, axes, placed)
    check_counts(path, form, read.frame, matrix.per_cell)
    segmentation = read_segmentation(path)
    if segmentation is not None:
        check_pixel_size(segmentation, pixel_size, specs=path / form.specs)
        check_cells(segmentation, read.frame, name=str(path / form.cells), needed=strict)
    layout = detect_layout(
        path, form, id_kind=read.id_kind, segmentation=None if segmentation is None else segmentation.generation
    )
    cells = read.frame[placed].reset_index(drop=True)
    xy_um = cells[[X_COLUMN, Y_COLUMN]].to_numpy(np.float64)
    info = {
        "bundle": path.resolve().name,
        "xoa": layout.xoa,
        "pixel_size": pixel_size,
        "n_cells": len(cells),
        "n_genes": len(axes.var),
        "cells_dropped_without_position": read.without_position,
        "features_dropped": matrix.features_dropped,
        "counts_dropped": matrix.counts_dropped,
    }
    obs = labelled(_kept(cells.drop(columns=[X_COLUMN, Y_COLUMN]), path / form.cells), sample=sample, patient=patient)
    table = cell_table(matrix.counts, obs, axes.var, xy_um, info={"read_xenium": info})
    circles = cell_circles(xy_um, _radius_um(cells), table.obs[_keys.CELL_ID], um_per_global_px=pixel_size)
    return table, circles, layout, read.in_order


def _kept(cells: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Columns of the file as a store keeps them; :class:`InputError` names those that none does."""
    where = f"{file}: obs"
    others = without_own(cells.drop(columns=_keys.CELL_ID), where=where)
    check_names(others.columns, where=where)
    kept = storable_frame(others, where=where).copy()
    kept.insert(0, _keys.CELL_ID, cells[_keys.CELL_ID])
    return kept


def _radius_um(cells: Any) -> NDArray[np.float64]:
    """Radius of a circle as large as the cell; the median one where the area is not known."""
    area = cells[AREA_COLUMN].to_numpy(float) if AREA_COLUMN in cells else np.full(len(cells), np.nan)
    measured = np.isfinite(area) & (area > 0)
    fallback = float(np.sqrt(np.median(area[measured]) / np.pi)) if measured.any() else DEFAULT_RADIUS_UM
    radius: NDArray[np.float64] = np.where(measured, np.sqrt(np.where(measured, area, 1.0) / np.pi), fallback)
    return radius
