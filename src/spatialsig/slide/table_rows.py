"""Rows of tables that describe patches, whoever made the tables: found by id or by place, never by their order.

Floor 4, above train. Used by 16 modules of atlas, evaluation, inference, io, pl, pp, referee, report, slide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
from pandas.api.types import is_numeric_dtype
from scipy import sparse
from scipy.spatial import cKDTree

from spatialsig import _keys
from spatialsig._checks import check_key, first_few, warn
from spatialsig._text import trimmed
from spatialsig.errors import InputError
from spatialsig.geometry.affine import apply
from spatialsig.slide.coordinates import matrix_to_global
from spatialsig.slide.counts import in_memory
from spatialsig.slide.parts import obsm_of

if TYPE_CHECKING:
    from collections.abc import Collection

    import anndata as ad
    from numpy.typing import NDArray

    from spatialsig.slide.patches import Patches
    from spatialsig.slide.slides import Slide

TOLERANCE_PX = 1.0  # level-0 px by which the centre of a tile may miss that of its patch
ATTRS = "spatialdata_attrs"
MAKE_AGAIN = "Make the table again."


@dataclass(frozen=True)
class PatchMatrix:
    """Numbers about every patch of a slide, in the order of the patches."""

    values: NDArray[np.float32]  # (n_patches, d), NaN rows where the table has none
    names: list[str]  # of the columns
    sem: NDArray[np.float32] | None  # standard errors (n_patches, d); None where the table has none
    n_cells: NDArray[np.float32] | None  # (n_patches,); None where the table has none
    record: dict[str, Any]  # what the table says about its origin

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Patches with at least one value, ``(n_patches,)``: the labelled ones, where the values are labels."""
        return np.asarray(np.isfinite(self.values).any(axis=1))

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Patches with every value, ``(n_patches,)``."""
        return np.asarray(np.isfinite(self.values).all(axis=1))

    def without(self, names: Collection[str]) -> PatchMatrix:
        """The same without these columns."""
        kept = [k for k, name in enumerate(self.names) if name not in names]
        if len(kept) == len(self.names):
            return self
        sem = None if self.sem is None else self.sem[:, kept]
        return replace(self, values=self.values[:, kept], names=[self.names[k] for k in kept], sem=sem)


def matrix_of(patches: Patches, key: str, *, name: str, fix: str = "") -> PatchMatrix:
    """Read table ``key`` (its ``X``, or with ``"table/entry"`` an entry of its ``obsm``) in the order of the patches.

    A table that annotates the patches is matched by their ids. One that annotates other shapes, such as the tiles from
    which :func:`spatialsig.pp.import_patches` made the patches, is matched by the centres of those.
    ``name`` is the argument that named the table, ``fix`` what to do if it is not there, for the messages. Raises
    :class:`KeyMissingError` if there is no such table or entry, :class:`InputError` if nothing says to which patch a
    row belongs, ids repeat or are unknown, rows are of another slide, no row belongs to a patch, or values are no finite numbers.
    """
    slide = patches.slide
    table_key, _, entry = key.partition(_keys.ENTRY)
    table = slide.table(table_key, name=name, fix=fix)
    rows = patches.rows_in(table_key)
    if not (rows >= 0).any():
        msg = f"slide {slide.name!r}: no row of table {table_key!r} belongs to one of the patches {patches.key!r}."
        raise InputError(msg)
    if slide.lineage.is_edited(f"{table_key}/obs/{_keys.FOLD}"):
        warn(
            f"slide {slide.name!r}: `tables[{table_key!r}].obs[{_keys.FOLD!r}]` was changed by hand; folds are those that "
            "`sp.pp.split` assigned, whatever this column says. Call `sp.pp.split` for others."
        )
    names = list(table.var_names)
    if not entry:
        source = scores_of(slide, table_key)
    else:
        check_key(table.obsm, entry, name=name, where=f"the obsm of {table_key!r} of slide {slide.name!r}", fix=fix)
        slide.lineage.check(obsm_of(table_key, entry))
        source = numbers(table.obsm[entry], where=f"{place_of_table(slide, table_key)}.obsm[{entry!r}]")
        columns = source.columns if isinstance(source, pd.DataFrame) else range(source.shape[1])
        names = [str(column) if isinstance(column, str) else f"{entry}_{column}" for column in columns]
    has_sem = not entry and _keys.SEM in table.layers
    return PatchMatrix(
        values=aligned(source, rows),
        names=names,
        sem=aligned(table.layers[_keys.SEM], rows) if has_sem else None,
        n_cells=aligned(table.obs[[_keys.N_CELLS]], rows)[:, 0] if _keys.N_CELLS in table.obs else None,
        record=dict(slide.params(table_key)),
    )


def place_of_table(slide: Slide, table_key: str) -> str:
    """Where a table stands, for messages."""
    return f"slide {slide.name!r}: tables[{table_key!r}]"


def scores_of(slide: Slide, table_key: str) -> Any:
    """``X`` of a table of scores, ``(n_rows, n_signatures)``: a dense or sparse matrix of numbers, one column per name.

    Raises :class:`InputError` if the table holds no such matrix, or several columns have one name.
    """
    table, where = slide.sdata.tables[table_key], place_of_table(slide, table_key)
    if not table.var_names.is_unique:
        repeated = list(map(str, table.var_names[table.var_names.duplicated()].unique()))
        msg = f"{where} has several columns of one name: {first_few(repeated)}; wanted one per signature. {MAKE_AGAIN}"
        raise InputError(msg)
    scores = numbers(in_memory(table.X), where=f"{where}.X")
    infinite = int(np.isinf(scores.data if sparse.issparse(scores) else np.asarray(scores)).sum())
    if infinite:
        msg = f"{where}.X: {infinite} of {scores.shape[0] * scores.shape[1]} values are infinite; make them missing (NaN)."
        raise InputError(msg)
    return scores


def numbers(values: Any, *, where: str) -> Any:
    """Return ``values`` unchanged; :class:`InputError` if they are missing, masked, or anything but real numbers."""
    dtypes = list(values.dtypes) if isinstance(values, pd.DataFrame) else [getattr(values, "dtype", np.dtype(object))]
    other = [str(dtype) for dtype in dtypes if not is_numeric_dtype(dtype) or dtype.kind == "c"]
    if other or np.ma.isMaskedArray(values):
        found = "missing" if values is None else f"of type {other[0]}" if other else "masked (put NaN there)"
        msg = f"{where} is {found}; wanted a matrix of numbers, one row per patch. {MAKE_AGAIN}"
        raise InputError(msg)
    return values


def dense(values: Any) -> NDArray[Any]:
    """The matrix as a dense array."""
    return np.asarray(values.toarray() if sparse.issparse(values) else values)


def aligned(source: Any, rows: NDArray[np.int64], dtype: type[np.floating[Any]] = np.float32) -> NDArray[Any]:
    """Rows of an array, frame or sparse matrix, ``(len(rows), d)``; NaN for row -1."""
    there = rows >= 0
    if isinstance(source, pd.DataFrame):
        source = source.to_numpy()
    chosen = dense(source[rows[there]])
    out = np.full((len(rows), chosen.shape[1]), np.nan, dtype)
    out[there] = chosen
    return out


def rows_of_patches(patches: Patches, table: ad.AnnData, table_key: str) -> NDArray[np.int64]:
    """Row of the table for every patch, -1 where there is none."""
    _refuse_foreign(patches, table, table_key)
    ids, regions = _ids_and_regions(patches, table, table_key)
    region = patches.key if patches.key in regions else str(regions[0])
    here = np.flatnonzero(regions == region)
    index = pd.Index(ids.to_numpy()[here])
    name = patches.slide.name
    if not index.is_unique:
        repeated = index[index.duplicated()][0]
        msg = f"slide {name!r}: table {table_key!r} has several rows for {region} {repeated}; wanted one each."
        raise InputError(msg)
    if region == patches.key:
        _refuse_unknown(index, patches, table_key)
    ids_in_table = patches.ids if region == patches.key else _ids_by_place(patches, region, table_key)
    place = index.get_indexer(ids_in_table)
    return np.where(place >= 0, here[np.maximum(place, 0)], -1).astype(np.int64)


def _ids_and_regions(patches: Patches, table: ad.AnnData, table_key: str) -> tuple[pd.Series, NDArray[Any]]:
    """Id that every row of the table describes, and the element it is an id of."""
    attrs = table.uns.get(ATTRS, {})
    if attrs.get("instance_key") in table.obs and attrs.get("region_key") in table.obs:
        return table.obs[attrs["instance_key"]], table.obs[attrs["region_key"]].astype(str).to_numpy()
    if _keys.PATCH_ID in table.obs:
        return table.obs[_keys.PATCH_ID], np.full(table.n_obs, patches.key)
    msg = (
        f"slide {patches.slide.name!r}: nothing says to which patch a row of table {table_key!r} belongs, and their order is "
        f"not trusted. Add `obs[{_keys.PATCH_ID!r}]`, or let the table annotate its tiles with "
        "`spatialdata.models.TableModel.parse(table, region=..., region_key=..., instance_key=...)`."
    )
    raise InputError(msg)


def _refuse_foreign(patches: Patches, table: ad.AnnData, table_key: str) -> None:
    """Rows of a table of ours that name another slide, and a table without any, say nothing about these patches."""
    slide, fix = patches.slide, "Call the function that makes the table on this slide."
    if not table.n_obs:
        msg = f"slide {slide.name!r}: table {table_key!r} has no rows; wanted those of {_expected(patches)}. {fix}"
        raise InputError(msg)
    # only what we wrote, on a slide that says its name: others mean other things by "sample"
    if _keys.NAMESPACE not in table.uns or _keys.SAMPLE not in table.obs or not slide.attrs.get(_keys.SAMPLE):
        return
    samples = table.obs[_keys.SAMPLE]
    others = [name for name in samples.dropna().unique() if trimmed(str(name)) != trimmed(slide.name)]
    if others:
        named = first_few([repr(str(name)) for name in others])
        msg = (
            f"slide {slide.name!r}: {int(samples.isin(others).sum())} of {table.n_obs} rows of table {table_key!r} belong to slide {named} (its "
            f"`obs[{_keys.SAMPLE!r}]`); wanted those of {_expected(patches)}. Leave out the rows of other slides, or: "
            f"{fix[0].lower()}{fix[1:]}"
        )
        raise InputError(msg)


def _expected(patches: Patches) -> str:
    ids = list(map(str, patches.ids))
    return f"the {len(ids)} patches {patches.key!r} of this slide ({first_few(ids)})"


def _refuse_unknown(ids: pd.Index, patches: Patches, table_key: str) -> None:
    """Rows that describe patches which are not there were made from other patches of the same name."""
    unknown = [str(patch) for patch in ids[patches.ids.get_indexer(ids) < 0]]
    if unknown and set(map(str, ids)) <= set(map(str, patches.ids)):
        msg = (
            f"table {table_key!r} of slide {patches.slide.name!r} names patches by {type(ids[0]).__name__} ({ids[0]!r}), the ids of "
            f"{patches.key!r} are of type {type(patches.ids[0]).__name__}: convert its column, `.astype({patches.ids.dtype.name!r})`."
        )
        raise InputError(msg)
    if unknown:
        msg = (
            f"table {table_key!r} of slide {patches.slide.name!r} describes {len(unknown)} patches that are not in "
            f"{patches.key!r} ({first_few(unknown)}); wanted those of {_expected(patches)}. The patches were cut again after "
            f"the table was made, or it is the table of another slide. {MAKE_AGAIN}"
        )
        raise InputError(msg)


def _ids_by_place(patches: Patches, region: str, table_key: str) -> pd.Index:
    """Id of the tile at the place of every patch; None where there is none."""
    shapes = patches.slide.sdata.shapes
    where = f"the shapes of slide {patches.slide.name!r}, which table {table_key!r} annotates"
    check_key(shapes, region, name="region", where=where)
    tiles = shapes[region]
    geometry = np.asarray(tiles.geometry)
    if "bboxes" in tiles:  # sopa cuts its geometries along the tissue; its boxes are whole
        geometry = shapely.box(*np.stack([np.asarray(box, np.float64) for box in tiles["bboxes"]], axis=1))
    low, high = np.split(shapely.bounds(geometry), 2, axis=1)
    theirs, ours = matrix_to_global(tiles), matrix_to_global(patches.shapes)
    matrices = [np.eye(3)]  # LazySlide keeps level-0 px and says nothing of transformations
    if theirs is not None and ours is not None:
        matrices.insert(0, np.linalg.inv(ours) @ theirs)
    matches = [_nearest(apply(matrix, (low + high) / 2), patches.centres_px) for matrix in matrices]
    best = max(matches, key=lambda rows: int((rows >= 0).sum()))
    ids = tiles.index.to_numpy().astype(object)
    return pd.Index([ids[row] if row >= 0 else None for row in best], dtype=object)


def _nearest(tiles_px: NDArray[Any], centres_px: NDArray[Any]) -> NDArray[np.int64]:
    distance, row = cKDTree(tiles_px).query(centres_px, distance_upper_bound=2 * TOLERANCE_PX)
    return np.where(distance <= TOLERANCE_PX, row, -1).astype(np.int64)
