"""Read a Xenium bundle and its H&E, checked file by file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from spatialdata.transformations import Affine

from spatialsig import _keys
from spatialsig._errors import AlignmentError, InputError
from spatialsig.geometry.affine import apply, check_alignment, read_alignment, um_to_he_px
from spatialsig.io._bundle import (
    AREA_COLUMN,
    CELLS,
    MATRIX,
    SPECS,
    X_COLUMN,
    Y_COLUMN,
    check_bundle,
    check_counts,
    pixel_size_of,
    read_cells,
    read_specs,
)
from spatialsig.io._discover import GIVEN, find_alignment, find_he
from spatialsig.io._elements import CIRCLES, DEFAULT_RADIUS_UM, assemble, cell_circles, cell_table, labelled
from spatialsig.io._extras import (
    CELL_BOUNDARIES,
    NUCLEUS_BOUNDARIES,
    TRANSCRIPTS,
    extra_files,
    naming_damage,
    read_extras,
)
from spatialsig.io._layout import detect_layout
from spatialsig.io._matrix import read_matrix
from spatialsig.io._pixels import open_rgb
from spatialsig.io._segmentation import check_cells, check_pixel_size, read_segmentation
from spatialsig.store.commit import check_target
from spatialsig.store.metadata import check_name

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from numpy.typing import ArrayLike, NDArray
    from spatialdata import SpatialData

    from spatialsig.io._layout import Layout
    from spatialsig.io._pixels import RgbFile

MAX_OUTSIDE_IMAGE = 0.2
IDENTITY = "identity"


def read_xenium(
    path: str | Path,
    *,
    he_image: str | Path | None = None,
    he_alignment: str | Path | ArrayLike | None = None,
    sample: str | None = None,
    patient: str | None = None,
    image_key: str = _keys.IMAGE,
    table_key: str = _keys.TABLE,
    morphology: bool = False,
    boundaries: bool = False,
    transcripts: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> SpatialData:
    """Read a Xenium bundle with its H&E.

    Bundles of every version of the Xenium software (1.0 to 4) are read; the version is seen from the files and their
    types, never from the version string. Only the counts, the cells and the H&E are read unless more is asked for.
    Counts, centroids, areas and the pixel size are compared with the second copy that the bundle holds of each.

    Parameters
    ----------
    path
        Output directory of one region.
    he_image
        H&E image. By default the one ``*he_image.ome.tif`` (``.tif``, ``.svs``, ``.ndpi``) beside the bundle's files;
        else one folder above, where the name must begin as the bundle's or image and bundle must be the only ones.
    he_alignment
        Full-resolution H&E px -> morphology px: ``*_he_imagealignment.csv``, keypoints of Xenium Explorer, the
        ``(3, 3)`` matrix itself, or ``"identity"``. By default the csv of the image's name, or the only one beside
        the image or in the bundle.
    sample, patient
        Names of the slide and of its patient; by default the directory's name, and the sample's.
    image_key, table_key
        Names of the image and of the table.
    morphology, boundaries, transcripts
        Also read these elements, through ``spatialdata_io.xenium``.
    out
        Stream everything into a new store there (the H&E is never in memory as a whole); otherwise the H&E stays
        lazy in the original file.
    overwrite
        Replace the store at ``out``.

    Returns
    -------
    Object with

    - ``tables[table_key]``: ``X`` raw counts, CSR float32, ``Gene Expression`` features only; ``obs["cell_id"]``,
      ``obs["sample"]``, ``obs["patient"]``, ``obs["region"]`` and the columns of ``cells.parquet``;
      ``obsm["spatial"]`` um; ``var["gene_ids"]``; ``uns["spatialsig"]["read_xenium"]`` counts what was left out;
    - ``shapes["cell_circles"]``: the cells in um, which the table annotates;
    - ``images[image_key]``: ``(c, y, x)`` uint8 RGB, multi-scale, with an Affine to ``global`` (morphology px);
      missing when there is no H&E;
    - ``attrs["spatialsig"]``: ``sample``, ``patient``, ``um_per_global_px``, ``source`` (reader, bundle, ``xoa``,
      image and alignment with ``he_image_found`` and ``he_alignment_found``: in the bundle, beside it, given);
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
    """
    path = Path(path)
    _check_keys(image_key, table_key)
    wanted = {"morphology": morphology, "boundaries": boundaries, "transcripts": transcripts}
    check_bundle(path, extra_files(**wanted))
    if out is not None:
        check_target(Path(out), overwrite=overwrite)
    specs = read_specs(path)
    pixel_size = pixel_size_of(specs, file=path / SPECS)
    image_path, image_found = (Path(he_image), GIVEN) if he_image is not None else find_he(path) or (None, None)
    matrix, aligned = _alignment(path, image_path, he_alignment, pixel_size)
    sample = path.resolve().name if sample is None else sample
    patient = sample if patient is None else patient
    table, circles, layout, in_order = _cells(
        path, sample=sample, patient=patient, pixel_size=pixel_size, strict=any(wanted.values())
    )
    source: dict[str, Any] = {
        "reader": "read_xenium",
        "bundle": str(path.resolve()),
        "xoa": layout.xoa,
        "he_image": None if image_path is None else str(image_path.resolve()),
        "he_image_found": image_found,
    } | aligned
    attrs = {_keys.SAMPLE: sample, _keys.PATIENT: patient, "um_per_global_px": pixel_size, "source": source}
    file = None if image_path is None else open_rgb(image_path)
    if file is not None and matrix is not None:
        _check_inside(table.obsm[_keys.SPATIAL], file, matrix, pixel_size, name=aligned["he_alignment"] or "")
    elements: dict[str, Any] = {table_key: table, CIRCLES: circles}
    if any(wanted.values()):
        ids = table.obs[_keys.CELL_ID].to_numpy(str)
        elements |= read_extras(path, layout, specs, cell_ids=ids, in_order=in_order, **wanted)
    to_global = {_keys.GLOBAL: Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))} if file else {}
    with naming_damage(path, asked=[name for name, is_wanted in wanted.items() if is_wanted]):
        return assemble(
            elements, file, to_global, attrs={_keys.NAMESPACE: attrs}, image_key=image_key, out=out, overwrite=overwrite
        )


def _check_keys(image_key: str, table_key: str) -> None:
    """Names that no store could hold, or that name two elements, are refused before anything is read."""
    for name in (image_key, table_key):
        check_name(name)
    taken = {CIRCLES, CELL_BOUNDARIES, NUCLEUS_BOUNDARIES, TRANSCRIPTS, "morphology_focus", "morphology_mip"}
    if image_key == table_key or {image_key, table_key} & taken:
        msg = (
            f"`image_key={image_key!r}` and `table_key={table_key!r}` must differ, and from {sorted(taken)}; choose other "
            f"names."
        )
        raise InputError(msg)


def _alignment(
    path: Path, image_path: Path | None, given: str | Path | ArrayLike | None, pixel_size: float
) -> tuple[NDArray[np.float64] | None, dict[str, Any]]:
    """Matrix of the H&E, checked, and what the attributes say of it: where it comes from and how well it fits."""
    if image_path is None:
        if given is not None:
            msg = f"`he_alignment` is given but bundle {str(path)!r} has no H&E image; give `he_image=` too."
            raise InputError(msg)
        return None, {"he_alignment": None, "he_alignment_found": None}
    found, fit = GIVEN, {}
    if given is None:
        given, found = find_alignment(path, image_path)
    if isinstance(given, str) and given == IDENTITY:
        matrix, name = np.eye(3), IDENTITY
    elif isinstance(given, (str, Path)):
        read = read_alignment(given, pixel_size=pixel_size)
        matrix, name = read.matrix, str(Path(given).resolve())
        fit = {"he_alignment_kind": read.kind, "keypoints": read.n_points, "keypoints_rmse_um": read.rmse_um}
    else:
        matrix, name = _as_matrix(given), "given as a matrix"
    check_alignment(matrix, pixel_size=pixel_size, name=name)
    return matrix, {"he_alignment": name, "he_alignment_found": found} | fit


def _as_matrix(given: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(given, dtype=np.float64)
    except (ValueError, TypeError) as error:
        msg = (
            f"`he_alignment` is a {type(given).__name__} that is no matrix ({error}); wanted (3, 3) numbers or a path."
        )
        raise AlignmentError(msg) from error


def _cells(
    path: Path, *, sample: str, patient: str, pixel_size: float, strict: bool
) -> tuple[AnnData, GeoDataFrame, Layout, bool]:
    """Table and circles, checked against every second copy of their numbers in the bundle."""
    matrix = read_matrix(path / MATRIX)
    read = read_cells(path, matrix.cell_ids)
    check_counts(path, read.frame, matrix.per_cell)
    segmentation = read_segmentation(path)
    if segmentation is not None:
        check_pixel_size(segmentation, pixel_size, specs=path / SPECS)
        check_cells(segmentation, read.frame, name=str(path / CELLS), needed=strict)
    layout = detect_layout(
        path, id_kind=read.id_kind, segmentation=None if segmentation is None else segmentation.generation
    )
    placed = np.isfinite(read.frame[[X_COLUMN, Y_COLUMN]].to_numpy(float)).all(axis=1)
    cells = read.frame[placed].reset_index(drop=True)
    xy_um = cells[[X_COLUMN, Y_COLUMN]].to_numpy(np.float64)
    info = {
        "bundle": path.resolve().name,
        "xoa": layout.xoa,
        "pixel_size": pixel_size,
        "n_cells": len(cells),
        "n_genes": len(matrix.var),
        "cells_dropped_without_position": read.without_position,
        "features_dropped": matrix.features_dropped,
        "counts_dropped": matrix.counts_dropped,
    }
    obs = labelled(cells.drop(columns=[X_COLUMN, Y_COLUMN]), sample=sample, patient=patient)
    table = cell_table(matrix.counts[placed], obs, matrix.var, xy_um, info={"read_xenium": info})
    circles = cell_circles(xy_um, _radius_um(cells), table.obs[_keys.CELL_ID], um_per_global_px=pixel_size)
    return table, circles, layout, read.in_order


def _radius_um(cells: Any) -> NDArray[np.float64]:
    """Radius of a circle as large as the cell; the median one where the area is not known."""
    area = cells[AREA_COLUMN].to_numpy(float) if AREA_COLUMN in cells else np.full(len(cells), np.nan)
    known = np.isfinite(area) & (area > 0)
    fallback = float(np.sqrt(np.median(area[known]) / np.pi)) if known.any() else DEFAULT_RADIUS_UM
    radius: NDArray[np.float64] = np.where(known, np.sqrt(np.where(known, area, 1.0) / np.pi), fallback)
    return radius


def _check_inside(
    xy_um: NDArray[np.float64], file: RgbFile, matrix: NDArray[np.float64], pixel_size: float, *, name: str
) -> None:
    """Refuse an alignment that puts cells beside the image; say which usual mistake would explain it."""
    height, width = file.pixels.shape[:2]

    def outside(candidate: NDArray[np.float64]) -> float:
        xy = apply(um_to_he_px(candidate, pixel_size), xy_um)
        return float(1 - ((xy >= 0) & (xy < [width, height])).all(axis=1).mean())

    share = outside(matrix)
    if share <= MAX_OUTSIDE_IMAGE:
        return
    scaled = np.diag([1 / pixel_size, 1 / pixel_size, 1.0]) @ matrix
    swap = np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]])
    others = {
        "its inverse": np.linalg.inv(matrix),
        "a matrix in um instead of morphology px": scaled,
        "x and y swapped": matrix @ swap,
    }
    fitting = [what for what, other in others.items() if outside(other) <= MAX_OUTSIDE_IMAGE]
    hint = f"it fits as {' or '.join(fitting)}" if fitting else "check that image, matrix and bundle are of one slide"
    msg = (
        f"alignment {name!r} puts {share:.0%} of {len(xy_um)} cells outside the H&E of {height} x {width} px (y, x); "
        f"wanted at most {MAX_OUTSIDE_IMAGE:.0%}: {hint}."
    )
    raise AlignmentError(msg)
