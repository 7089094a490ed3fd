"""A slide made of any table with positions and any RGB image: Visium, legacy ST, other imaging platforms.

Floor 7, above evaluation. Called as sp.io.from_anndata.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from spatialdata import SpatialData
from spatialdata.transformations import Identity
from xarray import DataArray

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, Micrometres, NewKey, UmPerPx, checked
from spatialsig._checks import check_key
from spatialsig.data.channels import channel_order
from spatialsig.errors import InputError
from spatialsig.geometry.affine import apply
from spatialsig.geometry.placement import real_numbers
from spatialsig.io._anndata_identity import identify
from spatialsig.io._elements import DEFAULT_RADIUS_UM, assemble, cell_circles, cell_table, labelled, slide_attrs
from spatialsig.io.images.metadata import choose_um_per_px
from spatialsig.io.images.open_rgb import image_name, open_rgb
from spatialsig.io.images.rgb import MAX_OUTSIDE_IMAGE, RgbFile, RgbPixels
from spatialsig.slide.coordinates import as_positions
from spatialsig.slide.counts import as_counts, in_memory
from spatialsig.store.commit import check_target
from spatialsig.store.tables import check_names, storable_frame

_CHANNEL_DIMS = {"c", "channel", "channels", "s", "sample", "band", "rgb"}


@checked
def from_anndata(
    adata: AnnData,
    image: AnyPath | NDArray[np.uint8] | DataArray,
    *,
    um_per_px: UmPerPx | None = None,
    spatial_key: Key | tuple[str, str] = _keys.SPATIAL,
    spatial_unit: Literal["px", "um"] = "px",
    to_image: ArrayLike | None = None,
    spot_um: Micrometres | None = None,
    gene_symbols: Key | None = None,
    sample: Key | None = None,
    patient: Key | None = None,
    image_key: NewKey = _keys.IMAGE,
    table_key: NewKey = _keys.TABLE,
    out: AnyPath | None = None,
    overwrite: bool = False,
) -> SpatialData:
    """Make a slide of a table of cells or spots and the image they lie on.

    Parameters
    ----------
    adata
        Table [1]_ whose ``X`` holds raw counts; left as it is. ``obs`` names must be unique.
    image
        Path of an RGB image in a format of :func:`read_he`, or an array ``(y, x, 3)`` uint8; the dimensions of a DataArray
        go by their names.
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
    gene_symbols
        Column of ``adata.var`` to name genes by, where ``var_names`` are others, such as Ensembl ids; these then become
        ``var["gene_ids"]``, unless that is there.
    sample, patient
        Names of the slide and of its patient; by default what the columns ``sample`` and ``patient`` of ``adata.obs`` say,
        else the name of the image file (``"slide"`` for an array), and the sample's.
    image_key, table_key
        Names of the image and of the table.
    out, overwrite
        Write a new store there (replacing one); otherwise the object stays in memory, a tiled image on disk.

    Returns
    -------
    Object whose ``global`` is px of the image, with

    - ``tables[table_key]``: ``X`` raw counts, CSR float32; the columns of ``adata.obs`` (text with missing values as
      categories), ``obs["cell_id"]`` (that of ``adata.obs`` where it is one per row, else ``obs_names``), ``obs["sample"]``,
      ``obs["patient"]``, ``obs["region"]``; columns of these names that hold something else as ``<name>_original``;
      ``obsm["spatial"]`` um and the other ``obsm``;
      ``var["gene_ids"]``; ``uns["spatialsig"]["from_anndata"]`` counts what was left out;
    - ``shapes["cell_circles"]``: the cells or spots in um, which the table annotates;
    - ``images[image_key]``: ``(c, y, x)`` uint8 RGB, multi-scale;
    - ``attrs["spatialsig"]``: ``sample``, ``patient``, ``um_per_global_px``, ``source``.

    Raises
    ------
    KeyMissingError
        If ``adata.obsm`` has no ``spatial_key``, or ``adata.obs`` or ``adata.var`` not the columns.
    InputError
        If ``X`` holds no counts, positions are no ``(n_obs, 2)`` numbers, more than 1 % of them are not finite,
        more than 20 % lie outside the image, ``to_image`` is no affine matrix, or nothing says the size of a px; if the
        table holds several slides or patients, or another than the argument says; if a column cannot be stored.

    Warns
    -----
    SpatialsigWarning
        If a column had to be renamed, or cells without a position are left out.

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
    if out is not None:
        check_target(Path(out), overwrite=overwrite)
    identity = identify(adata, sample=sample, patient=patient)
    frame, var = storable_frame(identity.obs, where="adata.obs"), _var(adata, gene_symbols)
    counts = _counts(adata)
    xy = _positions(adata, spatial_key)
    matrix = None if to_image is None else _matrix(to_image)
    if um_per_px is None and matrix is not None and spatial_unit == "um":
        um_per_px = float(1 / np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))
    file, where = _open(image)
    try:
        um_per_px = choose_um_per_px(where, um_per_px=um_per_px, in_file=file.pixel_size, why_none=file.why_no_size)
        xy_um = _in_um(xy, matrix, spatial_unit, um_per_px)
        placed: NDArray[np.bool_] = np.asarray(np.isfinite(xy_um).all(axis=1))
        outside = _count_outside(xy_um[placed] / um_per_px, file, spatial_unit)
    except InputError:
        file.close()
        raise
    sample = identity.sample or (image_name(where) if where else "slide")
    obs = labelled(frame.loc[placed], sample=sample, patient=identity.patient or sample)
    obs[_keys.CELL_ID] = identity.cell_ids[placed]
    info = {
        "n_cells": int(placed.sum()),
        "n_genes": adata.n_vars,
        "um_per_px": um_per_px,
        "cells_dropped_without_position": int((~placed).sum()),
        "cells_outside_image": outside,
    }
    table = cell_table(counts[placed], obs, var, xy_um[placed], info={"from_anndata": info})
    table.obs_names = adata.obs_names[placed].astype(str).astype(object)
    for key in set(adata.obsm) - {str(spatial_key), _keys.SPATIAL}:
        table.obsm[key] = in_memory(adata.obsm[key])[placed]
    radius = np.full(len(obs), DEFAULT_RADIUS_UM if spot_um is None else spot_um / 2)
    circles = cell_circles(xy_um[placed], radius, table.obs[_keys.CELL_ID], um_per_global_px=um_per_px)
    source = {
        "reader": "from_anndata",
        "he_image": None if where is None else str(where.resolve()),
        "spatial_unit": spatial_unit if matrix is None else "as `to_image` says",
    }
    return assemble(
        {table_key: table, _keys.CIRCLES: circles},
        file,
        {_keys.GLOBAL: Identity()},
        attrs=slide_attrs(sample=sample, patient=identity.patient, um_per_global_px=float(um_per_px), source=source),
        image_key=image_key,
        out=out,
        overwrite=overwrite,
    )


def _counts(adata: AnnData) -> sparse.csr_matrix:
    """``adata.X`` as CSR float32, if it holds counts; from wherever it lies."""
    fix = "Put raw counts into adata.X (often adata.layers['counts'] or adata.raw.X)."
    counts = as_counts(in_memory(adata.X), where="adata.X", fix=fix)
    if not adata.obs_names.is_unique:
        repeated = adata.obs_names[adata.obs_names.duplicated()][0]
        msg = f"adata.obs_names are not unique, as {repeated!r}: call adata.obs_names_make_unique() first."
        raise InputError(msg)
    counts = sparse.csr_matrix(counts, dtype=np.float32, copy=True)
    counts.eliminate_zeros()
    return counts


def _positions(adata: AnnData, spatial_key: str | tuple[str, str]) -> NDArray[np.float64]:
    """Positions ``(n_obs, 2)`` as they are given, from obsm or from two columns of obs."""
    if isinstance(spatial_key, str):
        check_key(adata.obsm.keys(), spatial_key, name="spatial_key", where="adata.obsm")
        return as_positions(in_memory(adata.obsm[spatial_key]), where=f"adata.obsm[{spatial_key!r}]")
    for key in spatial_key:
        check_key(list(map(str, adata.obs.columns)), key, name="spatial_key", where="adata.obs")
    columns = adata.obs[list(spatial_key)]
    nullable = [pd.api.types.is_numeric_dtype(columns[key]) for key in spatial_key]
    values = columns.to_numpy(np.float64, na_value=np.nan) if all(nullable) else columns.to_numpy()
    return as_positions(values, where=f"adata.obs[{list(spatial_key)}]")


def _matrix(to_image: ArrayLike) -> NDArray[np.float64]:
    """Affine matrix ``(3, 3)``, or an error that says what is wrong with it."""
    matrix = real_numbers(to_image, name="`to_image`")
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


def _open(image: str | Path | NDArray[np.uint8] | DataArray) -> tuple[RgbFile, Path | None]:
    if isinstance(image, (str, Path)):
        return open_rgb(image), Path(image)
    axes, names = "YXS"[: np.ndim(image)], []
    if isinstance(image, DataArray):
        axes = _axes(image) or axes
        names = [str(name) for name in image.coords["c"].values] if "c" in image.coords else []
    channels = channel_order(names, [None] * len(names), where="image 'array'")
    return RgbFile([RgbPixels(image, axes=axes, name="array", channels=channels)], None, []), None


def _axes(image: DataArray) -> str | None:
    """Axes by the names of the dimensions; None where none of them says where y and x lie."""
    names = [str(dim).lower() for dim in image.dims]
    if not {"x", "y"} & set(names):
        return None
    if not {"x", "y"} <= set(names) or not {*names} - {"x", "y"} <= _CHANNEL_DIMS:
        msg = f"`image` has dimensions {list(image.dims)}; wanted y, x and c in any order: rename them with `image.rename`."
        raise InputError(msg)
    return "".join(name.upper() if name in "xy" else "S" for name in names)


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


def _var(adata: AnnData, gene_symbols: str | None) -> pd.DataFrame:
    """Columns of ``adata.var`` with unique names and ``gene_ids``; named by the column ``gene_symbols`` where given."""
    check_names(adata.var.columns, where="adata.var")
    var = storable_frame(adata.var.copy(), where="adata.var")
    names = pd.Series(adata.var_names.astype(str).to_numpy(object), index=var.index)
    if "gene_ids" not in var:
        var["gene_ids"] = names
    if gene_symbols is not None:
        check_key(list(map(str, var.columns)), gene_symbols, name="gene_symbols", where="adata.var")
        symbols = var[gene_symbols].astype(object)
        names = symbols.where(symbols.notna() & (symbols.astype(str) != ""), names).astype(str)
    var.index = make_index_unique(pd.Index(names.to_numpy(object)))
    return var
