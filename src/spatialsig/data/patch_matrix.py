"""Tables of numbers about patches, whoever made them: rows are found by id or by place, never by their order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
from scipy import sparse
from scipy.spatial import cKDTree

from spatialsig import _keys
from spatialsig._checks import check_key
from spatialsig._errors import InputError
from spatialsig.data.frames import matrix_to_global
from spatialsig.data.patch_table import patch_origins_of, patch_spec
from spatialsig.geometry.affine import apply

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.data.slides import Slide

SEPARATOR = "/"  # between a table and an entry of its obsm
TOLERANCE_PX = 1.0  # level-0 px by which the centre of a tile may miss that of its patch
ATTRS = "spatialdata_attrs"


@dataclass(frozen=True)
class PatchMatrix:
    """Numbers about every patch of a slide, in the order of the patches.

    Parameters
    ----------
    values
        ``(n_patches, d)`` float32, NaN rows where the table has none.
    names
        Of the columns.
    sem, n_cells
        Standard errors ``(n_patches, d)``, cells ``(n_patches,)``, both float32; None where the table has none.
    record
        What is known of the origin of the table.
    """

    values: NDArray[np.float32]
    names: list[str]
    sem: NDArray[np.float32] | None
    n_cells: NDArray[np.float32] | None
    record: dict[str, Any]


def patch_matrix(slide: Slide, patches_key: str, key: str, *, name: str, fix: str = "") -> PatchMatrix:
    """Read table ``key`` (its ``X``, or with ``"table/entry"`` an entry of its ``obsm``) for the patches of a slide.

    A table that annotates the patches is matched by their ids. One that annotates other shapes, such as the tiles from
    which :func:`spatialsig.pp.import_patches` made the patches, is matched by the centres of those.

    Parameters
    ----------
    name, fix
        Argument that named the table, and what to do if it is not there, for the messages.

    Raises
    ------
    KeyMissingError
        If there is no such table or entry.
    InputError
        If nothing says to which patch a row belongs, ids repeat, or no row belongs to a patch.
    """
    table_key, _, entry = key.partition(SEPARATOR)
    table = slide.table(table_key, name=name, fix=fix)
    rows = _rows_of_patches(slide, patches_key, table, table_key)
    if not (rows >= 0).any():
        msg = f"slide {slide.name!r}: no row of table {table_key!r} belongs to one of the patches {patches_key!r}."
        raise InputError(msg)
    source: Any = table.X
    names = list(table.var_names)
    if entry:
        check_key(table.obsm, entry, name=name, where=f"the obsm of {table_key!r} of slide {slide.name!r}")
        source = table.obsm[entry]
        columns = source.columns if isinstance(source, pd.DataFrame) else range(source.shape[1])
        names = [str(column) if isinstance(column, str) else f"{entry}_{column}" for column in columns]
    has_sem = not entry and _keys.SEM in table.layers
    return PatchMatrix(
        values=_aligned(source, rows),
        names=names,
        sem=_aligned(table.layers[_keys.SEM], rows) if has_sem else None,
        n_cells=_aligned(table.obs[[_keys.N_CELLS]], rows)[:, 0] if _keys.N_CELLS in table.obs else None,
        record=dict(slide.params(table_key)),
    )


def _aligned(source: Any, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rows of an array, frame or sparse matrix, float32; NaN for row -1."""
    known = rows >= 0
    if isinstance(source, pd.DataFrame):
        source = source.to_numpy()
    chosen = source[rows[known]]
    dense = chosen.toarray() if sparse.issparse(chosen) else np.asarray(chosen)
    out = np.full((len(rows), dense.shape[1]), np.nan, np.float32)
    out[known] = dense
    return out


def _rows_of_patches(slide: Slide, patches_key: str, table: ad.AnnData, table_key: str) -> NDArray[np.int64]:
    """Row of the table for every patch, -1 where there is none."""
    patches = slide.sdata.shapes[patches_key]
    attrs = table.uns.get(ATTRS, {})
    if attrs.get("instance_key") in table.obs and attrs.get("region_key") in table.obs:
        ids, regions = table.obs[attrs["instance_key"]], table.obs[attrs["region_key"]].astype(str).to_numpy()
    elif _keys.PATCH_ID in table.obs:
        ids, regions = table.obs[_keys.PATCH_ID], np.full(table.n_obs, patches_key)
    else:
        msg = (
            f"slide {slide.name!r}: nothing says to which patch a row of table {table_key!r} belongs, and their order is "
            f"not trusted. Add `obs[{_keys.PATCH_ID!r}]`, or let the table annotate its tiles with "
            "`spatialdata.models.TableModel.parse(table, region=..., region_key=..., instance_key=...)`."
        )
        raise InputError(msg)
    region = patches_key if patches_key in regions else str(regions[0])
    here = np.flatnonzero(regions == region)
    index = pd.Index(ids.to_numpy()[here])
    if not index.is_unique:
        repeated = index[index.duplicated()][0]
        msg = f"slide {slide.name!r}: table {table_key!r} has several rows for {region} {repeated}; wanted one each."
        raise InputError(msg)
    wanted = patches.index if region == patches_key else _ids_by_place(slide, patches_key, region, table_key)
    found = index.get_indexer(wanted)
    return np.where(found >= 0, here[np.maximum(found, 0)], -1).astype(np.int64)


def _ids_by_place(slide: Slide, patches_key: str, region: str, table_key: str) -> pd.Index:
    """Id of the tile at the place of every patch; None where there is none."""
    where = f"the shapes of slide {slide.name!r}, which table {table_key!r} annotates"
    check_key(slide.sdata.shapes, region, name="region", where=where)
    tiles = slide.sdata.shapes[region]
    geometry = np.asarray(tiles.geometry)
    if "bboxes" in tiles:  # sopa cuts its geometries along the tissue; its boxes are whole
        geometry = shapely.box(*np.stack([np.asarray(box, np.float64) for box in tiles["bboxes"]], axis=1))
    low, high = np.split(shapely.bounds(geometry), 2, axis=1)
    centres = patch_origins_of(slide, patches_key)[:, ::-1] + patch_spec(slide, patches_key).size_l0 / 2
    theirs, ours = matrix_to_global(tiles), matrix_to_global(slide.sdata.shapes[patches_key])
    matrices = [np.eye(3)]  # LazySlide keeps level-0 px and says nothing of transformations
    if theirs is not None and ours is not None:
        matrices.insert(0, np.linalg.inv(ours) @ theirs)
    found = [_nearest(apply(matrix, (low + high) / 2), centres) for matrix in matrices]
    best = max(found, key=lambda rows: int((rows >= 0).sum()))
    ids = tiles.index.to_numpy().astype(object)
    return pd.Index([ids[row] if row >= 0 else None for row in best], dtype=object)


def _nearest(tiles_px: NDArray[Any], centres_px: NDArray[Any]) -> NDArray[np.int64]:
    distance, row = cKDTree(tiles_px).query(centres_px, distance_upper_bound=2 * TOLERANCE_PX)
    return np.where(distance <= TOLERANCE_PX, row, -1).astype(np.int64)
