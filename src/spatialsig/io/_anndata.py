"""A slide made of any table with positions and any RGB image: Visium, legacy ST, other imaging platforms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique
from scipy import sparse
from spatialdata.transformations import Identity

from spatialsig import _keys
from spatialsig._checks import check_choice, check_key, check_positive
from spatialsig.errors import InputError
from spatialsig.geometry.affine import apply
from spatialsig.io._elements import DEFAULT_RADIUS_UM, assemble, cell_circles, cell_table, labelled, slide_attrs
from spatialsig.io.images.metadata import choose_um_per_px
from spatialsig.io.images.open_rgb import image_name, open_rgb
from spatialsig.io.images.rgb import MAX_OUTSIDE_IMAGE, RgbFile, RgbPixels
from spatialsig.store.commit import check_target

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import ArrayLike, NDArray
    from spatialdata import SpatialData

MAX_WITHOUT_POSITION = 0.01


def from_anndata(
    adata: AnnData,
    image: str | Path | NDArray[np.uint8],
    *,
    um_per_px: float | None = None,
    spatial_key: str | tuple[str, str] = _keys.SPATIAL,
    spatial_unit: Literal["px", "um"] = "px",
    to_image: ArrayLike | None = None,
    spot_um: float | None = None,
    sample: str | None = None,
    patient: str | None = None,
    image_key: str = _keys.IMAGE,
    table_key: str = _keys.TABLE,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> SpatialData:
    """Make a slide of a table of cells or spots and the image they lie on.

    Parameters
    ----------
    adata
        Table [1]_ whose ``X`` holds raw counts; left as it is. ``obs`` names must be unique.
    image
        Path of an RGB image in a format of :func:`read_he`, or an array ``(y, x, 3)`` uint8.
    um_per_px
        Micrometres per px of the full-resolution image; by default what ``to_image`` implies for positions in um, or
        as the file says.
    spatial_key
        ``adata.obsm`` entry with positions ``(n_obs, 2)``, x and y, or the names of two columns of ``adata.obs``.
    spatial_unit
        ``"px"``: positions are px of the image; ``"um"``: micrometres from its top-left corner.
    to_image
        ``(3, 3)`` matrix that maps positions (x, y) to px of the full-resolution image, for positions in another
        frame; ``spatial_unit`` then says the unit of that frame.
    spot_um
        Diameter of a spot, um; by default circles of 5 um radius are drawn.
    sample, patient
        Names of the slide and of its patient; by default the name of the image file (``"slide"`` for an array), and
        the sample's.
    image_key, table_key
        Names of the image and of the table.
    out, overwrite
        Write a new store there (replacing one); otherwise the object stays in memory, a tiled image on disk.

    Returns
    -------
    Object whose ``global`` is px of the image, with

    - ``tables[table_key]``: ``X`` raw counts, CSR float32; the columns of ``adata.obs`` and ``obs["cell_id"]``,
      ``obs["sample"]``, ``obs["patient"]``, ``obs["region"]``; ``obsm["spatial"]`` um and the other ``obsm``;
      ``var["gene_ids"]``; ``uns["spatialsig"]["from_anndata"]`` counts what was left out;
    - ``shapes["cell_circles"]``: the cells or spots in um, which the table annotates;
    - ``images[image_key]``: ``(c, y, x)`` uint8 RGB, multi-scale;
    - ``attrs["spatialsig"]``: ``sample``, ``patient``, ``um_per_global_px``, ``source``.

    Raises
    ------
    KeyMissingError
        If ``adata.obsm`` has no ``spatial_key``, or ``adata.obs`` not its columns.
    InputError
        If ``X`` holds no counts, positions are no ``(n_obs, 2)`` numbers, more than 1 % of them are not finite,
        more than 20 % lie outside the image, ``to_image`` is no affine matrix, or nothing says the size of a px.

    References
    ----------
    .. [1] Virshup I, Rybakov S, Theis FJ, Angerer P, Wolf FA. anndata: access and store annotated data matrices.
       Journal of Open Source Software 9, 4371 (2024). https://doi.org/10.21105/joss.04371

    Examples
    --------
    >>> import anndata as ad
    >>> import numpy as np
    >>> import spatialsig as sp
    >>> spots = ad.AnnData(np.array([[3, 0], [1, 2]], np.float32), obsm={"spatial": np.array([[30, 40], [70, 20]])})
    >>> sdata = sp.io.from_anndata(spots, np.full((64, 96, 3), 200, np.uint8), um_per_px=0.5, sample="A1")
    >>> sdata["table"].obsm["spatial"]  # um
    array([[15., 20.],
           [35., 10.]])
    """
    if um_per_px is not None:
        check_positive(um_per_px=um_per_px)
    if spot_um is not None:
        check_positive(spot_um=spot_um)
    check_choice(spatial_unit, ("px", "um"), name="spatial_unit")
    if out is not None:
        check_target(Path(out), overwrite=overwrite)
    counts = _counts(adata)
    xy = _positions(adata, spatial_key)
    matrix = None if to_image is None else _matrix(to_image)
    if um_per_px is None and matrix is not None and spatial_unit == "um":
        um_per_px = float(1 / np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    file, where = _open(image)
    try:
        um_per_px = choose_um_per_px(where, um_per_px=um_per_px, in_file=file.pixel_size)
        xy_um = _in_um(xy, matrix, spatial_unit, um_per_px)
        placed = np.isfinite(xy_um).all(axis=1)
        outside = _count_outside(xy_um[placed] / um_per_px, file, spatial_unit)
    except InputError:
        file.close()
        raise
    sample = (image_name(where) if where else "slide") if sample is None else sample
    patient = sample if patient is None else patient
    obs = labelled(adata.obs[placed], sample=sample, patient=patient)
    obs[_keys.CELL_ID] = adata.obs_names[placed].astype(str).to_numpy(object)
    info = {
        "n_cells": int(placed.sum()),
        "n_genes": adata.n_vars,
        "um_per_px": um_per_px,
        "cells_dropped_without_position": int((~placed).sum()),
        "cells_outside_image": outside,
    }
    table = cell_table(counts[placed], obs, _var(adata), xy_um[placed], info={"from_anndata": info})
    for key in set(adata.obsm) - {str(spatial_key), _keys.SPATIAL}:
        table.obsm[key] = adata.obsm[key][placed]
    radius = np.full(len(obs), DEFAULT_RADIUS_UM if spot_um is None else spot_um / 2)
    circles = cell_circles(xy_um[placed], radius, table.obs[_keys.CELL_ID], um_per_global_px=um_per_px)
    source = {"reader": "from_anndata", "he_image": None if where is None else str(where.resolve())}
    return assemble(
        {table_key: table, _keys.CIRCLES: circles},
        file,
        {_keys.GLOBAL: Identity()},
        attrs=slide_attrs(sample=sample, patient=patient, um_per_global_px=float(um_per_px), source=source),
        image_key=image_key,
        out=out,
        overwrite=overwrite,
    )


def _counts(adata: AnnData) -> sparse.csr_matrix:
    """``adata.X`` as CSR float32, if it holds counts."""
    fix = "put raw counts into adata.X (often adata.layers['counts'] or adata.raw.X)"
    if adata.X is None or adata.n_obs == 0:
        msg = f"`adata` has {adata.n_obs} observations and {'no X' if adata.X is None else 'an empty X'}: {fix}."
        raise InputError(msg)
    counts = sparse.csr_matrix(adata.X)
    data = counts.data
    wrong = ~np.isfinite(data) | (data < 0) | (data != np.floor(data))
    if wrong.any():
        msg = (
            f"adata.X holds {int(wrong.sum())} values that are no counts, as {data[wrong][0]:.6g}; wanted whole "
            f"numbers from 0: {fix}."
        )
        raise InputError(msg)
    if not adata.obs_names.is_unique:
        repeated = adata.obs_names[adata.obs_names.duplicated()][0]
        msg = f"adata.obs_names are not unique, as {repeated!r}: call adata.obs_names_make_unique() first."
        raise InputError(msg)
    counts.eliminate_zeros()
    return counts.astype(np.float32)


def _positions(adata: AnnData, spatial_key: str | tuple[str, str]) -> NDArray[np.float64]:
    """Positions ``(n_obs, 2)`` as they are given, from obsm or from two columns of obs."""
    if isinstance(spatial_key, str):
        check_key(adata.obsm.keys(), spatial_key, name="spatial_key", where="adata.obsm")
        where, values = f"adata.obsm[{spatial_key!r}]", np.asarray(adata.obsm[spatial_key])
    else:
        for key in spatial_key:
            check_key(adata.obs.columns, key, name="spatial_key", where="adata.obs")
        where, values = f"adata.obs[{list(spatial_key)}]", adata.obs[list(spatial_key)].to_numpy()
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "iuf":
        msg = f"{where} is {values.dtype} of shape {values.shape}; wanted (n_obs, 2) numbers x, y."
        raise InputError(msg)
    lost = int((~np.isfinite(values)).any(axis=1).sum())
    if lost > MAX_WITHOUT_POSITION * len(values):
        msg = (
            f"{lost} of {len(values)} positions in {where} are not finite; at most "
            f"{MAX_WITHOUT_POSITION:.0%} may be dropped: remove these observations yourself if that is right."
        )
        raise InputError(msg)
    return values.astype(np.float64)


def _matrix(to_image: ArrayLike) -> NDArray[np.float64]:
    """Affine matrix ``(3, 3)``, or an error that says what is wrong with it."""
    matrix = np.asarray(to_image, dtype=np.float64)
    fault = None
    if matrix.shape != (3, 3):
        fault = f"has shape {matrix.shape}"
    elif not np.isfinite(matrix).all() or not np.allclose(matrix[2], [0, 0, 1]):
        fault = f"has the last row {matrix[2].tolist()}, or numbers that are not finite"
    elif not abs(np.linalg.det(matrix[:2, :2])) > 0:
        fault = "is singular"
    if fault is not None:
        msg = f"`to_image` {fault}; wanted a (3, 3) affine matrix with last row 0, 0, 1 that maps x, y to px."
        raise InputError(msg)
    return matrix


def _in_um(
    xy: NDArray[np.float64], matrix: NDArray[np.float64] | None, spatial_unit: str, um_per_px: float
) -> NDArray[np.float64]:
    """Micrometres from the top-left corner of the image."""
    if matrix is not None:
        return apply(matrix, xy) * um_per_px
    return xy * um_per_px if spatial_unit == "px" else xy


def _open(image: str | Path | NDArray[np.uint8]) -> tuple[RgbFile, Path | None]:
    if isinstance(image, (str, Path)):
        return open_rgb(image), Path(image)
    return RgbFile([RgbPixels(image, axes="YXS"[: np.ndim(image)], name="array")], None, []), None


def _count_outside(xy_px: NDArray[np.float64], file: RgbFile, spatial_unit: str) -> int:
    outside = int((~file.contains(xy_px)).sum())
    if outside > MAX_OUTSIDE_IMAGE * len(xy_px):
        height, width = file.pixels.shape[:2]
        low, high = np.round(xy_px.min(axis=0)).tolist(), np.round(xy_px.max(axis=0)).tolist()
        msg = (
            f"{outside} of {len(xy_px)} positions lie outside the image of {height} x {width} px (y, x): as px they "
            f"span x, y {low} to {high}; check `spatial_unit={spatial_unit!r}`, that columns are x, y, and that "
            f"positions belong to the full-resolution image."
        )
        raise InputError(msg)
    return outside


def _var(adata: AnnData) -> pd.DataFrame:
    """Columns of ``adata.var`` with unique names and ``gene_ids``."""
    var: pd.DataFrame = adata.var.copy()
    if "gene_ids" not in var:
        var["gene_ids"] = adata.var_names.astype(str).to_numpy(object)
    var.index = make_index_unique(pd.Index(adata.var_names.astype(str)))
    return var
